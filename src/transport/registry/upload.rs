//! Blobs into a registry: looked for, mounted, uploaded (distribution-spec, "Pushing blobs").
//!
//! An upload is one POST and one PUT of the whole body with its exact length. distribution 2.8, which every Harbor 2.x embeds,
//! cancels an upload whose state it lost, so a failed one starts again from POST. The body comes out of a
//! [`BlobReader`], which keeps back the last piece until all is proven: a wrong blob can never be completed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::{Method, Url};

use super::answer::refusal;
use super::auth::Scopes;
use super::host::{Ask, Host, Target, strange};
use super::retry::{Failure, Retry};
use super::wire::{self, Payload, Reply};
use crate::content::{BlobReader, Origin};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Repository};
use crate::progress::Event;

/// Whether the registry has the whole blob.
pub(super) async fn has(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<bool> {
    let what = format!("looking for blob {} in {repository}", blob.digest);
    let path = format!("/v2/{}/blobs/{}", repository.path(), blob.digest);
    let reply = host.ask(&Ask::new(Method::HEAD, path, Scopes::push(repository), &what)).await?;
    match (reply.status(), reply.content_length()) {
        (200, Some(length)) if length != blob.size => {
            let text = format!("{what}: there it has {length} bytes instead of {}; uploading it again", blob.size);
            host.wire.events.report(Event::Warning(text));
            Ok(false)
        }
        (200, _) => Ok(true),
        (404, _) => Ok(false),
        // Storage behind a redirect may not answer HEAD; then an upload is the way to be sure.
        _ if !host.is_own(&reply) => Ok(false),
        _ => Err(refusal(&what, reply).await.error),
    }
}

/// Cross-repository mount. Anything but “created” means that the blob has to be uploaded; a session opened instead is kept
/// for that.
pub(super) async fn mount(host: &Host, to: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool> {
    let what = format!("mounting blob {} into {to}", blob.digest);
    let path = format!("/v2/{}/blobs/uploads/?mount={}&from={}", to.path(), blob.digest, from.path());
    let scopes = Scopes::push(to).and_pull(from);
    match host.ask(&Ask::new(Method::POST, path, scopes, &what)).await {
        Ok(reply) if reply.status() == 201 => Ok(true),
        Ok(reply) => {
            tracing::debug!(what, status = reply.status(), "not mounted");
            if reply.status() == 202
                && let Ok(location) = location(&reply, &what)
            {
                host.memory.keep_session(to, &blob.digest, location);
            }
            Ok(false)
        }
        Err(error) => {
            tracing::debug!(what, %error, "not mounted");
            Ok(false)
        }
    }
}

/// Uploads the blob, reading it from `origin` again for every try.
pub(super) async fn put(host: &Host, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
    let what = format!("uploading blob {} to {repository}", blob.digest);
    let _lane = host.uploads.acquire().await.ok();
    let mut session = host.memory.take_session(repository, &blob.digest);
    let mut tries = host.tries(&what);
    let upload = Upload { host, repository, blob, what: &what };
    loop {
        let opened_before = session.is_some();
        let mut failure = match upload.attempt(session.take(), origin).await {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        // A session may have expired since the mount that opened it; the usual way is still to be tried.
        if opened_before && failure.retry == Retry::Never && failure.error.kind() != Kind::Damaged {
            failure.retry = Retry::Now;
        }
        tries.again(failure).await?;
    }
}

struct Upload<'a> {
    host: &'a Host,
    repository: &'a Repository,
    blob: &'a Descriptor,
    what: &'a str,
}

impl Upload<'_> {
    async fn attempt(&self, session: Option<Url>, origin: &Origin<'_>) -> Result<(), Failure> {
        let location = match session {
            Some(location) => location,
            None => self.begin().await?,
        };
        let reader = origin.open(self.blob).await.map_err(Failure::never)?;
        let (payload, watch) = payload(self.blob, reader).await?;
        let answer = self.send(location, payload).await;
        // Our own failure to read makes the connection break; it is the one to tell.
        if let Some(lost) = watch.and_then(|watch| watch.take_lost()) {
            return Err(Failure::never(lost));
        }
        self.accepted(answer?).await
    }

    async fn begin(&self) -> Result<Url, Failure> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository.path());
        let ask = Ask::new(Method::POST, path, Scopes::push(self.repository), self.what);
        let reply = self.host.once(&ask).await?;
        match reply.status() {
            202 => location(&reply, self.what).map_err(Failure::never),
            _ => Err(refusal(self.what, reply).await),
        }
    }

    async fn send(&self, mut location: Url, payload: Payload) -> Result<Reply, Failure> {
        location.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let mut ask = Ask::new(Method::PUT, String::new(), Scopes::push(self.repository), self.what)
            .header("content-type", "application/octet-stream")
            .map_err(Failure::never)?;
        ask.target = Target::Url(location.clone());
        match payload {
            Payload::Stream(_) => self.host.once_with(&ask, location, payload).await,
            Payload::Bytes(_) => self.host.once(&ask).await,
        }
    }

    async fn accepted(&self, reply: Reply) -> Result<(), Failure> {
        match reply.status() {
            201 | 204 => {}
            // The session is gone (BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID): a new one may do.
            404 | 416 => {
                let mut failure = refusal(self.what, reply).await;
                failure.retry = Retry::Soon;
                return Err(failure);
            }
            _ => return Err(refusal(self.what, reply).await),
        }
        let told = reply.header("docker-content-digest").and_then(|header| header.parse::<Digest>().ok());
        match told {
            Some(told) if told.algorithm() == self.blob.digest.algorithm() && told != self.blob.digest => {
                let text = format!("{}: the registry stored another blob, {told}", self.what);
                Err(Failure::never(Error::damaged(text)))
            }
            _ => Ok(()),
        }
    }
}

/// A body for the request. What fits in one piece is proven here and sent as such.
async fn payload(blob: &Descriptor, mut reader: BlobReader) -> Result<(Payload, Option<Arc<Watch>>), Failure> {
    if blob.size == 0 {
        while let Some(piece) = reader.next().await {
            piece.map_err(Failure::never)?;
        }
        return Ok((Payload::none(), None));
    }
    let outflow = Outflow::new(blob.size, reader);
    let watch = outflow.watch();
    Ok((Payload::Stream(Box::new(outflow)), Some(watch)))
}

/// Where an upload continues: Location against what was asked, its query kept.
fn location(reply: &Reply, what: &str) -> Result<Url> {
    let header = reply.header("location").ok_or_else(|| strange(what, "the registry gave no Location"))?;
    wire::resolve(reply.url(), header).map_err(|reason| strange(what, format!("the registry leads {reason}")))
}

/// A blob on its way out.
pub(super) struct Outflow {
    size: u64,
    reader: BlobReader,
    watch: Arc<Watch>,
}

/// How an upload is getting on, seen from outside.
pub(super) struct Watch(Mutex<State>);

struct State {
    /// When the connection last took a piece.
    moved: Instant,
    /// We wait for the source, not for the registry.
    starved: bool,
    left: u64,
    lost: Option<Error>,
}

impl Outflow {
    fn new(size: u64, reader: BlobReader) -> Outflow {
        let state = State { moved: Instant::now(), starved: false, left: size, lost: None };
        Outflow { size, reader, watch: Arc::new(Watch(Mutex::new(state))) }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    pub fn into_body(self) -> reqwest::Body {
        reqwest::Body::wrap_stream(self)
    }
}

impl Stream for Outflow {
    type Item = Result<Bytes, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.reader.poll_next_unpin(context);
        let mut state = self.watch.state();
        state.moved = Instant::now();
        state.starved = polled.is_pending();
        polled.map(|next| match next? {
            Ok(piece) => {
                state.left = state.left.saturating_sub(piece.len() as u64);
                Some(Ok(piece))
            }
            Err(error) => {
                state.lost = Some(error);
                Some(Err(std::io::Error::other("the blob could not be read")))
            }
        })
    }
}

impl Watch {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_lost(&self) -> Option<Error> {
        self.state().lost.take()
    }

    /// Ends when the registry has taken nothing for `stall`, or, once it has all, not answered for `commit`. While the
    /// source keeps it waiting it has `source` of time.
    pub async fn stalled(&self, stall: Duration, commit: Duration, source: Duration) {
        loop {
            let left = {
                let state = self.state();
                let patience = match (state.starved, state.left) {
                    (true, _) => source,
                    (false, 0) => commit,
                    (false, _) => stall,
                };
                patience.saturating_sub(state.moved.elapsed())
            };
            if left.is_zero() {
                return;
            }
            // Looked at again and again, because the state may change to a shorter patience.
            tokio::time::sleep(left.min(stall)).await;
        }
    }
}
