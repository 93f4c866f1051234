//! Checks whether an output is inside the storage, or the storage inside the output.

use std::path::{Component, Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::transport::storage::Storage;

/// Number of directories from the root of a storage to `docker/registry/v2`, both included.
const ROOTS: usize = 4;

/// Refuses an output that is a storage, is inside one, or would create a directory in it: a storage is only read.
///
/// # Errors
/// `to` is the storage or inside it.
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
            // A path that does not exist will be created, so it is not a link.
            Err(_) => is_inside |= at.starts_with(&storage),
        }
    }
    if is_inside || at.starts_with(&storage) {
        return Err(Error::input(format!("{} is inside the storage, which gapferry only reads", to.display())));
    }
    if storage.ancestors().take(ROOTS).any(|root| root == at) {
        let text = "is the storage itself, which gapferry only reads: name another directory";
        return Err(Error::input(format!("{} {text}", to.display())));
    }
    Ok(())
}

/// Returns the path of the storage below `to`, if it is there: an image could have the name of a place in it.
pub fn storage_below(storage: &Storage, to: &Path) -> Option<PathBuf> {
    let (storage, to) = (storage.shown("").canonicalize().ok()?, to.canonicalize().ok()?);
    storage.strip_prefix(to).ok().map(Path::to_owned)
}
