//! What became of the mounts at one registry.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::oci::Repository;

/// So many mounts without an answer, one after the other, are enough at a registry that has answered others.
const MOST_UNANSWERED: u32 = 3;
/// So many mounts that brought nothing are enough at a registry where none has brought anything.
const MOST_EMPTY: u32 = 3;

/// One for each registry.
#[derive(Default)]
pub(in crate::transport::registry) struct Mounts {
    has_answered: AtomicBool,
    /// Since the last answer.
    unanswered: AtomicU32,
    /// Answered with 201, and the blob was not there.
    empty: AtomicU32,
    /// Projects into which a mount has brought a blob, as far as can be seen.
    proven: Mutex<HashSet<String>>,
}

impl Mounts {
    /// Whether another one is worth a try.
    pub fn are_useful(&self) -> bool {
        let most = if self.has_answered.load(Ordering::Relaxed) { MOST_UNANSWERED } else { 1 };
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        self.unanswered.load(Ordering::Relaxed) < most
            && !(proven.is_empty() && self.empty.load(Ordering::Relaxed) >= MOST_EMPTY)
    }

    /// The registry has answered one, whatever the answer.
    pub fn note_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// No answer came to one.
    pub fn note_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// One that was answered with 201 brought nothing.
    pub fn note_empty(&self) {
        self.empty.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a mount has brought a blob into the repository's project.
    pub fn is_proven(&self, repository: &Repository) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(repository.project())
    }

    /// A mount has brought a blob into the repository's project, as far as this account can see.
    pub fn note_proven(&self, repository: &Repository) {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(repository.project().to_owned());
    }
}
