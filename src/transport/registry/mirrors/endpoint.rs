//! One endpoint of a repository, a mirror or the registry itself, and counts of what was read there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Served;
use super::health::CircuitBreaker;
use super::suspects::EndpointReads;
use crate::base::error::{Error, Result};
use crate::base::progress::Events;
use crate::content::Need;
use crate::oci::{Reference, Repository};
use crate::routes::Serves;
use crate::transport::registry::host::Host;

pub(super) struct Endpoint {
    pub host: Arc<Host>,
    /// The repository's name at this endpoint.
    pub repository: Repository,
    pub serves: Serves,
    /// `None` for the registry itself, because no endpoint is left after it.
    breaker: Option<Arc<CircuitBreaker>>,
    manifests: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Endpoint {
    pub fn new(
        host: Arc<Host>,
        repository: Repository,
        serves: Serves,
        breaker: Option<Arc<CircuitBreaker>>,
    ) -> Endpoint {
        let (manifests, blobs, bytes) = Default::default();
        Endpoint { host, repository, serves, breaker, manifests, blobs, bytes }
    }

    /// `reference` with the repository's name at this endpoint.
    pub fn named(&self, reference: &Reference) -> Reference {
        Reference { repository: self.repository.clone(), ..reference.clone() }
    }

    /// Runs `question`, unless this endpoint has failed too often recently. The failure of an optional question does
    /// not count.
    ///
    /// # Errors
    /// The error of the question, or that it was not asked.
    pub async fn attempt<T>(
        &self,
        question: impl Future<Output = Result<T>>,
        need: Need,
        events: &Events,
    ) -> Result<T> {
        let Some(breaker) = &self.breaker else { return question.await };
        breaker.check(&self.repository)?;
        let answer = question.await;
        if need == Need::Required || answer.is_ok() {
            breaker.note(answer.as_ref().err(), &self.host.registry, events);
        }
        answer
    }

    pub fn count_manifest(&self) {
        self.manifests.fetch_add(1, Relaxed);
    }

    pub fn count(&self, given: EndpointReads) {
        self.blobs.fetch_add(given.blobs, Relaxed);
        self.bytes.fetch_add(given.bytes, Relaxed);
    }

    /// Subtracts what was counted here for one blob, because its bytes were discarded.
    pub fn discount(&self, given: EndpointReads) {
        self.blobs.fetch_sub(given.blobs, Relaxed);
        self.bytes.fetch_sub(given.bytes, Relaxed);
    }

    /// Notes that this endpoint gave all the bytes of a wrong blob.
    pub fn gave_wrong(&self, error: &Error, events: &Events) {
        if let Some(breaker) = &self.breaker {
            breaker.gave_wrong(error, &self.host.registry, events);
        }
    }

    pub fn served(&self, repository: &Repository) -> Served {
        let (repository, from) = (repository.clone(), self.repository.clone());
        let (manifests, blobs, bytes) =
            (self.manifests.load(Relaxed), self.blobs.load(Relaxed), self.bytes.load(Relaxed));
        Served { repository, from, manifest_count: manifests, blobs, bytes }
    }
}
