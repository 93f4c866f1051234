//! A blob as one continuous stream, over as many connections as needed.
//!
//! **Threats.** The server may break off, stall, ignore Range, send another range, or send something of another length. The
//! lengths it states must agree with the descriptor; what it sends is counted here and verified by
//! [`BlobReader`](crate::content::BlobReader). The author of an image chooses the URLs of its foreign layers: they are used
//! only if the registry does not have the layer, without credentials, and only over HTTP.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use reqwest::header::{HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Url};

use super::answer::{is_html, refusal};
use super::auth::Scopes;
use super::call::{Call, Payload};
use super::content_range::ContentRange;
use super::facts::BlobProblem;
use super::failure::Failure;
use super::host::{Ask, Host, strange};
use super::lane::Permit;
use super::outage::{Download, ServerWork, Work};
use super::reply::Reply;
use super::retry::Tries;
use super::stall_timeout::LEAST;
use super::trace;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::content::{Body, NamedBlob};
use crate::oci::{Descriptor, Repository};

/// This much progress resets the count of interruptions if no retry budget applies, for example at a mirror.
const ENOUGH: u64 = 1024 * 1024;
/// If one applies, this fraction of a blob is enough, or what a slow connection must transfer within the stall limit: a blob
/// that arrives in pieces, one per request, does arrive. The number of pieces is thereby bounded.
const PART: u64 = 32;

type Pieces = BoxStream<'static, Result<Bytes, Failure>>;

/// The bytes of `blob` from `offset`, or from 0 if the server cannot start there.
pub(super) async fn blob(host: Arc<Host>, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
    let what = format!("reading blob {} of {repository}", blob.digest);
    if offset >= blob.size && offset > 0 {
        return Ok(Body::new(blob.size, stream::empty().boxed()));
    }
    let lane = host.reads.enter().await;
    let tries = host.tries_of(&what, &blob.digest, Work::Content)?;
    let wrong_answers = host.tries(&what).after_wrong_answer();
    let wanted = Wanted { host, repository: repository.clone(), blob: blob.clone(), what };
    let mut flow = Flow {
        wanted,
        position: offset,
        skip: 0,
        pieces: None,
        doubt: None,
        server: None,
        download: None,
        opened: Instant::now(),
        tries,
        wrong_answers,
        since_break: 0,
        since_renewal: 0,
        _lane: lane,
    };
    let name = NamedBlob { digest: blob.digest, repository: repository.clone() };
    let begins = flow.connect().await.map_err(|error| error.with_fact(name.clone()))?;
    // Nothing is delivered yet, so a stream from the start is passed on as such.
    flow.position = begins;
    flow.skip = 0;
    let pieces = flow.into_stream().map(move |piece| piece.map_err(|error| error.with_fact(name.clone())));
    Ok(Body::new(begins, pieces.boxed()))
}

/// What to download, and from where.
struct Wanted {
    host: Arc<Host>,
    repository: Repository,
    blob: Descriptor,
    /// The attempt, for errors.
    what: String,
}

/// A download in progress.
struct Flow {
    wanted: Wanted,
    /// Everything before this position was delivered.
    position: u64,
    /// Bytes that the present connection sends again.
    skip: u64,
    pieces: Option<Pieces>,
    /// Why they may not be the blob if their length differs.
    doubt: Option<String>,
    /// Where they come from; see [`Reply::server`].
    server: Option<ServerWork>,
    /// Set once enough has arrived for the blob to count as in transfer.
    download: Option<Download>,
    /// When they were requested.
    opened: Instant,
    tries: Tries,
    /// The retries after wrong responses.
    wrong_answers: Tries,
    since_break: u64,
    /// Bytes since the retries were last reset, over several interruptions if none of them brought enough alone.
    since_renewal: u64,
    /// Kept over reconnects: releasing it and waiting for it again could wait for itself.
    _lane: Permit,
}

impl Flow {
    fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::unfold(Some(self), |flow| async {
            let mut flow = flow?;
            match flow.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(flow))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let failure = match self.piece().await {
                Some(Ok(piece)) => match self.fresh(piece) {
                    Some(_) if self.position > self.wanted.blob.size && self.doubt.is_some() => self.other(),
                    Some(piece) => return Ok(Some(piece)),
                    None => continue,
                },
                None if self.position >= self.wanted.blob.size => {
                    self.server.iter().for_each(ServerWork::answered);
                    self.tries.succeeded();
                    return Ok(None);
                }
                None if self.doubt.is_some() => self.other(),
                None => Failure::soon(self.short()),
                Some(Err(failure)) => failure,
            };
            (self.pieces, self.download) = (None, None);
            let failure = self.classify(failure);
            self.since_break = 0;
            self.tries.again(failure).await?;
            let begins = self.connect().await?;
            self.skip = self.position - begins;
        }
    }

    /// What an interrupted body means. A connection that has transferred something is slow; one that has not may be one of
    /// many.
    fn classify(&mut self, failure: Failure) -> Failure {
        if self.has_got_on() {
            self.tries.renew();
            self.since_renewal = 0;
            return failure;
        }
        match &self.server {
            Some(server) if self.since_break == 0 => failure.of_body(server),
            _ => failure,
        }
    }

    /// Whether enough has arrived to reset the count of interruptions.
    fn has_got_on(&self) -> bool {
        let Wanted { host, blob, .. } = &self.wanted;
        let enough = match host.wire.limits.retry_budget {
            Some(_) => LEAST.min(blob.size / PART).max(1),
            None => ENOUGH,
        };
        self.since_renewal >= enough
    }

    async fn piece(&mut self) -> Option<Result<Bytes, Failure>> {
        let Wanted { host, what, .. } = &self.wanted;
        let pieces = self.pieces.as_mut()?;
        let next = async { Ok(pieces.next().await) };
        host.wire.unless_given_up(self.server.as_ref(), what, next).await.unwrap_or_else(|failure| Some(Err(failure)))
    }

    /// The part of a piece that was not delivered before.
    fn fresh(&mut self, mut piece: Bytes) -> Option<Bytes> {
        let known = self.skip.min(piece.len() as u64);
        self.skip -= known;
        let piece = piece.split_off(known as usize);
        self.position += piece.len() as u64;
        self.since_break += piece.len() as u64;
        self.since_renewal += piece.len() as u64;
        let has_got_on = self.has_got_on();
        match &self.server {
            Some(server) if has_got_on => {
                self.download.get_or_insert_with(|| server.outage.downloads());
                server.outage.advanced(server.work);
            }
            // What was sent before proves nothing.
            Some(server) => server.outage.moved(self.opened),
            None => {}
        }
        (!piece.is_empty()).then_some(piece)
    }

    fn short(&self) -> Error {
        let (at, size) = (self.position, self.wanted.blob.size);
        Error::new(Kind::Network, format!("{}: the body ended after {at} of {size} bytes", self.wanted.what))
    }

    /// The response is not the blob: a page, or something that a proxy has changed.
    fn other(&self) -> Failure {
        let (doubt, size) = (self.doubt.as_deref().unwrap_or_default(), self.wanted.blob.size);
        let text = format!("the answer ({doubt}) has not the {size} bytes of its descriptor");
        Failure::never(strange(&self.wanted.what, text))
    }

    /// Opens a connection at `position`, or at 0, and returns which.
    async fn connect(&mut self) -> Result<u64> {
        let mut from = self.position;
        loop {
            let failure = match self.wanted.open(from).await {
                Ok(Opened::At { begins, pieces, doubt, server }) => {
                    (self.pieces, self.server, self.opened) = (Some(pieces), server, Instant::now());
                    self.doubt = doubt;
                    return Ok(begins);
                }
                Ok(Opened::Elsewhere(reason)) if from > 0 => {
                    let text =
                        format!("{}: {reason} when asked to continue at {from}; starting over", self.wanted.what);
                    self.wanted.host.wire.events.report(Event::Warning(text));
                    from = 0;
                    continue;
                }
                Ok(Opened::Elsewhere(reason)) => Failure::never(self.wanted.wrong(&reason)),
                Ok(Opened::Other(error)) => {
                    self.wrong_answers.again(Failure::soon(error)).await?;
                    continue;
                }
                Err(failure) => failure,
            };
            self.tries.again(failure).await?;
        }
    }
}

impl Wanted {
    async fn open(&self, from: u64) -> Result<Opened, Failure> {
        let path = format!("/v2/{}/blobs/{}", self.repository.path(), self.blob.digest);
        let mut ask = Ask::new(Method::GET, path, Scopes::pull(&self.repository), &self.what);
        if from > 0 {
            ask = ask.header("range", &format!("bytes={from}-")).map_err(Failure::never)?;
        }
        let reply = self.host.once(&ask).await?;
        let reply = match reply.status() {
            // Some registries deny what they do not have.
            401 | 403 | 404 | 410 if !self.blob.urls().is_empty() => self.elsewhere(from).await?,
            _ => reply,
        };
        match reply.status() {
            200 => self.whole(reply),
            206 => self.part(reply, from),
            416 => Ok(Opened::Elsewhere("the registry refused the range".into())),
            404 => {
                let failure = refusal(&self.what, reply).await;
                Err(Failure { error: failure.error.with_fact(BlobProblem::Lost(self.blob.digest)), ..failure })
            }
            _ => Err(refusal(&self.what, reply).await),
        }
    }

    /// A foreign layer from one of the places in its descriptor; the last failure if none has it.
    async fn elsewhere(&self, from: u64) -> Result<Reply, Failure> {
        let foreign = |failure: Failure| {
            let fact = BlobProblem::Foreign(self.blob.digest);
            Failure { error: failure.error.with_fact(fact), ..failure }
        };
        let wrong = |reason: String| Failure::never(Error::new(Kind::NotFound, format!("{}: {reason}", self.what)));
        let mut outcome = Err(wrong("its manifest names no place to fetch it from".into()));
        for text in self.blob.urls() {
            let url = match Url::parse(text) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => url,
                _ => {
                    outcome = Err(wrong(format!("its manifest names {text:?}, which is no web address")));
                    continue;
                }
            };
            let mut headers = HeaderMap::new();
            if from > 0 {
                let range = HeaderValue::try_from(format!("bytes={from}-"));
                headers.insert(RANGE, range.map_err(|e| wrong(e.to_string()))?);
            }
            let what = format!("{} at {}, which its manifest names", self.what, trace::shown(&url));
            let (method, body, authorization) = (Method::GET, Payload::none(), None);
            let call = Call { method, url, headers, body, authorization, what: &what };
            outcome = match self.host.wire.send(call).await {
                Ok(reply) => match reply.status() {
                    200 | 206 => return Ok(reply),
                    416 => Ok(reply),
                    _ => Err(refusal(&what, reply).await),
                },
                Err(failure) => Err(failure),
            };
        }
        outcome.map_err(foreign)
    }

    fn whole(&self, reply: Reply) -> Result<Opened, Failure> {
        match reply.content_length() {
            Some(length) if length != self.blob.size => {
                let text = format!(
                    "the registry offers {length} bytes ({}), but its descriptor says {}",
                    served_as(&reply),
                    self.blob.size
                );
                match doubt(&reply) {
                    Some(_) => Ok(Opened::Other(strange(&self.what, text))),
                    None => Err(Failure::never(self.wrong(&text))),
                }
            }
            _ => Ok(Opened::at(0, reply, &self.what)),
        }
    }

    fn part(&self, reply: Reply, from: u64) -> Result<Opened, Failure> {
        let header = reply.header("content-range").unwrap_or_default().to_owned();
        let Some(range) = ContentRange::parse(&header) else {
            return Ok(Opened::Elsewhere(format!("the registry answered with Content-Range {header:?}")));
        };
        if let Some(total) = range.total.filter(|total| *total != self.blob.size) {
            let text = format!("the registry has {total} bytes, but its descriptor says {}", self.blob.size);
            return Err(Failure::never(self.wrong(&text)));
        }
        let length = range.end.checked_sub(range.start).and_then(|length| length.checked_add(1));
        let length_sent = reply.content_length();
        if range.start != from || range.end >= self.blob.size || (length_sent.is_some() && length_sent != length) {
            return Ok(Opened::Elsewhere(format!("the registry answered with Content-Range {header:?}")));
        }
        Ok(Opened::at(from, reply, &self.what))
    }

    fn wrong(&self, reason: &str) -> Error {
        Error::damaged(format!("{}: {reason}", self.what))
    }
}

enum Opened {
    At {
        begins: u64,
        pieces: Pieces,
        /// See [`Flow::doubt`].
        doubt: Option<String>,
        /// See [`Reply::server`].
        server: Option<ServerWork>,
    },
    /// It does not start where requested, with the reason.
    Elsewhere(String),
    /// It is not the blob, for example a web page.
    Other(Error),
}

impl Opened {
    fn at(begins: u64, reply: Reply, what: &str) -> Opened {
        Opened::At { begins, doubt: doubt(&reply), server: reply.server.clone(), pieces: reply.stream(what) }
    }
}

/// Why a response of another length is not a damaged blob: another server than a registry has answered, or a proxy has changed
/// the response.
fn doubt(reply: &Reply) -> Option<String> {
    let is_other = reply.header("content-type").is_some_and(is_html) || reply.coding().is_some();
    is_other.then(|| served_as(reply))
}

fn served_as(reply: &Reply) -> String {
    let kind = reply.header("content-type").unwrap_or("no type");
    let coding = reply.coding().map(|coding| format!(", Content-Encoding {coding}")).unwrap_or_default();
    format!("{kind}{coding}")
}
