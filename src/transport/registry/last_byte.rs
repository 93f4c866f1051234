//! Whether a blob that the registry claims to have can be read, by the cheapest request that no cache of metadata can answer: a GET
//! of its last byte (RFC 9110, "Range Requests"). It costs no more than a HEAD.
//!
//! **Threats.** A registry may ignore the range and send everything, or announce a byte that never comes: at most one byte is read,
//! and an answer that is longer is dropped. A redirect to a storage server gets no credentials (`wire`).

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

/// How often the byte may fail to come before the blob counts as unreadable: a file that was cut looks like a broken connection.
const MOST_BROKEN: u32 = 2;

pub(super) const NOT_COMING: &str = "its last byte does not come";
const ABSENT: &str = "it is not there when it is read";

/// What the registry said of the blob before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// It has it.
    Has,
    /// It has taken it in this run.
    Took,
}

/// Reads the last byte of `blob` in `repository`. An empty blob has no last byte, so all of it is requested.
/// What comes of it is remembered (`memory`).
///
/// # Errors
/// The registry wants to be left alone for longer than was allowed, or no longer answers anything.
pub(super) async fn read(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    find_out(host, repository, blob, Claim::Has).await
}

/// The same after an upload that was answered with success. [`Readable::No`] is sure then, after as many tries as are allowed,
/// and anything else that keeps the byte away is not tried again.
///
/// # Errors
/// As [`read`].
pub(super) async fn read_uploaded(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    find_out(host, repository, blob, Claim::Took).await
}

async fn find_out(host: &Host, repository: &Repository, blob: &Descriptor, claim: Claim) -> Result<Readable> {
    let what = format!("reading the last byte of blob {} in {repository}", blob.digest);
    let ask = asking(repository, blob, &what)?;
    let mut tries = match host.tries_of(&what, &blob.digest, Work::Content) {
        Ok(tries) => tries,
        // The registry has answered, each time with an error of its own.
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
            // Where only the storage was given up that the registry redirects to, the registry may still be asked.
            if is_over && host.pass(&what).await.is_err() {
                return Err(error);
            }
            break otherwise;
        }
    };
    host.memory.proofs.note(repository, blob, &found);
    Ok(found)
}

/// As what a try failed, and what that means if it was the last one.
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
            // Its file may be damaged, or not readable.
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

/// Its bytes have arrived in this run: a mount proves nothing of them.
fn was_uploaded(host: &Host, repository: &Repository, blob: &Descriptor) -> bool {
    let written = &host.memory.written;
    written.has_blob(repository, &blob.digest) && !written.is_mounted(repository, &blob.digest)
}

/// Whether the last byte comes, in one try: HEAD has said that the blob is not there. `None`: the answer says neither.
///
/// # Errors
/// As [`read`].
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

/// Why a try says nothing of the blob yet.
enum Miss {
    Absent,
    /// The byte was announced and did not come.
    Broken,
    /// Refused for a reason that may pass.
    Refused(Failure),
    /// There was no answer, or no leave to ask.
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
        // It sends everything, which is not worth reading.
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

/// One byte, and the length of the whole beside it.
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
