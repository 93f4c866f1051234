//! Link files: a digest, and nothing else. Registries do not trim, so neither do we.

use super::fault::{Fault, FaultKind};
use super::tree::{Found, Tree};
use crate::oci::Digest;

/// How often a bad link is read again: a registry at work empties a link before it writes it anew.
const READ_AGAIN: usize = 5;

/// Longer than any digest, in bytes.
const MAX_LINK: u64 = 256;

pub fn of_tag(repository: &str, tag: &str) -> String {
    format!("repositories/{repository}/_manifests/tags/{tag}/current/link")
}

pub fn of_tag_index(repository: &str, tag: &str, digest: &Digest) -> String {
    let algorithm = digest.algorithm().name();
    format!("repositories/{repository}/_manifests/tags/{tag}/index/{algorithm}/{}/link", digest.hex())
}

pub fn of_revision(repository: &str, digest: &Digest) -> String {
    let algorithm = digest.algorithm().name();
    format!("repositories/{repository}/_manifests/revisions/{algorithm}/{}/link", digest.hex())
}

pub fn of_layer(repository: &str, digest: &Digest) -> String {
    format!("repositories/{repository}/_layers/{}/{}/link", digest.algorithm().name(), digest.hex())
}

/// The digest that a link holds; `None` when there is no link.
///
/// # Errors
/// It is empty, holds something else, is no file, or cannot be read.
pub fn read(tree: &Tree, path: &str) -> Result<Option<Digest>, Fault> {
    let mut read = read_once(tree, path);
    for _ in 0..READ_AGAIN {
        match &read {
            Err(fault) if matches!(fault.kind, FaultKind::BadLink | FaultKind::Unreadable) => std::thread::yield_now(),
            _ => break,
        }
        read = read_once(tree, path);
    }
    read
}

fn read_once(tree: &Tree, path: &str) -> Result<Option<Digest>, Fault> {
    let bad = |what: &str| Fault::new(path, FaultKind::BadLink, what);
    let unreadable = |error: crate::error::Error| Fault::new(path, FaultKind::Unreadable, error.chain());
    let slice = match tree.file(path).map_err(unreadable)? {
        Found::File(slice) => slice,
        Found::Odd(what) => return Err(Fault::new(path, FaultKind::WrongType, what)),
        Found::Nothing => return Ok(None),
    };
    if slice.size() == 0 {
        return Err(bad("the link is empty"));
    }
    if slice.size() > MAX_LINK {
        return Err(bad("it is no link: it is longer than any digest"));
    }
    let content = slice.read_all(MAX_LINK).map_err(unreadable)?;
    let digest = std::str::from_utf8(&content).ok().and_then(|text| text.parse().ok());
    digest.map(Some).ok_or_else(|| bad(&format!("the link holds no digest but \"{}\"", content.escape_ascii())))
}

/// As [`read`], for a link that can only hold the digest it stands for.
///
/// # Errors
/// As there, or it holds another one.
pub fn read_own(tree: &Tree, path: &str, digest: &Digest) -> Result<bool, Fault> {
    match read(tree, path)? {
        Some(held) if held == *digest => Ok(true),
        Some(other) => Err(Fault::new(path, FaultKind::BadLink, format!("the link holds another digest: {other}"))),
        None => Ok(false),
    }
}
