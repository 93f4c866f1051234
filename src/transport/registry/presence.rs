//! Whether a registry has a blob: HEAD, and where that says too little, a GET of its last byte.

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

/// Whether the registry has the whole blob. One that has just arrived is asked for again if it is said not to be there.
pub(super) async fn has(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<bool> {
    let what = format!("looking for blob {} in {repository}", blob.digest);
    let mut tries = host.tries(&what);
    loop {
        if let Some(found) = look_for(host, repository, blob, &what).await? {
            return Ok(found);
        }
        let denied = Error::new(Kind::NotFound, format!("{what}: it was uploaded, and is said not to be there"));
        if !host.memory.written.has_blob(repository, &blob.digest) || tries.again(Failure::soon(denied)).await.is_err()
        {
            return Ok(false);
        }
    }
}

/// `None`: it is not there. `false`: something is there that will not do, or nobody knows; an upload is then the way to be
/// sure.
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
            // Some gateways give HEAD the length of nothing, or that of a page.
            if matches!(last_byte::read(host, repository, blob).await?, Readable::Yes) {
                return Ok(Some(true));
            }
            let text = format!("{what}: there it has {length} bytes instead of {}; uploading it again", blob.size);
            host.wire.events.report(Event::Warning(text));
            host.memory.proofs.suspect(&blob.digest);
            Ok(Some(false))
        }
        (Some(200), _) => Ok(Some(true)),
        // Harbor's HEAD asks its database, and GET only the storage: a blob without a row is being collected, or was.
        (Some(404 | 410), _) if is_own && host.auth.is_harbor() => Ok(None),
        (Some(404 | 410), _) if is_own => Ok(has_though_head_denies(host, repository, blob).await?.then_some(true)),
        // A gateway, or storage behind a redirect, may refuse HEAD.
        _ => Ok(Some(matches!(last_byte::read(host, repository, blob).await?, Readable::Yes))),
    }
}

/// Whether GET finds a blob that HEAD does not. Once it has agreed with HEAD at this registry it is asked no more, except about
/// what this run has uploaded: nearly all that is looked for is not there.
async fn has_though_head_denies(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<bool> {
    let finds = async || last_byte::finds(host, repository, blob).await;
    if host.memory.written.has_blob(repository, &blob.digest) {
        return Ok(finds().await? == Some(true));
    }
    // The first question tells for all that wait here.
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

/// Whether a blob that is said to be there can be read.
pub(super) async fn can_read(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    let readable = last_byte::read(host, repository, blob).await?;
    if matches!(readable, Readable::No(_) | Readable::Failed(_) | Readable::PerhapsLost(_)) {
        host.memory.proofs.suspect(&blob.digest);
    }
    Ok(readable)
}
