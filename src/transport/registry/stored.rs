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

use super::host::Host;
use super::outage::Work;
use super::{last_byte, presence};
use crate::base::error::{Error, Reason, Result};
use crate::content::Readable;
use crate::oci::{Descriptor, Repository};

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
            match presence::look_for(host, repository, blob, what).await? {
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
