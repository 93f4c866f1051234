//! Cross-repository mounts (distribution-spec, "Mounting a blob from another repository").
//!
//! **Threats.** A mount is optional, because an upload has the same effect. A registry, or a gateway in front of it,
//! that never answers a mount must therefore not end the run. A registry that answers 201 may have linked nothing, and
//! may still accept the manifest. So mounts into a project are read back until one has linked its blob, as far as this
//! account may read there.

use reqwest::Method;

use super::answer::{Purpose, refusal_of};
use super::auth::Scopes;
use super::failure::{Failure, Retry, is_transient};
use super::host::{Ask, Host};
use super::last_byte;
use super::projects::Turn;
use super::reply::Reply;
use super::upload::{concerns_more, location};
use crate::base::error::{Kind, Result};
use crate::content::Readable;
use crate::oci::{Descriptor, Repository};

/// Mounts `blob` of the repository `from` into `to`. `false` means that the blob has to be uploaded. If the registry
/// opens an upload session instead, the session is kept for that.
///
/// # Errors
/// A failure that an upload would meet as well.
pub(super) async fn mount(host: &Host, to: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool> {
    if !host.memory.mounts.are_useful() {
        return Ok(false);
    }
    let what = format!("mounting blob {} into {to}", blob.digest);
    let path = format!("/v2/{}/blobs/uploads/?mount={}&from={}", to.path(), blob.digest, from.path());
    let scopes = Scopes::push(to).and_pull(from);
    let _alone = host.projects.alone(to, blob.digest).await;
    let _turn = host.projects.turn(to, Turn::Mount).await;
    let (ask, mut tries) = (Ask::new(Method::POST, path, scopes, &what), host.tries(&what));
    loop {
        let Some(reply) = answered(host, &ask).await? else { return Ok(false) };
        match reply.status() {
            201 => {
                drop(reply);
                let is_there = is_there(host, to, blob).await?;
                if is_there {
                    host.memory.written.note_mounted(to, blob.digest);
                }
                return Ok(is_there);
            }
            202 => {
                tracing::debug!(what, status = 202, "not mounted");
                if let Ok(location) = location(&reply, &what) {
                    host.memory.keep_session(to, &blob.digest, location);
                }
                return Ok(false);
            }
            _ => {
                let error = refusal_of(Purpose::WriteBlob, &what, reply).await.error;
                tracing::debug!(what, %error, "not mounted");
                if !concerns_more(&error) {
                    return Ok(false);
                }
                // An upload would fail in the same way.
                tries.again(Failure::never(error)).await?;
            }
        }
    }
}

/// The answer to a mount, after waiting as long as its status is temporary. `None` if there was no answer; the blob is
/// then uploaded instead.
async fn answered(host: &Host, ask: &Ask<'_>) -> Result<Option<Reply>> {
    let mut tries = host.tries(ask.what);
    loop {
        let permit = host.changes.enter().await;
        let failure = match host.once(ask).await {
            Ok(mut reply) => {
                host.memory.mounts.note_answer();
                if !is_transient(reply.status()) {
                    reply.permit = Some(permit);
                    return Ok(Some(reply));
                }
                ask.refused(reply).await
            }
            Err(failure) if failure.error.kind() == Kind::Network && failure.retry != Retry::Never => {
                host.memory.mounts.note_unanswered();
                tracing::debug!(what = ask.what, error = %failure.error, "a mount without an answer");
                return Ok(None);
            }
            Err(failure) => failure,
        };
        drop(permit);
        if let Err(error) = tries.again(failure).await {
            if concerns_more(&error) {
                return Err(error);
            }
            tracing::debug!(what = ask.what, %error, "not mounted");
            return Ok(None);
        }
    }
}

/// Whether a mount that was answered with 201 has linked the blob. This is read back in a project where no mount is
/// known to have linked one. If nothing can be read, storing the manifest is the proof.
async fn is_there(host: &Host, to: &Repository, blob: &Descriptor) -> Result<bool> {
    let mounts = &host.memory.mounts;
    if mounts.is_proven(to) || !host.memory.proofs.may_read(to) {
        return Ok(true);
    }
    match last_byte::read(host, to, blob).await? {
        Readable::No(why) => {
            mounts.note_empty();
            tracing::debug!(repository = %to, blob = %blob.digest, why, "mounted, and not there");
            Ok(false)
        }
        // If this account may not read, storing the manifest is the proof.
        Readable::Yes | Readable::Denied => {
            mounts.note_proven(to);
            Ok(true)
        }
        // Inconclusive: the next mount is read back.
        Readable::Failed(_) | Readable::Unknown(_) | Readable::PerhapsLost(_) => Ok(true),
    }
}
