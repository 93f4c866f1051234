//! One place of a way, and what was read there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Served;
use super::doubts::Given;
use super::standing::Standing;
use crate::base::error::{Error, Result};
use crate::base::progress::Events;
use crate::oci::{Reference, Repository};
use crate::routes::Serves;
use crate::transport::registry::host::Host;
use crate::transport::registry::questions::Need;

pub(super) struct Stop {
    pub host: Arc<Host>,
    /// As it is called here.
    pub repository: Repository,
    pub serves: Serves,
    /// The registry itself has none: after it there is nobody to ask.
    standing: Option<Arc<Standing>>,
    manifests: AtomicU64,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Stop {
    pub fn new(host: Arc<Host>, repository: Repository, serves: Serves, standing: Option<Arc<Standing>>) -> Stop {
        let (manifests, blobs, bytes) = Default::default();
        Stop { host, repository, serves, standing, manifests, blobs, bytes }
    }

    /// `reference` as it is called here.
    pub fn named(&self, reference: &Reference) -> Reference {
        Reference { repository: self.repository.clone(), ..reference.clone() }
    }

    /// Asks, unless this place has failed too often a moment ago. That it does not answer an optional question does not count.
    ///
    /// # Errors
    /// That of the question, or that it was not asked.
    pub async fn attempt<T>(
        &self,
        question: impl Future<Output = Result<T>>,
        need: Need,
        events: &Events,
    ) -> Result<T> {
        let Some(standing) = &self.standing else { return question.await };
        standing.check(&self.repository)?;
        let answer = question.await;
        if need == Need::Required || answer.is_ok() {
            standing.note(answer.as_ref().err(), &self.host.registry, events);
        }
        answer
    }

    pub fn count_manifest(&self) {
        self.manifests.fetch_add(1, Relaxed);
    }

    pub fn count(&self, given: Given) {
        self.blobs.fetch_add(given.blobs, Relaxed);
        self.bytes.fetch_add(given.bytes, Relaxed);
    }

    /// What was counted here of one blob is thrown away: it is nobody's merit.
    pub fn discount(&self, given: Given) {
        self.blobs.fetch_sub(given.blobs, Relaxed);
        self.bytes.fetch_sub(given.bytes, Relaxed);
    }

    /// All of a blob that was wrong came from here.
    pub fn gave_wrong(&self, error: &Error, events: &Events) {
        if let Some(standing) = &self.standing {
            standing.gave_wrong(error, &self.host.registry, events);
        }
    }

    pub fn served(&self, repository: &Repository) -> Served {
        let (repository, from) = (repository.clone(), self.repository.clone());
        let (manifests, blobs, bytes) =
            (self.manifests.load(Relaxed), self.blobs.load(Relaxed), self.bytes.load(Relaxed));
        Served { repository, from, manifests, blobs, bytes }
    }
}
