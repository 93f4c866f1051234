//! An answer while it is read: its status, its headers, and a body that is limited in length and time.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt};
use reqwest::{Response, Url};

use super::failure::Failure;
use super::lane::Permit;
use super::outage::ServerWork;
use super::stall_timeout::StallTimeout;
use super::trace::{self, Talk};
use super::unanswered::broken;
use crate::base::error::{Error, Kind, Reason};

/// Maximum characters of a header in a message.
const SHOWN: usize = 40;

/// An answer whose body is unread.
pub(super) struct Reply {
    response: Response,
    /// The part of the body that has been read.
    begun: BytesMut,
    stall: Duration,
    talk: Talk,
    /// Frees the place in the host's lane when the answer is dropped.
    pub permit: Option<Permit>,
    /// Whether the registry itself answered, not a server that it redirected to.
    pub own: bool,
    /// The server that answered. `None` if nothing depends on it.
    pub server: Option<ServerWork>,
    /// The URLs requested on the way, this one last. Empty if there was only this one.
    pub asked: Vec<Url>,
}

/// An answer that was read, or is still to be read.
pub(super) enum Read<T> {
    /// What was taken from its headers, and its body.
    Whole(T, Bytes),
    /// Its status is not 200, or its body is not wanted yet.
    Unread(Box<Reply>),
}

impl Reply {
    /// `stall` is the limit that `stall_timeout` enforces.
    pub fn new(response: Response, stall: Duration, talk: Talk, own: bool, server: Option<ServerWork>) -> Reply {
        Reply { response, begun: BytesMut::new(), stall, talk, permit: None, own, server, asked: Vec::new() }
    }

    /// Returns the start of the body, about `limit` bytes at most. A reader of the body gets it again.
    pub async fn peek(&mut self, limit: usize) -> &[u8] {
        let read = async {
            while self.begun.len() < limit
                && let Ok(Some(piece)) = self.response.chunk().await
            {
                self.begun.extend_from_slice(&piece);
            }
        };
        // Use what was received so far.
        let _ = tokio::time::timeout(self.stall, read).await;
        &self.begun
    }

    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Returns the URL that answered, after redirects.
    pub fn url(&self) -> &Url {
        self.response.url()
    }

    /// Returns the secrets in the requested URLs, which must be masked if the body quotes them.
    pub fn secrets(&self) -> Vec<String> {
        trace::secrets(self.asked.iter().chain([self.url()]))
    }

    /// Returns the value of a header, if it exists and is readable text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.response.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    /// Returns the values with bytes that are not ASCII replaced: if a value is only parsed, the rest of it is still
    /// useful.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        self.response.headers().get_all(name).into_iter().map(|value| String::from_utf8_lossy(value.as_bytes()))
    }

    /// Whether every header of this name is readable text.
    pub fn is_readable(&self, name: &str) -> bool {
        self.response.headers().get_all(name).into_iter().all(|value| value.to_str().is_ok())
    }

    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Returns the compression of the body according to its headers. It was not requested.
    pub fn coding(&self) -> Option<&str> {
        self.header("content-encoding").map(str::trim).filter(|coding| !coding.eq_ignore_ascii_case("identity"))
    }

    /// Returns the body of an answer with status 200, if it may be read and has at most `limit` bytes, and what `head`
    /// takes from the headers.
    ///
    /// # Errors
    /// As for [`body`](Reply::body).
    pub async fn read<T>(
        self,
        what: &str,
        limit: Option<u64>,
        head: &(impl Fn(&Reply) -> T + Sync),
    ) -> Result<Read<T>, Failure> {
        match limit {
            Some(limit) if self.status() == 200 => {
                let head = head(&self);
                Ok(Read::Whole(head, self.body(what, limit).await?))
            }
            _ => Ok(Read::Unread(Box::new(self))),
        }
    }

    /// Returns the whole body.
    ///
    /// # Errors
    /// It is longer than `limit` bytes, breaks off or stalls, or it is compressed.
    pub async fn body(self, what: &str, limit: u64) -> Result<Bytes, Failure> {
        let too_long = || Failure::never(Error::damaged(format!("{what}: the answer is longer than {limit} bytes")));
        if self.content_length().is_some_and(|length| length > limit) {
            return Err(too_long());
        }
        // A part of a file may look like anything. Its length proves it.
        let coding = self.coding().filter(|_| self.status() != 206).map(str::to_owned);
        let server = self.server.clone().filter(|_| matches!(self.status(), 200 | 206));
        let mut stream = self.stream(what);
        let mut all = BytesMut::new();
        while let Some(piece) = stream.next().await {
            all.extend_from_slice(&piece?);
            if all.len() as u64 > limit {
                return Err(too_long());
            }
        }
        server.iter().for_each(ServerWork::answered);
        // Some servers name an encoding and send plain text.
        if let Some(coding) = coding.filter(|_| std::str::from_utf8(&all).is_err()) {
            let coding: String = coding.chars().take(SHOWN).collect();
            let text = "although no compression was requested: configure the proxy in front of the registry not to \
                        compress it";
            let text = format!("{what}: the answer is compressed (Content-Encoding: {coding:?}), {text}");
            return Err(Failure::never(Error::new(Kind::Network, text).with_reason(Reason::Compressed)));
        }
        Ok(all.freeze())
    }

    /// Returns the start of the body, whatever happens to the rest.
    pub async fn body_start(self, limit: usize) -> Vec<u8> {
        let mut stream = self.stream("");
        let mut start = Vec::new();
        while start.len() < limit
            && let Some(Ok(piece)) = stream.next().await
        {
            start.extend_from_slice(&piece);
        }
        start.truncate(limit);
        start
    }

    /// Returns the body in pieces; one that arrives too slowly is a failure.
    pub fn stream(self, what: &str) -> BoxStream<'static, Result<Bytes, Failure>> {
        let Reply { response, begun, stall, talk, permit, .. } = self;
        let what = what.to_owned();
        let begun = futures_util::stream::iter((!begun.is_empty()).then(|| Ok(begun.freeze())));
        let pieces = Box::pin(begun.chain(response.bytes_stream()));
        let begun = (pieces, StallTimeout::new(stall), talk, permit);
        futures_util::stream::unfold(begun, move |(mut pieces, mut timeout, mut talk, permit)| {
            let what = what.clone();
            async move {
                let next = match timeout.next(&mut pieces).await {
                    Ok(None) => {
                        talk.read(None);
                        return None;
                    }
                    Ok(Some(piece)) => piece.map_err(|e| broken(&what, e, None)),
                    Err(why) => Err(Failure::soon(Error::new(Kind::Network, format!("{what}: {why}")))),
                };
                match &next {
                    Ok(piece) => talk.read(Some(piece.len())),
                    Err(failure) => talk.failed(&failure.error),
                }
                Some((next, (pieces, timeout, talk, permit)))
            }
        })
        .boxed()
    }
}
