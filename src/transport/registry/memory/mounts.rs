//! The results of mounts at one registry.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::oci::Repository;

/// After this many mounts in a row without an answer, no more are tried, if the registry has answered others.
const MOST_UNANSWERED: u32 = 3;
/// After this many mounts without effect, no more are tried, if none has had an effect.
const MOST_EMPTY: u32 = 3;

/// Each registry has one.
#[derive(Default)]
pub(in crate::transport::registry) struct Mounts {
    has_answered: AtomicBool,
    /// Number of unanswered mounts since the last answer.
    unanswered: AtomicU32,
    /// Number of mounts that were answered with 201 and did not create the blob.
    empty: AtomicU32,
    /// Projects in which a mount has created a blob, as far as can be seen.
    proven: Mutex<HashSet<String>>,
}

impl Mounts {
    /// Whether another mount is worth trying.
    pub fn are_useful(&self) -> bool {
        let most = if self.has_answered.load(Ordering::Relaxed) { MOST_UNANSWERED } else { 1 };
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        self.unanswered.load(Ordering::Relaxed) < most
            && !(proven.is_empty() && self.empty.load(Ordering::Relaxed) >= MOST_EMPTY)
    }

    /// Records that the registry answered a mount, whatever the answer.
    pub fn note_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Records a mount without an answer.
    pub fn note_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a mount that was answered with 201 and had no effect.
    pub fn note_empty(&self) {
        self.empty.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a mount has created a blob in the repository's project.
    pub fn is_proven(&self, repository: &Repository) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(repository.project())
    }

    /// Records that a mount created a blob in the repository's project, as far as this account can see.
    pub fn note_proven(&self, repository: &Repository) {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.project().to_owned());
    }
}
