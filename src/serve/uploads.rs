//! Blob uploads (distribution-spec 1.1, "Pushing Blobs"): in one POST, in POST and PUT, or in pieces.
//!
//! # Threats
//! A client can open uploads and leave them, send more or less than it said, send pieces out of order or two at once. So:
//! the number of open uploads is bounded and idle ones are dropped in time; an upload has one writer at a time; a piece that does
//! not begin where the last one ended is refused; bytes are hashed as they are written and get a name only if they are
//! what was promised.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, Request, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::Entry;
use crate::content::Slice;
use crate::oci::{Algorithm, Digest, Hasher};

use super::answer::{Refusal, build};
use super::blocking;
use super::limits::Limits;
use super::quota::Share;
use super::request::Query;
use super::shelf::Shelf;
use super::writer::{Writer, new_id};

/// Bytes gathered before they are written: few large writes, while the next bytes arrive.
const BATCH: usize = 1024 * 1024;

/// So many use an upload at once: the list of uploads, the request that writes, and those that wait for it.
const MOST_AT_ONCE: usize = 4;

/// The open uploads, by number.
pub struct Uploads {
    open: Mutex<HashMap<String, Upload>>,
    limits: Limits,
}

#[derive(Clone)]
struct Upload {
    /// The repository it was opened in, as the client spelled it.
    name: String,
    received: Arc<tokio::sync::Mutex<Received>>,
}

/// What has arrived of a blob. Its file goes with it, unless it got a name before.
struct Received {
    file: Arc<File>,
    /// The name it has until it is whole.
    entry: Entry,
    size: u64,
    hasher: Hasher,
    touched: Instant,
    share: Share,
}

type Held = OwnedMutexGuard<Received>;

impl Uploads {
    pub fn new(limits: Limits) -> Uploads {
        Uploads { open: Mutex::default(), limits }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops all of them.
    pub fn forget_all(&self) {
        self.map().clear();
    }

    /// Drops those that have got no byte for too long.
    pub fn drop_idle(&self) {
        let limit = self.limits.upload_idle;
        // One that is locked is being written to.
        self.map().retain(|_, upload| upload.received.try_lock().map_or(true, |r| r.touched.elapsed() < limit));
    }

    fn add(&self, id: &str, upload: Upload) -> Result<(), Refusal> {
        let mut map = self.map();
        let most = self.limits.uploads;
        if map.len() >= most {
            let text = format!("{most} uploads are open already; finish or cancel some");
            return Err(Refusal::new(429, "TOOMANYREQUESTS", text));
        }
        map.insert(id.to_owned(), upload);
        Ok(())
    }

    fn find(&self, name: &str, id: &str) -> Result<Upload, Refusal> {
        let upload = self.map().get(id).filter(|upload| upload.name == name).cloned();
        upload.ok_or_else(|| {
            let short: String = id.chars().take(64).collect();
            Refusal::new(404, "BLOB_UPLOAD_UNKNOWN", format!("there is no upload {short} in {name}"))
        })
    }
}

/// The right to go on with an upload.
async fn hold(writer: &Writer, name: &str, id: &str) -> Result<Held, Refusal> {
    let received = writer.uploads.find(name, id)?.received;
    // Those that wait keep their connections: a client that tries again needs one or two.
    if Arc::strong_count(&received) > MOST_AT_ONCE {
        let refusal = Refusal::new(429, "TOOMANYREQUESTS", "other requests write to this upload");
        return Err(refusal.with("retry-after", "1"));
    }
    let held = received.lock_owned().await;
    // It may have been finished meanwhile.
    writer.uploads.find(name, id)?;
    Ok(held)
}

impl Received {
    /// Writes behind what is there; after a failure nothing of `batch` counts.
    fn write(&mut self, batch: &[Bytes]) -> Result<()> {
        let more = batch.iter().map(|piece| piece.len() as u64).sum();
        self.share.grow(more)?;
        let (mut position, mut hasher) = (self.size, self.hasher.clone());
        for piece in batch {
            if let Err(error) = self.file.write_all_at(piece, position) {
                self.share.shrink(more);
                return Err(Error::disk("writing", self.entry.path(), error));
            }
            hasher.update(piece);
            position += piece.len() as u64;
        }
        (self.size, self.hasher, self.touched) = (position, hasher, Instant::now());
        Ok(())
    }

    /// Takes back what came after the first `size` bytes, of which `hasher` is that.
    fn take_back(&mut self, size: u64, hasher: Hasher) {
        self.share.shrink(self.size.saturating_sub(size));
        (self.size, self.hasher) = (size, hasher);
    }

    fn digest(&self, algorithm: Algorithm) -> Result<Digest> {
        if algorithm == Algorithm::Sha256 {
            return Ok(self.hasher.clone().finish());
        }
        let whole = Slice::new(Arc::clone(&self.file), self.entry.path(), 0, self.size);
        whole.hash(algorithm, &|_| {}).map_err(|e| Error::disk("reading", self.entry.path(), e))
    }

    /// `Range` of an upload: inclusive, so that nothing and one byte look alike.
    fn range(&self) -> String {
        format!("0-{}", self.size.saturating_sub(1))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // Not there any more when it has got its name.
        let _ = self.entry.remove();
    }
}

fn location(name: &str, id: &str) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// POST: a mount, a whole blob, or the beginning of an upload.
pub async fn start(
    shelf: &Arc<Shelf>,
    writer: &Writer,
    name: &str,
    query: &Query,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    // What cannot be mounted is uploaded, whatever the reason.
    let is_there = query.digest_text("mount").is_ok_and(|text| text.is_some_and(|text| shelf.has(text)));
    if is_there && let Ok(Some(digest)) = query.digest("mount") {
        let own = Arc::clone(shelf);
        if blocking(move || own.slice(&digest)).await?.is_some() {
            return created(name, &digest);
        }
    }
    let promised = query.digest("digest")?;
    let id = new_id()?;
    let (file, entry) = writer.unfinished(&id)?;
    let hasher = Hasher::new(Algorithm::Sha256);
    let (touched, share) = (Instant::now(), Share::of(&writer.quota));
    let received = Received { file: Arc::new(file), entry, size: 0, hasher, touched, share };
    let upload = Upload { name: name.to_owned(), received: Arc::new(tokio::sync::Mutex::new(received)) };
    writer.uploads.add(&id, upload.clone())?;
    if let Some(digest) = promised {
        let held = upload.received.lock_owned().await;
        // Whatever comes of it, nobody can continue this one: its number was never told.
        let outcome = receive(held, request.into_body()).await;
        writer.uploads.map().remove(&id);
        return adopt(shelf, name, outcome?, digest).await;
    }
    let headers = [("location", location(name, &id)), ("range", "0-0".to_owned()), ("docker-upload-uuid", id)];
    answer(202, &headers)
}

/// GET: how much has arrived.
pub async fn status(writer: &Writer, name: &str, id: &str) -> Result<Response, Refusal> {
    let range = hold(writer, name, id).await?.range();
    answer(204, &[("location", location(name, id)), ("range", range), ("docker-upload-uuid", id.to_owned())])
}

/// PATCH: one more piece.
pub async fn append(writer: &Writer, name: &str, id: &str, request: Request<Body>) -> Result<Response, Refusal> {
    let held = receive_piece(hold(writer, name, id).await?, name, id, request).await?;
    let range = held.range();
    answer(202, &[("location", location(name, id)), ("range", range), ("docker-upload-uuid", id.to_owned())])
}

/// PUT: the last piece, if any, and the digest.
pub async fn finish(
    shelf: &Arc<Shelf>,
    writer: &Writer,
    name: &str,
    id: &str,
    query: &Query,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let missing = || Refusal::new(400, "DIGEST_INVALID", "an upload is finished with ?digest=");
    let digest = query.digest("digest")?.ok_or_else(missing)?;
    let held = receive_piece(hold(writer, name, id).await?, name, id, request).await?;
    writer.uploads.map().remove(id);
    adopt(shelf, name, held, digest).await
}

/// DELETE: it was a mistake.
pub async fn cancel(writer: &Writer, name: &str, id: &str) -> Result<Response, Refusal> {
    writer.uploads.find(name, id)?;
    writer.uploads.map().remove(id);
    answer(204, &[("docker-upload-uuid", id.to_owned())])
}

async fn adopt(shelf: &Arc<Shelf>, name: &str, held: Held, expected: Digest) -> Result<Response, Refusal> {
    let shelf = Arc::clone(shelf);
    let found = blocking(move || {
        let mut held = held;
        let found = held.digest(expected.algorithm())?;
        if let Some(writer) = shelf.writer().filter(|_| found == expected)
            && writer.adopt(&held.file, &held.entry, &found)?
        {
            held.share.keep();
        }
        Ok(found)
    })
    .await?;
    if found != expected {
        let text = format!("wrong digest: expected {expected}, the bytes received have {found}; the upload is void");
        return Err(Refusal::new(400, "DIGEST_INVALID", text));
    }
    created(name, &found)
}

fn created(name: &str, digest: &Digest) -> Result<Response, Refusal> {
    let place = format!("/v2/{name}/blobs/{digest}");
    answer(201, &[("location", place), ("docker-content-digest", digest.to_string())])
}

fn answer(status: u16, headers: &[(&'static str, String)]) -> Result<Response, Refusal> {
    let headers: Vec<(&'static str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    build(status, &headers, Body::empty())
}

/// Takes a body that may say, in `Content-Range`, where it belongs.
async fn receive_piece(held: Held, name: &str, id: &str, request: Request<Body>) -> Result<Held, Refusal> {
    let start = held.size;
    let announced = content_range(request.headers())?;
    if announced.is_some_and(|(from, _)| from != start) {
        let text = format!("the next byte of this upload is number {start}");
        let refusal = Refusal::new(416, "BLOB_UPLOAD_INVALID", text);
        return Err(refusal.with("range", held.range()).with("location", location(name, id)));
    }
    let before = held.hasher.clone();
    let mut held = receive(held, request.into_body()).await?;
    let length = held.size - start;
    if let Some((from, to)) = announced.filter(|(from, to)| to - from + 1 != length) {
        held.take_back(start, before);
        let text = format!("Content-Range says {} bytes, {length} came; none are kept", to - from + 1);
        return Err(Refusal::new(400, "SIZE_INVALID", text));
    }
    Ok(held)
}

/// `Content-Range: start-end`, inclusive, as registries write it; `bytes ` before and `/length` after are tolerated.
fn content_range(headers: &HeaderMap) -> Result<Option<(u64, u64)>, Refusal> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let parse = |text: &str| {
        let text = text.strip_prefix("bytes ").unwrap_or(text);
        let (from, to) = text.split('/').next()?.split_once('-')?;
        let (from, to): (u64, u64) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from <= to && to < u64::MAX).then_some((from, to))
    };
    match value.to_str().ok().and_then(parse) {
        Some(range) => Ok(Some(range)),
        None => Err(Refusal::new(400, "BLOB_UPLOAD_INVALID", "Content-Range is to be start-end, such as 0-1023")),
    }
}

/// Writes a body behind what has arrived. Writing and hashing a batch overlaps the arrival of the next.
///
/// When the body breaks off, what came of it is kept, and the client can ask how much that is.
async fn receive(held: Held, body: Body) -> Result<Held, Refusal> {
    let mut pieces = body.into_data_stream();
    let mut writing: JoinHandle<Result<Held>> = spawn_blocking(move || Ok(held));
    loop {
        let (batch, more) = gather(&mut pieces).await;
        let mut held = joined(writing).await?;
        // The lock goes with the work: should this request end, nobody else writes before this batch is written.
        writing = spawn_blocking(move || held.write(&batch).map(|()| held));
        match more {
            Ok(true) => {}
            Ok(false) => return Ok(joined(writing).await?),
            Err(e) => {
                joined(writing).await?;
                return Err(Refusal::new(400, "BLOB_UPLOAD_INVALID", format!("the body broke off: {e}")));
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
