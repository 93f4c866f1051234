//! Whether a blob that the registry claims to have can be read. A GET of its last byte (RFC 9110, "Range Requests") is
//! the cheapest request that no cache of metadata can answer. It costs no more than a HEAD.
//!
//! **Threats.** A registry may ignore the range and send everything, or announce a byte that it never sends. At most
//! one byte is read, and a longer answer is dropped. A redirect to a storage server gets no credentials (`wire`).

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

/// How often the connection may break before the byte, until the blob counts as unreadable: a truncated file looks like
/// a broken connection.
const MOST_BROKEN: u32 = 2;

pub(super) const NOT_COMING: &str = "its last byte does not come";
const ABSENT: &str = "it is not there when it is read";

/// What the registry said about the blob before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// That it has the blob.
    Has,
    /// It accepted the blob in this run.
    Took,
}

/// Reads the last byte of `blob` in `repository`. An empty blob has no last byte, so all of it is requested. The result
/// is remembered (`memory`).
///
/// # Errors
/// The registry asks for a longer pause than is allowed, or no longer answers at all.
pub(super) async fn read(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    find_out(host, repository, blob, Claim::Has).await
}

/// Does the same after an upload that the registry accepted. [`Readable::No`] is then certain, after all retries; any
/// other failure to read the byte is not retried.
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
        // The registry answered every time with an error of its own.
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
            // If only the storage server that the registry redirects to was given up, the registry may still be asked.
            if is_over && host.pass(&what).await.is_err() {
                return Err(error);
            }
            break otherwise;
        }
    };
    host.memory.proofs.note(repository, blob, &found);
    Ok(found)
}

/// Returns the failure of a try, and its meaning if the try was the last one.
fn classify(miss: Miss, what: &str) -> (Failure, Readable) {
    match miss {
        Miss::Absent => {
            let error = Error::new(Kind::NotFound, format!("{what}: it was uploaded, and is said not to be there"));
            (Failure::soon(error), Readable::No(ABSENT.to_owned()))
        }
        Miss::Broken => {
            let error = Error::new(Kind::Network, format!("{what}: {NOT_COMING}"));
            (Failure::soon(error), Readable::No(NOT_COMING.to_owned()))
        }
        Miss::Refused(mut failure) => {
            let why = failure.error.chain();
            // The file may be damaged or unreadable.
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

/// Whether the bytes were uploaded in this run. A mount does not prove them.
fn was_uploaded(host: &Host, repository: &Repository, blob: &Descriptor) -> bool {
    let written = &host.memory.written;
    written.has_blob(repository, &blob.digest) && !written.is_mounted(repository, &blob.digest)
}

/// Tries once to read the last byte, after HEAD has said that the blob does not exist. `None` if the answer shows
/// neither.
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

/// Why a try does not yet show anything about the blob.
enum Miss {
    Absent,
    /// The byte was announced and not sent.
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
        // The registry sends everything; do not read it.
        (200, Some(length)) if length != blob.size => match reply.header("content-type") {
            Some(kind) if is_html(kind) => Readable::Unknown(format!("reading it is answered with a page ({kind})")),
            _ => has(length),
        },
        (200, _) => {
            reply.server.iter().for_each(ServerWork::answered);
            Readable::Yes
        }
        // 412: a policy of the project forbids pulling (Harbor).
        (401 | 403 | 412, _) if reply.own => Readable::Denied,
        (404 | 410, _) => return Err(Miss::Absent),
        (416, _) => Readable::No("it is shorter".to_owned()),
        (status @ 400..=499, _) if !reply.own => Readable::PerhapsLost(format!("its storage answers with {status}")),
        (400..=499, _) => Readable::Failed(format!("reading it is answered with {}", reply.status())),
        (status, _) => Readable::Unknown(format!("reading it is answered with {status}")),
    })
}

/// Reads one byte, and the total length next to it.
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
        _ => Ok(Readable::Unknown("reading it is answered with another range than was asked for".to_owned())),
    }
}
