//! Link files, which contain only a digest. Registries do not trim whitespace, so gapferry does not either.

use std::time::Duration;

use super::problem::{StorageProblem, StorageProblemKind};
use super::tree::{FoundFile, StorageTree};
use crate::oci::Digest;

/// How often to read a bad link again: a running registry empties a link before it writes it.
const READ_AGAIN: usize = 5;

/// Delays in milliseconds for an empty link that was just modified: the registry may be interrupted between emptying and
/// writing it.
const PATIENCE: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// Age in seconds up to which a registry may still be writing a link.
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

/// The digest in a link, or `None` if the link does not exist.
///
/// # Errors
/// The link is empty, contains something else, is not a file, or cannot be read.
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

/// A link that has been empty for long stays empty.
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
        return Err(bad("it is not a link: it is longer than a digest"));
    }
    let content = slice.read_all(MAX_LINK).map_err(unreadable)?;
    let digest = std::str::from_utf8(&content).ok().and_then(|text| text.parse().ok());
    digest
        .map(Some)
        .ok_or_else(|| bad(&format!("the link contains \"{}\" instead of a digest", content.escape_ascii())))
}

/// As [`read`], for a link that must contain its own digest.
///
/// # Errors
/// As for [`read`], or the link contains another digest.
pub fn read_own(tree: &StorageTree, path: &str, digest: &Digest) -> Result<bool, StorageProblem> {
    match read(tree, path)? {
        Some(held) if held == *digest => Ok(true),
        Some(other) => Err(StorageProblem::new(
            path,
            StorageProblemKind::BadLink,
            format!("the link contains another digest: {other}"),
        )),
        None => Ok(false),
    }
}
