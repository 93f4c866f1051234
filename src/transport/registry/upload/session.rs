//! An upload that spans several requests (distribution-spec, "Pushing a blob in chunks"): how much the registry has of
//! it, and how to continue.
//!
//! **Threats.** What a registry reports about its state is believed only if it can be true; otherwise the upload starts
//! again. The retries of the request limit how often.
//!
//! After a broken connection it is unknown how much the registry took. A GET asks. distribution 3 answers 204 with
//! Range and a new Location. distribution 2.8 cancels an upload whose state is not in the Location, with 404; a new
//! upload then begins. A PATCH at an offset other than the registry's gets a 416, and the GET is repeated.
//!
//! Some registries, and gateways in front of them, never get further this way. ECR takes the rest of a broken upload
//! and still reports the old Range; others refuse PATCH or require chunks of a certain size. The whole blob then goes
//! out in one PUT in a new session, which every registry must accept (distribution-spec, "Pushing a blob
//! monolithically").

use reqwest::{Method, Url};

use super::{Upload, concerns_more, location};
use crate::base::error::{Error, Kind};
use crate::transport::registry::answer::{refusal, refusal_with_codes};
use crate::transport::registry::auth::Scopes;
use crate::transport::registry::call::Payload;
use crate::transport::registry::failure::{Failure, Retry, is_gateway, is_transient};
use crate::transport::registry::host::{Ask, RequestTarget};
use crate::transport::registry::location::led_on;
use crate::transport::registry::reply::Reply;
use crate::transport::registry::upload_body::UploadBody;

/// Codes of a 403 that are final (distribution-spec, "Error Codes").
const DENIALS: [&str; 2] = ["DENIED", "TOOMANYREQUESTS"];

/// The state of an upload at the registry, as far as it is known.
pub(super) struct Session {
    /// The URL of the next request; every answer brings a new one.
    pub location: Url,
    /// Whether the registry redirected the whole blob to `location`, which then contains all parameters.
    pub is_redirected: bool,
    /// Bytes that the registry has.
    pub has: u64,
    /// Whether a request broke off, so that `has` must be requested.
    pub unsure: bool,
    /// The most bytes that the registry can have.
    sent: u64,
    /// Whether the registry failed to answer how much it has.
    failed_to_answer: bool,
}

impl Session {
    /// A new session.
    pub fn at(location: Url) -> Session {
        Session { location, is_redirected: false, has: 0, unsure: false, sent: 0, failed_to_answer: false }
    }

    /// A session at the URL that the whole blob was redirected to.
    pub fn redirected(location: Url) -> Session {
        Session { is_redirected: true, ..Session::at(location) }
    }
}

impl Upload<'_> {
    /// Sends what the registry lacks, in chunks if one request must not carry it all.
    pub async fn send_rest(&mut self) -> Result<(), Failure> {
        while let Some(from) = self.session.as_ref().map(|session| session.has).filter(|has| *has < self.blob.size) {
            self.send_chunk(from).await?;
        }
        Ok(())
    }

    async fn send_chunk(&mut self, from: u64) -> Result<(), Failure> {
        let Some(Session { location, .. }) = &self.session else { return Ok(()) };
        let (location, size) = (location.clone(), self.blob.size);
        let length = (size - from).min(self.host.memory.chunk());
        let feed = match self.feed.take() {
            Some((at, feed)) if at == from => feed,
            _ => {
                let reader = self.open().await.map_err(Failure::never)?;
                self.feed_after(from, reader).await?
            }
        };
        let end = from + length;
        let body = UploadBody::new(&feed, length, end == size);
        let watch = body.watch();
        let mut ask = self.request(Method::PATCH)?;
        if length < size {
            ask = ask.header("content-range", &format!("{from}-{}", end - 1)).map_err(Failure::never)?;
        }
        let answer = self.host.once_with(&ask, location, Payload::Stream(Box::new(body))).await;
        if let Some(lost) = watch.take_lost() {
            return Err(self.lost(lost).await);
        }
        let reply = self.heard(answer, from + watch.sent())?;
        if let Some(next) = led_on(&reply, self.what) {
            let (location, failure) = next?;
            self.update(|session| (session.location, session.unsure) = (location, false));
            return Err(failure);
        }
        match reply.status() {
            200..=202 | 204 => {
                self.feed = Some((end, feed));
                self.has_taken(&reply, end)
            }
            413 => {
                // A refusal with a reason is not a limit on the size of requests.
                let failure = refusal(self.what, reply).await;
                if failure.error.reason().is_none() && self.shrinks(length) {
                    self.update(|session| session.unsure = false);
                    return Ok(());
                }
                Err(self.judged_size(failure, 413))
            }
            405 | 501 => {
                self.host.memory.set_refuses_patch();
                self.update(|session| session.unsure = false);
                Err(Failure { retry: Retry::Now, ..refusal(self.what, reply).await })
            }
            status => {
                let (failure, codes) = refusal_with_codes(self.what, reply).await;
                let failure = self.after_refusal(failure, status);
                // Read-only mode or a full quota says nothing about PATCH, and the session may continue. A registry
                // that denies in its own words denies the blob however it is sent; a gateway that does not accept PATCH
                // has no such words.
                let is_denied = status == 403 && codes.iter().any(|code| DENIALS.contains(&code.as_str()));
                if concerns_more(&failure.error) || is_denied {
                    return Err(failure);
                }
                Err(if self.gives_up_patch(status) { self.start_in_one(failure) } else { failure })
            }
        }
    }

    /// Whether a refusal of PATCH means that this blob cannot be sent that way. Refusals that concern the blob or the
    /// account are left to the single PUT.
    fn gives_up_patch(&mut self, status: u16) -> bool {
        self.refused_patches += 1;
        match status {
            // The upload is gone, or the registry has another offset: send it in chunks once more.
            404 | 410 | 416 => self.refused_patches > 1,
            400 | 403 | 406 | 409 | 411 | 412 | 415 | 422 => true,
            _ => false,
        }
    }

    /// From now on this blob is sent in one PUT in a session of its own, if it may be that large.
    fn start_in_one(&mut self, failure: Failure) -> Failure {
        self.start_again();
        Failure { retry: Retry::Now, ..failure }
    }

    /// Ends the upload with an empty PUT that carries the digest.
    pub async fn close(&mut self) -> Result<(), Failure> {
        let Some(session) = &self.session else { return Ok(()) };
        let answer = self.finish(session, Payload::Closing { stored: self.blob.size }).await;
        self.may_be_there = true;
        self.unclosed += 1;
        let reply = self.heard(answer, self.blob.size)?;
        match reply.status() {
            201 | 204 => self.accepted(&reply),
            200 | 202 => {
                self.session = None;
                self.check_there(reply).await
            }
            // The registry itself loses uploads between requests: some object stores behind distribution 2.8 list too
            // few of the parts that they received. Another PATCH could end the same way, so a new session sends the
            // whole blob in one PUT, from the first byte.
            404 => {
                self.start_again();
                Err(self.refused(reply).await)
            }
            status => {
                let failure = self.refused(reply).await;
                Err(self.once_more(failure, status))
            }
        }
    }

    /// Finds out how much an interrupted request left. Afterwards the state of the session is known, or the session is
    /// gone.
    pub async fn ask_what_it_has(&mut self) -> Result<(), Failure> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let mut ask = Ask::new(Method::GET, String::new(), Scopes::push(self.repository), self.what);
        ask.target = RequestTarget::Url(session.location.clone());
        let reply = self.host.once(&ask).await?;
        let status = reply.status();
        if is_transient(status) {
            // A registry that fails on this question will fail again. A new session avoids it.
            if !is_gateway(status) && status != 429 && std::mem::replace(&mut session.failed_to_answer, true) {
                self.session = None;
            }
            return Err(refusal(self.what, reply).await);
        }
        let next = location(&reply, self.what).ok();
        let has = reply.header("range").and_then(range_end).filter(|_| matches!(status, 200 | 202 | 204));
        tracing::debug!(what = self.what, status, has, "asked what the registry has of the upload");
        let sent = session.sent;
        match has {
            Some(has) if has <= sent => {
                self.update(|session| {
                    (session.has, session.unsure) = (has, false);
                    session.location = next.unwrap_or_else(|| session.location.clone());
                });
            }
            _ => self.session = None,
        }
        Ok(())
    }

    /// Records the answer to a request that carried the blob up to `sent`. Without an answer the session is unsure,
    /// except after a refused token: a registry checks the token before the body.
    fn heard(&mut self, answer: Result<Reply, Failure>, sent: u64) -> Result<Reply, Failure> {
        let before_the_body = answer.as_ref().is_err_and(|failure| failure.retry == Retry::Now);
        if !before_the_body {
            self.update(|session| (session.unsure, session.sent) = (true, sent));
        }
        answer
    }

    /// Records a PATCH up to `end` that the registry accepted.
    fn has_taken(&mut self, reply: &Reply, end: u64) -> Result<(), Failure> {
        let size = self.blob.size;
        let had = self.session.as_ref().map_or(0, |session| session.has);
        let next = location(reply, self.what).ok();
        let has = reply.header("range").and_then(range_end).filter(|has| *has < end).unwrap_or(end);
        self.update(|session| {
            session.location = next.unwrap_or_else(|| session.location.clone());
            (session.has, session.unsure) = (has, has < end);
        });
        if has == end {
            return Ok(());
        }
        let text = format!("{}: the registry says that it has {has} of {size} bytes", self.what);
        let failure = Failure::soon(Error::new(Kind::Network, text));
        // It accepted the bytes and does not count them.
        Err(if has <= had { self.start_in_one(failure) } else { failure })
    }

    /// Returns the failure that an answer means, and updates the session.
    async fn refused(&mut self, reply: Reply) -> Failure {
        let status = reply.status();
        self.after_refusal(refusal(self.what, reply).await, status)
    }

    fn after_refusal(&mut self, failure: Failure, status: u16) -> Failure {
        let failure = self.judged_size(failure, status);
        // Cancelled or expired (BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID): a new session may work.
        let gone = matches!(status, 404 | 410);
        if gone {
            self.session = None;
        }
        // With a 416 the registry has another offset, which will be requested.
        if gone || status == 416 { Failure { retry: Retry::Soon, ..failure } } else { failure }
    }

    fn update(&mut self, change: impl FnOnce(&mut Session)) {
        if let Some(session) = &mut self.session {
            change(session);
        }
    }
}

/// Returns the number of bytes in `Range: 0-<last>`. `0-0` may mean none or one; the difference does not matter.
pub(in crate::transport::registry) fn range_end(header: &str) -> Option<u64> {
    let header = header.trim();
    let range = header.strip_prefix("bytes").map_or(header, |rest| rest.trim_start_matches(['=', ' ']));
    let (first, last) = range.split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (first.trim() == "0" && last > 0).then(|| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_how_much_there_is() {
        for (header, bytes) in [
            ("0-99", Some(100)),
            (" bytes=0-99", Some(100)),
            ("bytes 0-99", Some(100)),
            ("0-18446744073709551615", Some(u64::MAX)),
            ("0-0", None),
            ("5-99", None),
            ("0-", None),
            ("0--1", None),
            ("", None),
            ("bytes", None),
        ] {
            assert_eq!(range_end(header), bytes, "{header:?}");
        }
    }
}
