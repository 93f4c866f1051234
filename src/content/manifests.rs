//! Manifests that have been read and verified, to be used again. A source by digest only.

use std::collections::HashMap;

use async_trait::async_trait;

use super::{Body, Files, Need, ReferrerList, Source, TagList};
use crate::base::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};

/// See the module documentation. It does not track which repository has which manifest.
#[derive(Debug, Default)]
pub struct Manifests(HashMap<Digest, Manifest>);

impl Manifests {
    pub fn get(&self, digest: &Digest) -> Option<&Manifest> {
        self.0.get(digest)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<Manifest> for Manifests {
    fn extend<I: IntoIterator<Item = Manifest>>(&mut self, more: I) {
        self.0.extend(more.into_iter().map(|manifest| (manifest.digest(), manifest)));
    }
}

impl From<HashMap<Digest, Manifest>> for Manifests {
    fn from(by_digest: HashMap<Digest, Manifest>) -> Manifests {
        Manifests(by_digest)
    }
}

#[async_trait]
impl Source for Manifests {
    async fn tags(&self, _: &Repository, _: Need) -> Result<TagList> {
        Ok(TagList::default())
    }

    async fn resolve(&self, reference: &Reference, _: Need) -> Result<Option<Descriptor>> {
        Ok(self.manifest(reference, Need::Required).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(&self, reference: &Reference, _: Need) -> Result<Option<Manifest>> {
        Ok(reference.digest.and_then(|digest| self.0.get(&digest).cloned()))
    }

    async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::default())
    }

    async fn blob(&self, _: &Repository, blob: &Descriptor, _: u64) -> Result<Body> {
        Err(Error::new(Kind::NotFound, format!("{} is not a manifest", blob.digest)))
    }

    async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: Error) -> Result<()> {
        Err(error)
    }

    fn counts_pulls(&self, _: &Repository) -> bool {
        false
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}
