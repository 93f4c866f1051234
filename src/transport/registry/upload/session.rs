//! An upload that lives over several requests (distribution-spec, "Pushing a blob in chunks"): what the registry has of it,
//! and going on from there.
//!
//! **Threats.** What a registry says of its state is believed only where it can be true; everything else starts the upload
//! again. How often that happens is bounded by the tries of the request.
//!
//! A break leaves open how much the registry has taken. It is asked by GET; distribution 3 answers 204 with Range and a
//! fresh Location. distribution 2.8 cancels an upload whose state the Location does not carry, with 404: then a new one
//! begins. A PATCH at another place than the registry stands is 416, and asks again.
//!
//! Some registries and the gateways before them never get further this way: ECR takes the rest of a broken upload and goes on
//! naming the old Range, others refuse PATCH or want it in chunks of their own. Then a new session gets the whole blob in one
//! PUT, which every registry has to take (distribution-spec, "Pushing a blob monolithically").

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

/// An upload as the registry is known to have it.
pub(super) struct Session {
    /// Where the next request goes; another one after every answer.
    pub location: Url,
    /// It is where the whole blob was redirected to, complete with all that it needs.
    pub is_redirected: bool,
    /// Bytes that are there.
    pub has: u64,
    /// A request broke off: how much came of it has to be asked.
    pub unsure: bool,
    /// The most that can be there.
    sent: u64,
    /// The registry has failed to say what it has.
    failed_to_answer: bool,
}

impl Session {
    /// A new one.
    pub fn at(location: Url) -> Session {
        Session { location, is_redirected: false, has: 0, unsure: false, sent: 0, failed_to_answer: false }
    }

    /// Where the whole blob was redirected to.
    pub fn redirected(location: Url) -> Session {
        Session { is_redirected: true, ..Session::at(location) }
    }
}

impl Upload<'_> {
    /// Sends what the registry lacks, in chunks where one request must not bring it all.
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
                // Who gives a reason has no limit for requests.
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
                // Read-only mode, a full quota: it says nothing of PATCH, and the session may go on. A registry that denies in its own
                // words denies the blob, whichever way it comes; a gateway that takes no PATCH has none.
                let is_denied = status == 403 && codes.iter().any(|code| DENIALS.contains(&code.as_str()));
                if concerns_more(&failure.error) || is_denied {
                    return Err(failure);
                }
                Err(if self.gives_up_patch(status) { self.start_in_one(failure) } else { failure })
            }
        }
    }

    /// Whether a refusal of PATCH says that this blob cannot go that way. What concerns the blob or the account, whichever way
    /// it goes, is left to the one PUT to say.
    fn gives_up_patch(&mut self, status: u16) -> bool {
        self.refused_patches += 1;
        match status {
            // The upload is gone, or the registry stands elsewhere: once more in pieces.
            404 | 410 | 416 => self.refused_patches > 1,
            400 | 403 | 406 | 409 | 411 | 412 | 415 | 422 => true,
            _ => false,
        }
    }

    /// From now on this blob goes in one PUT, in a session of its own, if it may be so large.
    fn start_in_one(&mut self, failure: Failure) -> Failure {
        self.start_again();
        Failure { retry: Retry::Now, ..failure }
    }

    /// Ends the upload: an empty PUT with the digest.
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
            // The registry itself loses uploads between requests: some object stores behind distribution 2.8 list too few
            // of the parts that they have got. Another PATCH could end the same way, so a new session gets the whole blob
            // in one PUT, from the first byte.
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

    /// Finds out what an interrupted request has left. Afterwards the state of the session is known, or the session is gone.
    pub async fn ask_what_it_has(&mut self) -> Result<(), Failure> {
        let Some(session) = &mut self.session else { return Ok(()) };
        let mut ask = Ask::new(Method::GET, String::new(), Scopes::push(self.repository), self.what);
        ask.target = RequestTarget::Url(session.location.clone());
        let reply = self.host.once(&ask).await?;
        let status = reply.status();
        if is_transient(status) {
            // A registry that stumbles over the question itself will do so again: a new session does without.
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

    /// After a request that carried the blob up to `sent` there is an answer, or the session is unsure. It is not when a
    /// token was refused: that happens before the registry looks at a body.
    fn heard(&mut self, answer: Result<Reply, Failure>, sent: u64) -> Result<Reply, Failure> {
        let before_the_body = answer.as_ref().is_err_and(|failure| failure.retry == Retry::Now);
        if !before_the_body {
            self.update(|session| (session.unsure, session.sent) = (true, sent));
        }
        answer
    }

    /// After a PATCH up to `end` that the registry took.
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
        // It took what was sent and does not count it.
        Err(if has <= had { self.start_in_one(failure) } else { failure })
    }

    /// The failure that an answer stands for, and what it means for the session.
    async fn refused(&mut self, reply: Reply) -> Failure {
        let status = reply.status();
        self.after_refusal(refusal(self.what, reply).await, status)
    }

    fn after_refusal(&mut self, failure: Failure, status: u16) -> Failure {
        let failure = self.judged_size(failure, status);
        // Cancelled or expired (BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID): a new one may do.
        let gone = matches!(status, 404 | 410);
        if gone {
            self.session = None;
        }
        // With 416 the registry stands elsewhere, and will be asked where.
        if gone || status == 416 { Failure { retry: Retry::Soon, ..failure } } else { failure }
    }

    fn update(&mut self, change: impl FnOnce(&mut Session)) {
        if let Some(session) = &mut self.session {
            change(session);
        }
    }
}

/// How many bytes `Range: 0-<last>` stands for. `0-0` may be none or one: not worth telling apart.
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
