//! Link files: a digest, and nothing else. Registries do not trim, so neither do we.

use std::time::Duration;

use super::problem::{StorageProblem, StorageProblemKind};
use super::tree::{FoundFile, StorageTree};
use crate::oci::Digest;

/// How often a bad link is read again: a registry at work empties a link before it writes it anew.
const READ_AGAIN: usize = 5;

/// The waits, in milliseconds, for an empty link that was written to just now: between emptying and writing it the registry
/// may have lost its turn.
const PATIENCE: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// How long ago a link was written to that a registry may still be at, in seconds.
const RECENT: u64 = 10;

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
pub fn read(tree: &StorageTree, path: &str) -> Result<Option<Digest>, StorageProblem> {
    let mut read = read_once(tree, path);
    for _ in 0..READ_AGAIN {
        match &read {
            Err(problem) if matches!(problem.kind, StorageProblemKind::BadLink | StorageProblemKind::Unreadable) => {
                std::thread::yield_now()
            }
            _ => break,
        }
        read = read_once(tree, path);
    }
    for wait in PATIENCE {
        if read.is_ok() || !is_just_emptied(tree, path) {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "another program's write sends no event")]
        std::thread::sleep(Duration::from_millis(wait));
        read = read_once(tree, path);
    }
    read
}

/// One that is empty for long stays so.
fn is_just_emptied(tree: &StorageTree, path: &str) -> bool {
    let Ok(FoundFile::File(slice)) = tree.file(path) else { return false };
    let age = slice.modified().map(|time| time.elapsed().unwrap_or_default());
    slice.size() == 0 && age.is_some_and(|age| age < Duration::from_secs(RECENT))
}

fn read_once(tree: &StorageTree, path: &str) -> Result<Option<Digest>, StorageProblem> {
    let bad = |what: &str| StorageProblem::new(path, StorageProblemKind::BadLink, what);
    let unreadable =
        |error: crate::base::error::Error| StorageProblem::new(path, StorageProblemKind::Unreadable, error.chain());
    let slice = match tree.file(path).map_err(unreadable)? {
        FoundFile::File(slice) => slice,
        FoundFile::Odd(what) => return Err(StorageProblem::new(path, StorageProblemKind::WrongType, what)),
        FoundFile::Nothing => return Ok(None),
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
/// As for [`read`], or the link contains another digest.
pub fn read_own(tree: &StorageTree, path: &str, digest: &Digest) -> Result<bool, StorageProblem> {
    match read(tree, path)? {
        Some(held) if held == *digest => Ok(true),
        Some(other) => Err(StorageProblem::new(
            path,
            StorageProblemKind::BadLink,
            format!("the link holds another digest: {other}"),
        )),
        None => Ok(false),
    }
}
