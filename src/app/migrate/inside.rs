//! Whether an output lies in the storage, or the storage in it.

use std::path::{Component, Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::transport::storage::Storage;

/// A storage is only read: nothing is made in it, nor on the way to what is made.
///
/// # Errors
/// `to` lies in the storage.
pub fn refuse_inside(storage: &Storage, to: &Path) -> Result<()> {
    let Ok(storage) = storage.shown("").canonicalize() else { return Ok(()) };
    let absolute = std::path::absolute(to).map_err(|e| Error::disk("creating", to, e))?;
    let (mut at, mut is_inside) = (PathBuf::new(), false);
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(at.pop()),
            part => at.push(part),
        }
        match at.canonicalize() {
            Ok(real) => at = real,
            // What is not there yet is made, and is no link.
            Err(_) => is_inside |= at.starts_with(&storage),
        }
    }
    match is_inside || at.starts_with(&storage) {
        true => Err(Error::input(format!("{} lies in the storage, which is only read", to.display()))),
        false => Ok(()),
    }
}

/// Where the storage lies below `to`, if it does: an image could be called like a place in it.
pub fn storage_below(storage: &Storage, to: &Path) -> Option<PathBuf> {
    let (storage, to) = (storage.shown("").canonicalize().ok()?, to.canonicalize().ok()?);
    storage.strip_prefix(to).ok().map(Path::to_owned)
}
