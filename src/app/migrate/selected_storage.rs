//! A storage as the walk must see it: with the companions that an audit found for the selected images. Tags that are images
//! of their own are hidden, and no revision is read to find its subject.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::base::error::{Error, Result};
use crate::content::{Body, Files, Need, ReferrerList, Source, TagList};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository, Tag};
use crate::transport::storage::{AttachedDescriptors, Storage, Tagged};

/// See the module documentation.
pub struct SelectedStorage<'a> {
    storage: &'a Storage,
    attached: AttachedDescriptors,
    /// Tags that may be those of cosign.
    beside: HashMap<Repository, Vec<Tag>>,
}

impl<'a> SelectedStorage<'a> {
    pub fn new(storage: &'a Storage, attached: AttachedDescriptors, tags: Vec<Tagged>) -> SelectedStorage<'a> {
        let mut beside: HashMap<Repository, Vec<Tag>> = HashMap::new();
        for Tagged { repository, tag, .. } in tags {
            beside.entry(repository).or_default().extend(tag);
        }
        SelectedStorage { storage, attached, beside }
    }
}

#[async_trait]
impl Source for SelectedStorage<'_> {
    async fn tags(&self, repository: &Repository, _: Need) -> Result<TagList> {
        Ok(self.beside.get(repository).cloned().unwrap_or_default().into())
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.storage.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        self.storage.manifest(reference, need).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        Ok(self.attached.to(repository, subject).to_vec().into())
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        self.storage.blob(repository, blob, offset).await
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        self.storage.gave_wrong(repository, blob, error).await
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.storage.counts_pulls(repository)
    }

    fn files(&self) -> Option<&dyn Files> {
        self.storage.files()
    }
}
