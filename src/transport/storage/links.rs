//! Link files: a digest, and nothing else. Registries do not trim, so neither do we.

use super::tree::{Found, Tree};
use crate::error::{Error, Result};
use crate::oci::Digest;

/// Longer than any digest, in bytes.
const MAX_LINK: u64 = 256;

pub fn of_tag(repository: &str, tag: &str) -> String {
    format!("repositories/{repository}/_manifests/tags/{tag}/current/link")
}

pub fn of_revision(repository: &str, digest: &Digest) -> String {
    let algorithm = digest.algorithm().name();
    format!("repositories/{repository}/_manifests/revisions/{algorithm}/{}/link", digest.hex())
}

/// The digest that a link holds; `None` when there is no link.
///
/// # Errors
/// It is empty, holds something else, is no file, or cannot be read.
pub fn read(tree: &Tree, path: &str) -> Result<Option<Digest>> {
    let wrong = |what: &str| Error::damaged(format!("{}: {what}", tree.shown(path).display()));
    let slice = match tree.file(path)? {
        Found::File(slice) => slice,
        Found::Odd(what) => return Err(wrong(what)),
        Found::Nothing => return Ok(None),
    };
    if slice.size() == 0 {
        return Err(wrong("the link is empty"));
    }
    if slice.size() > MAX_LINK {
        return Err(wrong("it is no link: it is longer than any digest"));
    }
    let content = slice.read_all(MAX_LINK)?;
    let digest = std::str::from_utf8(&content).ok().and_then(|text| text.parse().ok());
    digest.map(Some).ok_or_else(|| wrong(&format!("the link holds no digest but \"{}\"", content.escape_ascii())))
}
