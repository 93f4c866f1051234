//! Whether a blob that the registry claims to have can be read. A GET of its last byte (RFC 9110, "Range Requests") is
//! the cheapest request that no cache of metadata can answer: it costs no more than a HEAD.
//!
//! **Threats.** A registry may ignore the range and send everything, or announce a byte that never arrives: at most one
//! byte is read, and a longer answer is dropped. A redirect to a storage server carries no credentials (`wire`).

use reqwest::Method;

use super::answer::is_html;
use super::auth::Scopes;
use super::content_range::ContentRange;
use super::failure::{Failure, Retry, is_transient};
use super::host::{Ask, Host};
use super::outage::{Evidence, ServerWork, Work};
use super::reply::Reply;
use crate::base::error::{Error, Kind, Result};
use crate::content::Readable;
use crate::oci::{Descriptor, Repository};

/// How often the byte may fail to arrive before the blob counts as unreadable: a truncated file looks like a broken
/// connection.
const MOST_BROKEN: u32 = 2;

pub(super) const NOT_COMING: &str = "its last byte does not arrive";
const ABSENT: &str = "it is missing when it is read";

/// What the registry said about the blob before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It has the blob.
    Has,
    /// It accepted the blob in this run.
    Took,
}

/// Reads the last byte of `blob` in `repository`. An empty blob has no last byte, so all of it is requested. The result
/// is remembered (`memory`).
///
/// # Errors
/// The registry asks for a longer pause than is allowed, or it was given up.
pub(super) async fn read(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    find_out(host, repository, blob, Claim::Has).await
}

/// Like [`read`], after an upload that the registry confirmed. A failure that means [`Readable::No`] is retried as
/// often as allowed, so this result is certain. Other failures are not retried, except for rate limits and those that
/// call for a retry at once.
///
/// # Errors
/// As for [`read`].
pub(super) async fn read_uploaded(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    find_out(host, repository, blob, Claim::Took).await
}

async fn find_out(host: &Host, repository: &Repository, blob: &Descriptor, claim: Claim) -> Result<Readable> {
    let what = format!("reading the last byte of blob {} in {repository}", blob.digest);
    let ask = asking(repository, blob, &what)?;
    let mut tries = match host.tries_of(&what, &blob.digest, Work::Content) {
        Ok(tries) => tries,
        // The registry has answered every try with an error of its own.
        Err(error) if error.reason().is_some() => return Ok(Readable::Failed(error.chain())),
        Err(error) => return Ok(Readable::Unknown(error.chain())),
    };
    let mut broken = 0;
    let found = loop {
        let (failure, otherwise) = match once(host, &ask, blob).await {
            Ok(readable) => {
                tries.succeeded();
                break readable;
            }
            Err(Miss::Broken) if claim == Claim::Has && broken + 1 < MOST_BROKEN => {
                broken += 1;
                continue;
            }
            Err(Miss::Broken) if claim == Claim::Has => break Readable::No(NOT_COMING.to_owned()),
            Err(Miss::Absent) if !was_uploaded(host, repository, blob) => break Readable::No(ABSENT.to_owned()),
            Err(miss) => classify(miss, &what),
        };
        let is_sought = claim == Claim::Has || matches!(otherwise, Readable::No(_));
        let is_limit = failure.error.kind() == Kind::RateLimited;
        let again = match is_sought || is_limit || failure.retry == Retry::Now {
            true => tries.again(failure).await,
            false => Err(failure.error),
        };
        if let Err(error) = again {
            let is_over = error.kind() == Kind::RateLimited || error.stopped().is_some();
            // If only the storage server behind a redirect was given up, the registry itself may still be asked.
            if is_over && host.pass(&what).await.is_err() {
                return Err(error);
            }
            break otherwise;
        }
    };
    host.memory.proofs.note(repository, blob, &found);
    Ok(found)
}

/// The failure of a try, and the result if no other try follows.
fn classify(miss: Miss, what: &str) -> (Failure, Readable) {
    match miss {
        Miss::Absent => {
            let error = Error::new(
                Kind::NotFound,
                format!("{what}: the registry accepted the upload, but does not have the blob"),
            );
            (Failure::soon(error), Readable::No(ABSENT.to_owned()))
        }
        Miss::Broken => {
            let error = Error::new(Kind::Network, format!("{what}: {NOT_COMING}"));
            (Failure::soon(error), Readable::No(NOT_COMING.to_owned()))
        }
        Miss::Refused(mut failure) => {
            let why = failure.error.chain();
            // The registry's file of this blob may be damaged or unreadable.
            if failure.retry == Retry::Down(Evidence::Status) {
                failure.retry = Retry::Down(Evidence::Object);
            }
            (failure, Readable::Failed(why))
        }
        Miss::Failed(failure) => {
            let why = failure.error.chain();
            let denied = matches!(failure.error.kind(), Kind::Unauthorized | Kind::Refused);
            (failure, if denied { Readable::Denied } else { Readable::Unknown(why) })
        }
    }
}

/// Whether this run uploaded the blob's bytes. A mount proves nothing about them.
fn was_uploaded(host: &Host, repository: &Repository, blob: &Descriptor) -> bool {
    let written = &host.memory.written;
    written.has_blob(repository, &blob.digest) && !written.is_mounted(repository, &blob.digest)
}

/// Whether the last byte can be read, in one try, after HEAD reported the blob missing. `None` if the answer is
/// inconclusive.
///
/// # Errors
/// As for [`read`].
pub(super) async fn finds(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Option<bool>> {
    let what = format!("looking for blob {} in {repository}", blob.digest);
    match once(host, &asking(repository, blob, &what)?, blob).await {
        Ok(Readable::Yes) => Ok(Some(true)),
        Err(Miss::Absent) => Ok(Some(false)),
        Err(Miss::Failed(failure))
            if failure.error.kind() == Kind::RateLimited || failure.error.stopped().is_some() =>
        {
            Err(failure.error)
        }
        Ok(_) | Err(_) => Ok(None),
    }
}

fn asking<'a>(repository: &Repository, blob: &Descriptor, what: &'a str) -> Result<Ask<'a>> {
    let path = format!("/v2/{}/blobs/{}", repository.path(), blob.digest);
    let ask = Ask::new(Method::GET, path, Scopes::push(repository), what);
    match blob.size.checked_sub(1) {
        Some(last) => ask.header("range", &format!("bytes={last}-{last}")),
        None => Ok(ask),
    }
}

/// Why a try has not settled whether the blob can be read.
enum Miss {
    Absent,
    /// The byte was announced and did not arrive.
    Broken,
    /// Refused for a reason that may pass.
    Refused(Failure),
    /// There was no answer, or the request was not allowed.
    Failed(Failure),
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Miss {
        Miss::Failed(failure)
    }
}

async fn once(host: &Host, ask: &Ask<'_>, blob: &Descriptor) -> Result<Readable, Miss> {
    let _lane = host.reads.enter().await;
    let reply = host.once(ask).await?;
    if is_transient(reply.status()) {
        return Err(Miss::Refused(ask.refused(reply).await));
    }
    let has = |length: u64| Readable::No(format!("it has {length} bytes instead of {}", blob.size));
    Ok(match (reply.status(), reply.content_length()) {
        (206, _) => return part(reply, blob, ask.what).await,
        // The registry ignores the range and sends everything, which is not worth reading.
        (200, Some(length)) if length != blob.size => match reply.header("content-type") {
            Some(kind) if is_html(kind) => {
                Readable::Unknown(format!("reading it is answered with a web page ({kind})"))
            }
            _ => has(length),
        },
        (200, _) => {
            reply.server.iter().for_each(ServerWork::answered);
            Readable::Yes
        }
        // 412: a policy of the project forbids pulling (Harbor).
        (401 | 403 | 412, _) if reply.own => Readable::Denied,
        (404 | 410, _) => return Err(Miss::Absent),
        (416, _) => Readable::No("it is shorter than its descriptor says".to_owned()),
        (status @ 400..=499, _) if !reply.own => Readable::PerhapsLost(format!("its storage answers with {status}")),
        (400..=499, _) => Readable::Failed(format!("reading it is answered with {}", reply.status())),
        (status, _) => Readable::Unknown(format!("reading it is answered with {status}")),
    })
}

/// The result of an answer that contains one byte, and states the length of the whole.
async fn part(reply: Reply, blob: &Descriptor, what: &str) -> Result<Readable, Miss> {
    let range = reply.header("content-range").and_then(ContentRange::parse);
    match range {
        Some(ContentRange { total: Some(total), .. }) if total != blob.size => {
            Ok(Readable::No(format!("it has {total} bytes instead of {}", blob.size)))
        }
        Some(ContentRange { start, end, .. }) if start == end && start.checked_add(1) == Some(blob.size) => {
            match reply.body(what, 1).await {
                Ok(byte) if byte.len() == 1 => Ok(Readable::Yes),
                _ => Err(Miss::Broken),
            }
        }
        _ => Ok(Readable::Unknown("reading it is answered with a range that was not requested".to_owned())),
    }
}
