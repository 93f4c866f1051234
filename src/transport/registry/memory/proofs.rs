//! What reading the last bytes of blobs has shown about a registry.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::content::Readable;
use crate::oci::{Descriptor, Digest, Repository};

/// After this many failed reads, the registry counts as one that cannot be read from. A single failure may be a busy
/// moment.
const MOST_FAILED: usize = 3;

/// Each registry has one.
#[derive(Default)]
pub(in crate::transport::registry) struct Proofs {
    /// Blobs whose last byte was read, in any repository.
    proven: Mutex<HashSet<Digest>>,
    /// Blobs that the registry claimed to have and does not have intact, in any repository.
    suspects: Mutex<HashSet<Digest>>,
    /// Projects that this account may not read.
    closed: Mutex<HashSet<String>>,
    /// Number of reads that were refused or failed for another reason.
    failed: AtomicUsize,
}

impl Proofs {
    /// Records that the registry claimed to have this blob and does not have it intact.
    pub fn suspect(&self, blob: &Digest) {
        lock(&self.suspects).insert(*blob);
    }

    /// Whether the registry has claimed this blob without having it.
    pub fn is_suspect(&self, blob: &Digest) -> bool {
        lock(&self.suspects).contains(blob)
    }

    /// Records the result of reading `blob`.
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

    /// Whether `blob` should be read after its upload. An empty blob has no byte to lose.
    pub fn is_wanted(&self, repository: &Repository, blob: &Descriptor) -> bool {
        if !lock(&self.suspects).is_empty() {
            return true;
        }
        blob.size > 0 && !lock(&self.proven).contains(&blob.digest) && self.may_read(repository)
    }

    /// Whether reading is worth trying: the account may read, as far as is known, and not every read has failed.
    pub fn may_read(&self, repository: &Repository) -> bool {
        let is_blind = self.failed.load(Ordering::Relaxed) >= MOST_FAILED && lock(&self.proven).is_empty();
        !is_blind && !lock(&self.closed).contains(repository.project())
    }
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
