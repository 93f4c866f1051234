//! What reading the last byte of blobs has shown about a registry.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::content::Readable;
use crate::oci::{Descriptor, Digest, Repository};

/// After this many failed reads the registry counts as unreadable. A single failure may only mean that it was busy.
const MOST_FAILED: usize = 3;

/// Each registry has one.
#[derive(Default)]
pub(in crate::transport::registry) struct Proofs {
    /// Blobs whose last byte was read, in any repository.
    proven: Mutex<HashSet<Digest>>,
    /// Blobs that the registry claimed to have, but that are missing or damaged, in any repository.
    suspects: Mutex<HashSet<Digest>>,
    /// Projects that this account may not read.
    closed: Mutex<HashSet<String>>,
    /// Number of reads that were refused or failed for another reason.
    failed: AtomicUsize,
}

impl Proofs {
    /// Notes that the registry claimed to have this blob, but that the blob is missing or damaged.
    pub fn suspect(&self, blob: &Digest) {
        lock(&self.suspects).insert(*blob);
    }

    /// Whether the registry claimed to have this blob without having it intact.
    pub fn is_suspect(&self, blob: &Digest) -> bool {
        lock(&self.suspects).contains(blob)
    }

    /// Notes the result of reading `blob`.
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

    /// Whether to read `blob` after its upload. An empty blob has no byte that could be lost.
    pub fn is_wanted(&self, repository: &Repository, blob: &Descriptor) -> bool {
        if !lock(&self.suspects).is_empty() {
            return true;
        }
        blob.size > 0 && !lock(&self.proven).contains(&blob.digest) && self.may_read(repository)
    }

    /// Whether reading is worth a try: this account may read the project, as far as is known, and not every read has
    /// failed.
    pub fn may_read(&self, repository: &Repository) -> bool {
        let is_blind = self.failed.load(Ordering::Relaxed) >= MOST_FAILED && lock(&self.proven).is_empty();
        !is_blind && !lock(&self.closed).contains(repository.project())
    }
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
