//! The results of mounts at one registry.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::oci::Repository;

/// After this many mounts in a row without an answer, a registry that has answered others gets no more.
const MOST_UNANSWERED: u32 = 3;
/// After this many mounts that linked nothing, a registry where no mount has linked anything gets no more.
const MOST_EMPTY: u32 = 3;

/// Each registry has one.
#[derive(Default)]
pub(in crate::transport::registry) struct Mounts {
    has_answered: AtomicBool,
    /// Mounts without an answer since the last answer.
    unanswered: AtomicU32,
    /// Mounts that were answered with 201 although the blob was not there.
    empty: AtomicU32,
    /// Projects into which a mount has linked a blob, as far as this account can see.
    proven: Mutex<HashSet<String>>,
}

impl Mounts {
    /// Whether another mount is worth a try.
    pub fn are_useful(&self) -> bool {
        let most = if self.has_answered.load(Ordering::Relaxed) { MOST_UNANSWERED } else { 1 };
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        self.unanswered.load(Ordering::Relaxed) < most
            && !(proven.is_empty() && self.empty.load(Ordering::Relaxed) >= MOST_EMPTY)
    }

    /// Notes that the registry answered a mount, with whatever result.
    pub fn note_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Notes that a mount got no answer.
    pub fn note_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a mount was answered with 201 and linked nothing.
    pub fn note_empty(&self) {
        self.empty.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a mount has linked a blob into the repository's project.
    pub fn is_proven(&self, repository: &Repository) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(repository.project())
    }

    /// Notes that a mount has linked a blob into the repository's project, as far as this account can see.
    pub fn note_proven(&self, repository: &Repository) {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.project().to_owned());
    }
}
