//! Whether a registry has a blob: HEAD, and if that says too little, a GET of its last byte.

use reqwest::Method;

use super::auth::Scopes;
use super::failure::Failure;
use super::host::{Ask, Host};
use super::last_byte;
use super::reply::Reply;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::content::Readable;
use crate::oci::{Descriptor, Repository};

/// Whether the registry has the whole blob. If a blob that was just uploaded is reported missing, it is requested
/// again.
pub(super) async fn has(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<bool> {
    let what = format!("looking for blob {} in {repository}", blob.digest);
    let mut tries = host.tries(&what);
    loop {
        if let Some(found) = look_for(host, repository, blob, &what).await? {
            return Ok(found);
        }
        let denied = Error::new(Kind::NotFound, format!("{what}: it was uploaded and is reported missing"));
        if !host.memory.written.has_blob(repository, &blob.digest) || tries.again(Failure::soon(denied)).await.is_err()
        {
            return Ok(false);
        }
    }
}

/// `None` if it does not exist. `false` if something unusable exists, or it is unknown; an upload is then the safe way.
pub(super) async fn look_for(
    host: &Host,
    repository: &Repository,
    blob: &Descriptor,
    what: &str,
) -> Result<Option<bool>> {
    let path = format!("/v2/{}/blobs/{}", repository.path(), blob.digest);
    let reply = host.hint(&Ask::new(Method::HEAD, path, Scopes::push(repository), what)).await?;
    let is_own = reply.as_ref().is_some_and(|reply| reply.own);
    let head = (reply.as_ref().map(Reply::status), reply.as_ref().and_then(Reply::content_length));
    drop(reply);
    match head {
        (Some(200), Some(length)) if length != blob.size => {
            // Some gateways answer HEAD with length 0, or with the length of a page.
            if matches!(last_byte::read(host, repository, blob).await?, Readable::Yes) {
                return Ok(Some(true));
            }
            let text = format!("{what}: it has {length} bytes there instead of {}; uploading it again", blob.size);
            host.wire.events.report(Event::Warning(text));
            host.memory.proofs.suspect(&blob.digest);
            Ok(Some(false))
        }
        (Some(200), _) => Ok(Some(true)),
        // Harbor's HEAD asks its database, and GET only the storage: a blob without a row is being garbage-collected,
        // or was.
        (Some(404 | 410), _) if is_own && host.auth.is_harbor() => Ok(None),
        (Some(404 | 410), _) if is_own => Ok(has_though_head_denies(host, repository, blob).await?.then_some(true)),
        // A gateway, or storage behind a redirect, may refuse HEAD.
        _ => Ok(Some(matches!(last_byte::read(host, repository, blob).await?, Readable::Yes))),
    }
}

/// Whether GET finds a blob that HEAD does not. Once GET has agreed with HEAD at this registry, it is used only for
/// what this run has uploaded: nearly everything that is looked for does not exist.
async fn has_though_head_denies(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<bool> {
    let finds = async || last_byte::finds(host, repository, blob).await;
    if host.memory.written.has_blob(repository, &blob.digest) {
        return Ok(finds().await? == Some(true));
    }
    // The first question decides for all that wait here.
    let mut agrees = host.memory.blob_heads.agrees.lock().await;
    match *agrees {
        Some(true) => Ok(false),
        Some(false) => {
            drop(agrees);
            Ok(finds().await? == Some(true))
        }
        None => {
            let found = finds().await?;
            *agrees = found.map(|found| !found);
            Ok(found == Some(true))
        }
    }
}

/// Whether a blob that is reported to exist can be read.
pub(super) async fn can_read(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    let readable = last_byte::read(host, repository, blob).await?;
    if matches!(readable, Readable::No(_) | Readable::Failed(_) | Readable::PerhapsLost(_)) {
        host.memory.proofs.suspect(&blob.digest);
    }
    Ok(readable)
}
