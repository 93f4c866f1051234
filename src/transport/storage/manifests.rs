//! Manifests that were read and proven once: whoever needs one again takes it from here. A source by digest, and of nothing
//! else.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::content::{Body, Source};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository, Tag};

/// See the module documentation. Which repository has which of them is not its business.
#[derive(Debug, Default)]
pub struct Manifests(pub(super) HashMap<Digest, Manifest>);

impl Manifests {
    pub fn get(&self, digest: &Digest) -> Option<&Manifest> {
        self.0.get(digest)
    }
}

#[async_trait]
impl Source for Manifests {
    async fn tags(&self, _: &Repository) -> Result<Vec<Tag>> {
        Ok(Vec::new())
    }

    async fn resolve(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        Ok(self.manifest(reference).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        Ok(reference.digest.and_then(|digest| self.0.get(&digest).cloned()))
    }

    async fn referrers(&self, _: &Repository, _: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }

    async fn blob(&self, _: &Repository, blob: &Descriptor, _: u64) -> Result<Body> {
        Err(Error::new(Kind::NotFound, format!("{} is no manifest", blob.digest)))
    }
}
