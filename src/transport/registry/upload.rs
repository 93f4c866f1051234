//! Uploads of blobs (distribution-spec, "Pushing blobs").
//!
//! A small blob takes one POST and one PUT of the whole body with its exact length. A large blob is sent by PATCH in
//! one stream. A registry that keeps what it received before a break can then report how much that is, and only the
//! rest is sent again (`session`). The closing PUT is then empty, because Harbor counts its content a second time. If
//! the registry cancels the upload instead (distribution 2.8, which every Harbor 2.x embeds), it starts again from
//! POST. Each request carries all the rest, unless a gateway has refused a request for its size (413): then blobs are
//! sent in chunks of half that size, of half of that, and so on.
//!
//! The body comes from a [`BlobReader`](crate::content::BlobReader), which holds back the last piece until everything
//! is proven: a wrong blob can never be completed. When an upload continues, the blob is read and proven again from its
//! first byte.

mod session;

use std::sync::Arc;

use futures_util::StreamExt;
use reqwest::{Method, Url};

use super::answer::refusal;
use super::auth::Scopes;
use super::call::Payload;
use super::failure::{Failure, Retry, may_be_down};
use super::host::{Ask, Host, RequestTarget, strange};
use super::location;
use super::outage::{ServerWork, Work};
use super::presence;
use super::projects::Turn;
use super::reply::Reply;
use super::stored;
use super::unanswered::has_no_address;
use super::upload_body::{Feed, UploadBody};
use crate::base::error::{Error, Kind, Reach, Reason, Result};
use crate::content::{BlobReader, NamedBlob, Origin};
use crate::oci::{Descriptor, Digest, Repository};
use session::Session;
#[cfg(fuzzing)]
pub(super) use session::range_end;

/// After this much progress, in bytes, earlier breaks are forgotten.
const ENOUGH: u64 = 1024 * 1024;

/// Uploads the blob, reading it from `origin` again for every try, and checks that the registry has stored it.
///
/// # Errors
/// Those of the upload, and [`Reason::DamagedTarget`]; see [`stored::check`].
pub(super) async fn put(host: &Host, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
    let what = format!("uploading blob {} to {repository}", blob.digest);
    let named = |error: Error| error.with_fact(NamedBlob { digest: blob.digest, repository: repository.clone() });
    send(host, repository, blob, origin, &what).await.map_err(named)?;
    host.memory.written.note_blob(repository, blob.digest);
    // The next uploads to the project and to the registry do not wait for this.
    stored::check(host, repository, blob, &what).await.map_err(named)
}

async fn send(host: &Host, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>, what: &str) -> Result<()> {
    let _turn = host.projects.turn(repository, Turn::Upload).await;
    let _lane = host.uploads.enter().await;
    let mut tries = host.tries_of(what, &blob.digest, Work::Complete)?;
    let session = host.memory.take_session(repository, &blob.digest).map(Session::at);
    let mut upload = Upload {
        host,
        repository,
        blob,
        origin,
        what,
        inherited: session.is_some(),
        session,
        may_be_there: false,
        unclosed: 0,
        was_wrong: false,
        in_one: false,
        in_parts: false,
        feed: None,
        refused_patches: 0,
        far: 0,
        refused: None,
    };
    loop {
        let inherited = upload.inherited;
        let Err(failure) = upload.attempt().await else {
            tries.succeeded();
            return Ok(());
        };
        let mut failure = upload.judged_place(failure);
        // The session may have expired since the mount that opened it. The usual way is still to be tried.
        let is_final = failure.error.kind() == Kind::Damaged || concerns_more(&failure.error);
        if inherited && failure.retry == Retry::Never && !is_final {
            upload.session = None;
            failure.retry = Retry::Now;
        }
        if upload.has_got_on() {
            tries.renew();
        }
        // The blob may have been stored anyway, and this may have been the last try.
        if !failure.waited.is_zero() && upload.may_be_there && upload.is_there().await {
            tries.succeeded();
            return Ok(());
        }
        if let Err(error) = tries.again(failure).await {
            upload.cancel(&error).await;
            return Err(error);
        }
    }
}

/// Cancels an upload without a blob. If that fails, the registry ends old sessions itself after some days.
pub(super) async fn give_up(host: &Host, repository: &Repository, session: Url, what: &str) {
    let mut ask = Ask::new(Method::DELETE, String::new(), Scopes::push(repository), what);
    ask.target = RequestTarget::Url(session);
    match host.once(&ask).await {
        Ok(reply) => tracing::debug!(what, status = reply.status(), "cancelled the upload"),
        Err(failure) => tracing::debug!(what, error = %failure.error, "not cancelled"),
    }
}

/// Whether the registry's objection concerns more than this blob.
pub(super) fn concerns_more(error: &Error) -> bool {
    error.reason().is_some_and(|reason| reason.reach() != Reach::Object)
}

/// A blob being uploaded, over as many connections and sessions as necessary.
struct Upload<'a> {
    pub host: &'a Host,
    pub repository: &'a Repository,
    pub blob: &'a Descriptor,
    pub origin: &'a Origin<'a>,
    /// The attempt, as errors name it.
    pub what: &'a str,
    pub session: Option<Session>,
    /// Whether a mount opened the session.
    inherited: bool,
    /// Whether the registry was asked to close the upload; without an answer the blob may exist.
    pub may_be_there: bool,
    /// How often the closing request has failed without a refusal.
    pub unclosed: u32,
    /// Whether the registry has already computed another digest once.
    pub was_wrong: bool,
    /// Whether the blob must be sent in one request, because several requests failed to produce it.
    pub in_one: bool,
    /// Whether the registry refuses any content in the closing PUT.
    in_parts: bool,
    /// The bytes of the blob that the last request did not send, and their offset.
    pub feed: Option<(u64, Feed)>,
    /// How often a PATCH of it was refused.
    pub refused_patches: u32,
    /// The most bytes that the registry has had of it.
    far: u64,
    /// The session whose last request was refused.
    refused: Option<Url>,
}

impl Upload<'_> {
    /// Continues from what the registry has, as far as that is known.
    async fn attempt(&mut self) -> Result<(), Failure> {
        // A registry that failed while answering may have stored the blob anyway.
        if self.unclosed > 1 && self.is_there().await {
            return Ok(());
        }
        if self.session.as_ref().is_some_and(|session| session.unsure) {
            self.ask_what_it_has().await?;
        }
        if self.session.is_none() {
            if self.may_be_there && self.is_there().await {
                return Ok(());
            }
            self.session = Some(self.begin().await?);
            self.inherited = false;
        }
        if !self.goes_in_parts() {
            self.send_whole().await?;
            if self.refused_patches > 0 {
                self.host.memory.set_refuses_patch();
            }
            return Ok(());
        }
        self.send_rest().await?;
        self.close().await?;
        if self.in_parts {
            self.host.memory.set_refuses_whole();
        }
        Ok(())
    }

    /// Whether to spend an additional request, because starting over would be expensive or one request cannot carry the
    /// blob.
    fn goes_in_parts(&self) -> bool {
        let least = self.host.wire.config.large_blob.max(1);
        let is_large = self.blob.size >= least || self.blob.size > self.host.memory.chunk();
        self.takes_parts() && (is_large || self.in_parts || self.host.memory.refuses_whole())
    }

    /// Whether PATCH has not failed.
    fn takes_parts(&self) -> bool {
        !self.in_one && !self.host.memory.refuses_patch()
    }

    async fn is_there(&self) -> bool {
        let is_there = matches!(presence::has(self.host, self.repository, self.blob).await, Ok(true));
        if is_there {
            self.host.note_stored();
        }
        is_there
    }

    /// Records that a body of `length` bytes was refused for its size. `true` if the next request is smaller.
    pub fn shrinks(&self, length: u64) -> bool {
        self.takes_parts() && self.host.memory.is_too_large(length)
    }

    /// Whether enough progress was made since the last call for earlier breaks to be forgotten.
    fn has_got_on(&mut self) -> bool {
        let has = self.session.as_ref().map_or(0, |session| session.has);
        let enough = has >= self.far.saturating_add(ENOUGH);
        self.far = self.far.max(has);
        enough
    }

    /// Cancels an upload that the registry refused for good. Otherwise its bytes would stay in the registry's storage
    /// for a week.
    async fn cancel(&mut self, error: &Error) {
        let open = self.session.take().map(|session| session.location).or(self.refused.take());
        let may_change =
            matches!(error.kind(), Kind::Refused | Kind::NotFound) && error.reason() != Some(&Reason::ReadOnly);
        let Some(location) = open.filter(|_| may_change) else { return };
        give_up(self.host, self.repository, location, self.what).await;
    }

    async fn begin(&self) -> Result<Session, Failure> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository.path());
        let ask = Ask::new(Method::POST, path, Scopes::push(self.repository), self.what);
        let reply = self.host.once(&ask).await?;
        match reply.status() {
            202 => {
                let least = reply.header("oci-chunk-min-length").and_then(|header| header.trim().parse().ok());
                self.host.memory.note_least_chunk(least.unwrap_or(0));
                location(&reply, self.what).map(Session::at).map_err(Failure::never)
            }
            _ => Err(ask.refused(reply).await),
        }
    }

    /// Sends the whole blob in the closing request.
    async fn send_whole(&mut self) -> Result<(), Failure> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let mut reader = match self.open().await {
            Ok(reader) => reader,
            Err(error) => {
                self.refused = Some(session.location);
                return Err(Failure::never(error));
            }
        };
        if self.blob.size == 0 {
            // Nothing that could be held back will be sent.
            while let Some(piece) = reader.next().await {
                if let Err(lost) = piece {
                    return Err(self.lost(lost).await);
                }
            }
        }
        let feed = self.feed_after(0, reader).await?;
        let body = UploadBody::new(&feed, self.blob.size, true);
        let watch = body.watch();
        let payload =
            if self.blob.size == 0 { Payload::Closing { stored: 0 } } else { Payload::Stream(Box::new(body)) };
        let location = session.location.clone();
        let answer = self.finish(&session, payload).await;
        // If our own reading failed, it broke the connection: report that error.
        if let Some(lost) = watch.take_lost() {
            self.refused = Some(location);
            return Err(self.lost(lost).await);
        }
        let reply = match answer {
            Ok(reply) => reply,
            Err(failure) => {
                // Refused because of an old token before any byte was read: the session is still good.
                match failure.retry {
                    Retry::Now => self.session = Some(session),
                    _ => self.may_be_there = watch.sent() == self.blob.size,
                }
                return Err(failure);
            }
        };
        if let Some(next) = location::led_on(&reply, self.what) {
            let (location, failure) = next?;
            self.session = Some(Session::redirected(location));
            return Err(failure);
        }
        match reply.status() {
            201 | 204 => self.accepted(&reply),
            200 | 202 => self.check_there(reply).await,
            // The session is gone (BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID): a new session may work.
            404 | 416 => Err(Failure { retry: Retry::Soon, ..refusal(self.what, reply).await }),
            // Some registries accept content by PATCH only.
            405 | 501 if self.blob.size > 0 && self.takes_parts() && !self.in_parts => {
                self.in_parts = true;
                self.session = Some(session);
                Err(Failure { retry: Retry::Now, ..refusal(self.what, reply).await })
            }
            status => {
                let failure = refusal(self.what, reply).await;
                // The limit of a gateway: the registry behind it has not seen the request, and the session is still
                // good.
                if status == 413 && failure.error.reason().is_none() && self.shrinks(self.blob.size) {
                    self.session = Some(session);
                    return Err(Failure { retry: Retry::Now, ..failure });
                }
                let failure = self.judged_size(failure, status);
                let failure = self.once_more(failure, status);
                self.may_be_there = may_be_down(status);
                match failure.error.reason() {
                    // The session is still good.
                    Some(Reason::ReadOnly) => self.session = Some(session),
                    _ if failure.retry == Retry::Never => self.refused = Some(location),
                    _ => {}
                }
                Err(failure)
            }
        }
    }

    /// Returns the failure with which a closing request ends. If the registry computes another digest, a proxy may have
    /// changed the bytes, or the registry may have joined the parts wrongly: the blob is sent once more in one piece.
    pub fn once_more(&mut self, failure: Failure, status: u16) -> Failure {
        if status == 400 && !std::mem::replace(&mut self.was_wrong, true) {
            self.start_again();
            return Failure { retry: Retry::Soon, ..failure };
        }
        failure
    }

    pub fn judged_size(&self, failure: Failure, status: u16) -> Failure {
        match status {
            413 if failure.error.reason().is_none() => {
                Failure { error: failure.error.with_reason(Reason::BodyLimit), ..failure }
            }
            _ => failure,
        }
    }

    /// The registry decides where uploads go. If that name cannot be resolved, the registry is wrong, and there is no
    /// outage. If the server has already answered in this run, the name server fails.
    fn judged_place(&self, failure: Failure) -> Failure {
        let is_own = |server: &ServerWork| Arc::ptr_eq(&server.outage, &self.host.wire.outage);
        let may_be_wrong =
            |server: &ServerWork| server.work != Work::Token && !is_own(server) && !server.outage.is_known();
        match &failure.server {
            Some(server) if may_be_wrong(server) && has_no_address(&failure) => {
                let (registry, place) = (&self.host.registry, server.outage.place());
                // Drop the role of the server.
                let place = place.split(' ').next().unwrap_or_default();
                let text =
                    format!("{}: {registry} sends uploads to {place}, whose name cannot be resolved here", self.what);
                Failure::soon(Error::new(Kind::Refused, text).with_reason(Reason::UnknownUploadHost))
            }
            _ => failure,
        }
    }

    /// Starts a new session, with the blob in one piece if one request may carry it.
    pub fn start_again(&mut self) {
        self.in_one |= self.blob.size <= self.host.memory.chunk();
        self.session = None;
    }

    /// Opens the blob at its start.
    pub async fn open(&self) -> Result<BlobReader> {
        BlobReader::new(self.blob, self.origin.body(self.blob, 0).await?)
    }

    /// Returns what `reader` has from `offset` on.
    pub async fn feed_after(&self, offset: u64, reader: BlobReader) -> Result<Feed, Failure> {
        match Feed::after(offset, reader).await {
            Ok(feed) => Ok(feed),
            Err(lost) => Err(self.lost(lost).await),
        }
    }

    /// Our own reading failed. For wrong bytes, the source knows where they came from and whether another try may help.
    pub async fn lost(&self, error: Error) -> Failure {
        let named = |error: Error| error.while_doing(format!("blob {} to {}", self.blob.digest, self.repository));
        if error.kind() != Kind::Damaged {
            return Failure::never(named(error));
        }
        let again = Error::damaged(error.chain()).speaking_for(error.clone());
        match self.origin.source.gave_wrong(self.origin.repository, self.blob, error).await {
            Ok(()) => Failure::now(again),
            Err(error) => Failure::never(named(error)),
        }
    }

    /// Sends the request that turns an upload into a blob.
    pub async fn finish(&self, session: &Session, payload: Payload) -> Result<Reply, Failure> {
        let mut location = session.location.clone();
        if !session.is_redirected {
            location.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        }
        self.host.once_with(&self.request(Method::PUT)?, location, payload).await
    }

    pub fn request(&self, method: Method) -> Result<Ask<'_>, Failure> {
        let ask = Ask::new(method, String::new(), Scopes::push(self.repository), self.what);
        ask.header("content-type", "application/octet-stream").map_err(Failure::never)
    }

    /// Handles an end with success that is not the specification's: a page of a gateway, or a registry that stores
    /// later. Checks whether the blob exists.
    pub async fn check_there(&self, reply: Reply) -> Result<(), Failure> {
        match presence::has(self.host, self.repository, self.blob).await {
            Ok(true) => {
                self.host.note_stored();
                Ok(())
            }
            _ => Err(Failure { retry: Retry::Soon, ..refusal(self.what, reply).await }),
        }
    }

    /// Checks that the registry reports the digest that was sent.
    pub fn accepted(&self, reply: &Reply) -> Result<(), Failure> {
        let stored = reply.header("docker-content-digest").and_then(|header| header.parse::<Digest>().ok());
        match stored {
            Some(stored) if stored.algorithm() == self.blob.digest.algorithm() && stored != self.blob.digest => {
                let text = format!("{}: the registry stored another blob, {stored}", self.what);
                Err(Failure::never(Error::damaged(text)))
            }
            _ => Ok(()),
        }
    }
}

/// Returns where an upload continues: Location, relative to the request, with its query.
pub(super) fn location(reply: &Reply, what: &str) -> Result<Url> {
    let header = reply.header("location").ok_or_else(|| strange(what, "the registry sent no Location"))?;
    location::resolve(reply.url(), header).map_err(|reason| strange(what, format!("the registry leads {reason}")))
}
