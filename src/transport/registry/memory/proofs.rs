//! What reading the last byte of blobs has taught about a registry.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::content::Readable;
use crate::oci::{Descriptor, Digest, Repository};

/// So many reads may fail before the registry counts as one from which nothing can be read: one alone may have met a busy moment.
const MOST_FAILED: usize = 3;

/// One for each registry.
#[derive(Default)]
pub(in crate::transport::registry) struct Proofs {
    /// Blobs whose last byte came, from whichever repository.
    proven: Mutex<HashSet<Digest>>,
    /// Blobs that it has claimed to have and does not have as they should be, in whichever repository.
    suspects: Mutex<HashSet<Digest>>,
    /// Projects that this account may not read.
    closed: Mutex<HashSet<String>>,
    /// How many reads were refused or failed for another reason.
    failed: AtomicUsize,
}

impl Proofs {
    /// The registry has claimed to have this blob, and does not have it as it should be.
    pub fn suspect(&self, blob: &Digest) {
        lock(&self.suspects).insert(*blob);
    }

    /// Whether it has claimed to have this blob without having it.
    pub fn is_suspect(&self, blob: &Digest) -> bool {
        lock(&self.suspects).contains(blob)
    }

    /// What came of reading `blob`.
    pub fn note(&self, repository: &Repository, blob: &Descriptor, found: &Readable) {
        match found {
            Readable::Yes => drop(lock(&self.proven).insert(blob.digest)),
            Readable::Denied => drop(lock(&self.closed).insert(repository.project().to_owned())),
            Readable::Failed(_) | Readable::PerhapsLost(_) | Readable::Unknown(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            Readable::No(_) => {}
        }
    }

    /// Whether `blob` is to be read after its upload. An empty one has no byte that could be lost.
    pub fn is_wanted(&self, repository: &Repository, blob: &Descriptor) -> bool {
        if !lock(&self.suspects).is_empty() {
            return true;
        }
        blob.size > 0 && !lock(&self.proven).contains(&blob.digest) && self.may_read(repository)
    }

    /// Whether reading is worth a try: this account may, as far as is known, and not all that was tried has failed.
    pub fn may_read(&self, repository: &Repository) -> bool {
        let is_blind = self.failed.load(Ordering::Relaxed) >= MOST_FAILED && lock(&self.proven).is_empty();
        !is_blind && !lock(&self.closed).contains(repository.project())
    }
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
