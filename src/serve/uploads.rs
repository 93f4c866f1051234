//! Blob uploads (distribution-spec 1.1, "Pushing Blobs"): in one POST, in POST and PUT, or in chunks.
//!
//! # Threats
//! A client can open uploads and abandon them, send more or less than announced, or send chunks out of order or in parallel.
//! Therefore the number of open uploads is bounded, and idle ones are dropped; an upload has one writer at a time; a chunk
//! that does not start where the last one ended is refused; and bytes are hashed as they are written and get a name only if
//! they are what was promised.

use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, Request, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::base::error::{Error, Kind, Result};
use crate::content::proof::{Unproven, Wrong};
use crate::oci::Digest;

use super::answer::{RequestRefusal, build};
use super::blocking;
use super::catalog::Catalog;
use super::open_uploads::{Held, Received};
use super::quota::Share;
use super::request::Query;
use super::writer::{LayoutWriter, new_id};

/// Bytes to collect before they are written: few large writes, while the next bytes arrive.
const BATCH: usize = 1024 * 1024;

fn location(name: &str, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// POST: a mount, a whole blob, or the start of an upload.
pub async fn start(
    catalog: &Arc<Catalog>,
    writer: &LayoutWriter,
    name: &str,
    query: &Query,
    request: Request<Body>,
) -> Result<Response, RequestRefusal> {
    // What cannot be mounted is uploaded, whatever the reason.
    let is_there = query.digest_text("mount").is_ok_and(|text| text.is_some_and(|text| catalog.has(text)));
    if is_there && let Ok(Some(digest)) = query.digest("mount") {
        let own = Arc::clone(catalog);
        if blocking(move || own.slice(&digest)).await?.is_some() {
            return created(name, &digest);
        }
    }
    let promised = query.digest("digest")?;
    let id = new_id()?;
    let (file, entry) = writer.unfinished(&id)?;
    let received = writer.uploads.add(&id, name, Received::into(file, entry, Share::of(&writer.quota)))?;
    if let Some(digest) = promised {
        let held = received.lock_owned().await;
        // Whatever the result, this upload cannot be continued, because its number was never returned.
        let outcome = receive(held, request.into_body()).await;
        writer.uploads.remove(&id);
        return adopt(catalog, name, outcome?, digest).await;
    }
    let headers = [("location", location(name, &id)), ("range", "0-0".to_owned()), ("docker-upload-uuid", id)];
    answer(202, &headers)
}

/// GET: how much has arrived.
pub async fn status(writer: &LayoutWriter, name: &str, id: &str) -> Result<Response, RequestRefusal> {
    let range = writer.uploads.lock(name, id).await?.range();
    answer(204, &[("location", location(name, id)), ("range", range), ("docker-upload-uuid", id.to_owned())])
}

/// PATCH: another chunk.
pub async fn append(
    writer: &LayoutWriter,
    name: &str,
    id: &str,
    request: Request<Body>,
) -> Result<Response, RequestRefusal> {
    let held = receive_piece(writer.uploads.lock(name, id).await?, name, id, request).await?;
    let range = held.range();
    answer(202, &[("location", location(name, id)), ("range", range), ("docker-upload-uuid", id.to_owned())])
}

/// PUT: the last chunk, if any, and the digest.
pub async fn finish(
    catalog: &Arc<Catalog>,
    writer: &LayoutWriter,
    name: &str,
    id: &str,
    query: &Query,
    request: Request<Body>,
) -> Result<Response, RequestRefusal> {
    let missing = || RequestRefusal::new(400, "DIGEST_INVALID", "an upload is finished with ?digest=");
    let digest = query.digest("digest")?.ok_or_else(missing)?;
    let held = receive_piece(writer.uploads.lock(name, id).await?, name, id, request).await?;
    writer.uploads.remove(id);
    adopt(catalog, name, held, digest).await
}

/// DELETE: cancels the upload.
pub async fn cancel(writer: &LayoutWriter, name: &str, id: &str) -> Result<Response, RequestRefusal> {
    writer.uploads.check(name, id)?;
    writer.uploads.remove(id);
    answer(204, &[("docker-upload-uuid", id.to_owned())])
}

async fn adopt(catalog: &Arc<Catalog>, name: &str, held: Held, expected: Digest) -> Result<Response, RequestRefusal> {
    let catalog = Arc::clone(catalog);
    let proven = blocking(move || {
        let mut held = held;
        match held.prove(&expected) {
            Ok(()) => {}
            Err(Unproven::Wrong(wrong)) => return Ok(Err(wrong)),
            Err(Unproven::Unreadable(error)) => return Err(Error::disk("reading", held.entry.path(), error)),
        }
        if let Some(writer) = catalog.writer()
            && writer.adopt(&held.file, &held.entry, &expected)?
        {
            held.share.commit();
        }
        Ok(Ok(()))
    })
    .await?;
    if let Err(Wrong { found, .. }) = proven {
        let text = format!("wrong digest: expected {expected}, the bytes received have {found}; the upload is void");
        return Err(RequestRefusal::new(400, "DIGEST_INVALID", text));
    }
    created(name, &expected)
}

fn created(name: &str, digest: &Digest) -> Result<Response, RequestRefusal> {
    let place = format!("/v2/{name}/blobs/{digest}");
    answer(201, &[("location", place), ("docker-content-digest", digest.to_string())])
}

fn answer(status: u16, headers: &[(&'static str, String)]) -> Result<Response, RequestRefusal> {
    let headers: Vec<(&'static str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    build(status, &headers, Body::empty())
}

/// Receives a body that may state its position in `Content-Range`.
async fn receive_piece(held: Held, name: &str, id: &str, request: Request<Body>) -> Result<Held, RequestRefusal> {
    let start = held.size;
    let announced = content_range(request.headers())?;
    if announced.is_some_and(|(from, _)| from != start) {
        let text = format!("the next byte of this upload is number {start}");
        let refusal = RequestRefusal::new(416, "BLOB_UPLOAD_INVALID", text);
        return Err(refusal.with("range", held.range()).with("location", location(name, id)));
    }
    let before = held.hasher.clone();
    let mut held = receive(held, request.into_body()).await?;
    let length = held.size - start;
    if let Some((from, to)) = announced.filter(|(from, to)| to - from + 1 != length) {
        held.take_back(start, before);
        let text = format!("Content-Range says {} bytes, and {length} were received; none are kept", to - from + 1);
        return Err(RequestRefusal::new(400, "SIZE_INVALID", text));
    }
    Ok(held)
}

/// `Content-Range: start-end`, inclusive, as registries write it; a leading `bytes ` and a trailing `/length` are tolerated.
fn content_range(headers: &HeaderMap) -> Result<Option<(u64, u64)>, RequestRefusal> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let parse = |text: &str| {
        let text = text.strip_prefix("bytes ").unwrap_or(text);
        let (from, to) = text.split('/').next()?.split_once('-')?;
        let (from, to): (u64, u64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from <= to && to < u64::MAX).then_some((from, to))
    };
    match value.to_str().ok().and_then(parse) {
        Some(range) => Ok(Some(range)),
        None => Err(RequestRefusal::new(400, "BLOB_UPLOAD_INVALID", "Content-Range must be start-end, such as 0-1023")),
    }
}

/// Appends a body to what has arrived. Writing and hashing a batch overlaps with the arrival of the next.
///
/// If the body breaks off, what has arrived is kept, and the client can ask how much that is.
async fn receive(held: Held, body: Body) -> Result<Held, RequestRefusal> {
    let mut pieces = body.into_data_stream();
    let mut writing: JoinHandle<Result<Held>> = spawn_blocking(move || Ok(held));
    loop {
        let (batch, more) = gather(&mut pieces).await;
        let mut held = joined(writing).await?;
        // The lock is held by the work, so that nothing else is written before this batch even if the request ends.
        writing = spawn_blocking(move || held.write(&batch).map(|()| held));
        match more {
            Ok(true) => {}
            Ok(false) => return Ok(joined(writing).await?),
            Err(e) => {
                joined(writing).await?;
                return Err(RequestRefusal::new(400, "BLOB_UPLOAD_INVALID", format!("the body broke off: {e}")));
            }
        }
    }
}

async fn joined(work: JoinHandle<Result<Held>>) -> Result<Held> {
    work.await.unwrap_or_else(|e| Err(Error::new(Kind::Interrupted, "writing an upload").because(e)))
}

/// The next pieces up to a batch, and whether there may be more.
async fn gather(pieces: &mut BodyDataStream) -> (Vec<Bytes>, Result<bool, axum::Error>) {
    let (mut batch, mut size) = (Vec::new(), 0);
    while size < BATCH {
        match pieces.next().await {
            Some(Ok(piece)) => {
                size += piece.len();
                batch.push(piece);
            }
            Some(Err(e)) => return (batch, Err(e)),
            None => return (batch, Ok(false)),
        }
    }
    (batch, Ok(true))
}
