//! A source whose blobs are read only as long as they are useful: if one blob of an image was refused for good, the
//! others under way stop, and their uploads are cancelled.

use async_trait::async_trait;
use futures_util::StreamExt;

use super::stopped_parts::StoppedParts;
use crate::base::error::{Error, Result};
use crate::content::{Body, Files, Need, ReferrerList, Source, TagList};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};

/// For uploads to one repository of the target.
pub struct OfUse<'a> {
    pub inner: &'a dyn Source,
    pub stopped: &'a StoppedParts,
    pub to: &'a Repository,
}

#[async_trait]
impl Source for OfUse<'_> {
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList> {
        self.inner.tags(repository, need).await
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.inner.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        self.inner.manifest(reference, need).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        self.inner.referrers(repository, subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        self.stopped.check_use(self.to, blob.digest)?;
        let Body { offset, stream, file } = self.inner.blob(repository, blob, offset).await?;
        let (stopped, to, digest) = (self.stopped.clone(), self.to.clone(), blob.digest);
        let stream = stream.map(move |piece| stopped.check_use(&to, digest).and(piece));
        Ok(Body { offset, stream: stream.boxed(), file })
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        self.inner.gave_wrong(repository, blob, error).await
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.inner.counts_pulls(repository)
    }

    fn files(&self) -> Option<&dyn Files> {
        self.inner.files()
    }
}
