//! Whether a registry stores what it took. distribution answers an upload with 201 and keeps the file that it has of that
//! digest, however damaged, also where no repository knows it: a full disk, a crash or a restored backup leaves such files.
//!
//! So the last byte of what is uploaded is read, of each digest once in a run: registries keep one copy, and a mount only adds a
//! name to it. Once a registry has claimed what it does not have, that is done after every upload.
//!
//! An upload that was answered with success fails only on evidence: another length, or, after as many tries as are allowed, a last
//! byte that still does not come or a blob that is still not there. A read that is refused or fails in another way proves nothing,
//! unless the registry has claimed this very blob before without having it. Where this account may not read, or nothing could be
//! read so far, no more is asked; storing the manifest is the proof then.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::host::Host;
use super::outage::Work;
use super::{last_byte, upload};
use crate::base::error::{Error, Reason, Result};
use crate::content::Readable;
use crate::oci::{Descriptor, Digest, Repository};

/// So many reads may fail before the registry counts as one from which nothing can be read: one alone may have met a busy moment.
const MOST_FAILED: usize = 3;

/// What reading the last byte of blobs has taught about a registry.
#[derive(Default)]
pub(super) struct Proofs {
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
    pub fn suspect(&self, blob: &Digest) {
        lock(&self.suspects).insert(*blob);
    }

    fn is_suspect(&self, blob: &Digest) -> bool {
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
    fn is_wanted(&self, repository: &Repository, blob: &Descriptor) -> bool {
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

/// Proves that what was uploaded is there.
///
/// # Errors
/// [`Reason::DamagedTarget`]: it is not.
pub(super) async fn check(host: &Host, repository: &Repository, blob: &Descriptor, what: &str) -> Result<()> {
    let proofs = &host.memory.proofs;
    if !proofs.is_wanted(repository, blob) {
        return Ok(());
    }
    let is_suspect = proofs.is_suspect(&blob.digest);
    let found = match is_suspect {
        true => last_byte::read(host, repository, blob).await?,
        false => last_byte::read_uploaded(host, repository, blob).await?,
    };
    let why = match found {
        Readable::No(why) => why,
        Readable::Failed(why) if is_suspect => why,
        // Who may not read can still ask for the length.
        Readable::Denied | Readable::Unknown(_) if is_suspect => {
            match upload::look_for(host, repository, blob, what).await? {
                Some(true) => return Ok(()),
                _ => "it is still not as it should be".to_owned(),
            }
        }
        // Storage that refuses this as it did before the upload gives this account nothing: the manifest will prove it.
        Readable::Yes | Readable::Failed(_) | Readable::PerhapsLost(_) | Readable::Denied | Readable::Unknown(_) => {
            return Ok(());
        }
    };
    proofs.suspect(&blob.digest);
    let text = format!("the registry accepted the upload, but still has the old content: {why}");
    let error = Error::damaged(&text).with_reason(Reason::DamagedTarget);
    // It would keep the same file for every other repository.
    let spent = host.memory.spent.of(&blob.digest, Work::Complete);
    match is_suspect && why == last_byte::NOT_COMING {
        // Or the connection has broken twice.
        true => spent.note(&error, text),
        false => spent.note_final(&error, text),
    }
    Err(error.while_doing(what))
}

fn lock<T>(set: &Mutex<T>) -> MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
