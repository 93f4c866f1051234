//! Reads from a registry itself, never from one of its mirrors, to find out what the registry has.

use async_trait::async_trait;

use super::auth::Scopes;
use super::{Registries, download, manifests, referrers, tags};
use crate::base::error::{Error, Result};
use crate::content::{Body, Files, Need, ReferrerList, Source, TagList};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};

/// The registries of a run as a source, without their mirrors and with the right to pull. Every question is treated as
/// [`Need::Required`], because what a target has decides what is pushed and deleted.
pub struct Itself(Registries);

impl Registries {
    /// The same registries without their mirrors.
    pub fn itself(&self) -> Itself {
        Itself(self.clone())
    }
}

#[async_trait]
impl Source for Itself {
    async fn tags(&self, repository: &Repository, _: Need) -> Result<TagList> {
        tags::list(&*self.0.target(repository)?, repository, Need::Required).await
    }

    async fn resolve(&self, reference: &Reference, _: Need) -> Result<Option<Descriptor>> {
        let repository = &reference.repository;
        manifests::resolve(&*self.0.target(repository)?, reference, Scopes::pull(repository), Need::Required).await
    }

    async fn manifest(&self, reference: &Reference, _: Need) -> Result<Option<Manifest>> {
        let repository = &reference.repository;
        manifests::get(&*self.0.target(repository)?, reference, Scopes::pull(repository), Need::Required).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        referrers::list(&*self.0.target(repository)?, repository, subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        download::blob(self.0.target(repository)?, repository, blob, offset).await
    }

    async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: Error) -> Result<()> {
        Err(error)
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.0.target(repository).is_ok_and(|host| host.gate.counts_pulls())
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}
