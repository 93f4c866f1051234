//! Whether a blob that the registry claims to have can be read, by the cheapest request that no cache of metadata can answer: a GET
//! of its last byte (RFC 9110, "Range Requests"). It costs no more than a HEAD.
//!
//! **Threats.** A registry may ignore the range and send everything, or announce a byte that never comes: at most one byte is read,
//! and an answer that is longer is dropped. A redirect to a storage server gets no credentials (`wire`).

use reqwest::Method;

use super::auth::Scopes;
use super::download::ContentRange;
use super::failure::{Failure, is_transient};
use super::host::{Ask, Host};
use super::reply::Reply;
use crate::content::Readable;
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Repository};

/// How often the byte may fail to come before the blob counts as unreadable: a file that was cut looks like a broken connection.
const MOST_BROKEN: u32 = 2;

/// Reads the last byte of `blob` in `repository`. Of an empty blob there is none, so the whole of it is asked for.
///
/// # Errors
/// The registry wants to be left alone for longer than was allowed, or no longer answers anything.
pub(super) async fn read(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
    let what = format!("reading the last byte of blob {} in {repository}", blob.digest);
    let ask = asking(repository, blob, &what)?;
    let (mut tries, mut broken) = (host.tries(&what), 0);
    loop {
        let (failure, otherwise) = match once(host, &ask, blob).await {
            Ok(Answer::Absent) => {
                let absent = Readable::No("it is not there when it is read".to_owned());
                let arrived = &host.memory.arrived;
                let was_uploaded =
                    arrived.has_blob(repository, &blob.digest) && !arrived.is_mounted(repository, &blob.digest);
                if !was_uploaded {
                    return Ok(absent);
                }
                let error = Error::new(Kind::NotFound, format!("{what}: it was uploaded, and is said not to be there"));
                (Failure::soon(error), absent)
            }
            Ok(Answer::Given(readable)) => return Ok(readable),
            Ok(Answer::Broken) if broken + 1 < MOST_BROKEN => {
                broken += 1;
                continue;
            }
            Ok(Answer::Broken) => return Ok(Readable::No("its last byte does not come".to_owned())),
            Ok(Answer::Refused(failure)) => {
                let why = failure.error.chain();
                (failure, Readable::No(why))
            }
            Err(failure) => {
                let why = failure.error.chain();
                let denied = matches!(failure.error.kind(), Kind::Unauthorized | Kind::Refused);
                (failure, if denied { Readable::Denied } else { Readable::Unknown(why) })
            }
        };
        match tries.again(failure).await {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::RateLimited || error.stopped().is_some() => return Err(error),
            Err(_) => return Ok(otherwise),
        }
    }
}

/// Whether the last byte comes, in one try: HEAD has said that the blob is not there. `None`: the answer says neither.
///
/// # Errors
/// As [`read`].
pub(super) async fn finds(host: &Host, repository: &Repository, blob: &Descriptor) -> Result<Option<bool>> {
    let what = format!("looking for blob {} in {repository}", blob.digest);
    match once(host, &asking(repository, blob, &what)?, blob).await {
        Ok(Answer::Given(Readable::Yes)) => Ok(Some(true)),
        Ok(Answer::Absent) => Ok(Some(false)),
        Ok(_) => Ok(None),
        Err(failure) if failure.error.kind() == Kind::RateLimited || failure.error.stopped().is_some() => {
            Err(failure.error)
        }
        Err(_) => Ok(None),
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

enum Answer {
    Given(Readable),
    Absent,
    /// The byte was announced and did not come.
    Broken,
    /// For a reason that may pass.
    Refused(Failure),
}

async fn once(host: &Host, ask: &Ask<'_>, blob: &Descriptor) -> Result<Answer, Failure> {
    let _lane = host.reads.acquire().await.ok();
    let reply = host.once(ask).await?;
    if is_transient(reply.status()) {
        return Ok(Answer::Refused(ask.refused(reply).await));
    }
    let has = |length: u64| Readable::No(format!("it has {length} bytes instead of {}", blob.size));
    Ok(Answer::Given(match (reply.status(), reply.content_length()) {
        (206, _) => return Ok(part(reply, blob, ask.what).await),
        // It sends everything, which is not worth reading.
        (200, Some(length)) if length != blob.size => has(length),
        (200, _) => Readable::Yes,
        (401 | 403, _) if reply.own => Readable::Denied,
        (404 | 410, _) => return Ok(Answer::Absent),
        (416, _) => Readable::No("it is shorter".to_owned()),
        (status @ 400..=499, _) if !reply.own => Readable::PerhapsLost(format!("its storage answers with {status}")),
        (400..=499, _) => Readable::No(format!("reading it is answered with {}", reply.status())),
        (status, _) => Readable::Unknown(format!("reading it is answered with {status}")),
    }))
}

/// One byte, and the length of the whole beside it.
async fn part(reply: Reply, blob: &Descriptor, what: &str) -> Answer {
    let range = reply.header("content-range").and_then(ContentRange::parse);
    match range {
        Some(ContentRange { total: Some(total), .. }) if total != blob.size => {
            Answer::Given(Readable::No(format!("it has {total} bytes instead of {}", blob.size)))
        }
        Some(ContentRange { start, end, .. }) if start == end && start + 1 == blob.size => {
            match reply.body(what, 1).await {
                Ok(byte) if byte.len() == 1 => Answer::Given(Readable::Yes),
                _ => Answer::Broken,
            }
        }
        _ => {
            Answer::Given(Readable::Unknown("reading it is answered with another range than was asked for".to_owned()))
        }
    }
}
