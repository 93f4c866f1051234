//! Checks that a registry has stored what it accepted. distribution answers an upload with 201 and keeps the file that
//! it already has for that digest, however damaged it is, even if no repository refers to it. A full disk, a crash or a
//! restored backup leaves such files.
//!
//! The check reads the last byte of each uploaded digest, once per run: a registry keeps one copy, and a mount only
//! adds a name to it. Once a registry has claimed a blob that it does not have, every upload is checked.
//!
//! An upload that the registry accepted fails only on evidence: another length, or, after all retries, a last byte that
//! is still not sent or a blob that still does not exist. A read that is refused, or fails in another way, proves
//! nothing, unless the registry has already claimed this very blob without having it. If the account may not read, or
//! no read has succeeded so far, the check stops; storing the manifest is the proof then.

use super::host::Host;
use super::outage::Work;
use super::{last_byte, presence};
use crate::base::error::{Error, Reason, Result};
use crate::content::Readable;
use crate::oci::{Descriptor, Repository};

/// Proves that an uploaded blob exists.
///
/// # Errors
/// [`Reason::DamagedTarget`] if it does not.
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
        // An account that may not read can still ask for the length.
        Readable::Denied | Readable::Unknown(_) if is_suspect => {
            match presence::look_for(host, repository, blob, what).await? {
                Some(true) => return Ok(()),
                _ => "it is still missing or damaged".to_owned(),
            }
        }
        // If the storage refused reads before the upload too, nothing can be read with this account. The manifest is
        // the proof.
        Readable::Yes | Readable::Failed(_) | Readable::PerhapsLost(_) | Readable::Denied | Readable::Unknown(_) => {
            return Ok(());
        }
    };
    proofs.suspect(&blob.digest);
    let text = format!("the registry accepted the upload, but still has the old content: {why}");
    let error = Error::damaged(&text).with_reason(Reason::DamagedTarget);
    // The registry would keep the same file for every other repository.
    let spent = host.memory.spent.of(&blob.digest, Work::Complete);
    match is_suspect && why == last_byte::NOT_COMING {
        // Or the connection broke twice.
        true => spent.note(&error, text),
        false => spent.note_final(&error, text),
    }
    Err(error.while_doing(what))
}
