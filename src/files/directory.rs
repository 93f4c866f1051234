//! The directory form: which files there are. Links are recorded, never followed.

use std::fs::File;
use std::path::Path;

use super::Found;
use super::found::MAX_DEPTH;
use crate::archive::tar::{Entries, Place};
use crate::base::error::{Error, Result};
use crate::base::fsops;

/// Finds every regular file below `root`.
pub fn scan(root: &Path, found: &mut Found) -> Result<()> {
    for entry in walkdir::WalkDir::new(root).min_depth(1).max_depth(MAX_DEPTH).follow_links(false) {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(root).to_owned();
            let cause = e.into_io_error();
            Error::disk("reading", &path, cause.unwrap_or_else(|| std::io::Error::other("a loop of links")))
        })?;
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let name = relative.as_os_str().as_encoded_bytes();
        let kind = entry.file_type();
        if kind.is_file() {
            let size = entry.metadata().map_err(|e| Error::disk("reading", entry.path(), e.into()))?.len();
            found.file(name, Place { offset: 0, size });
        } else if kind.is_symlink() {
            found.fault(name, "it is a symbolic link");
        } else if !kind.is_dir() {
            found.fault(name, "it is neither a file nor a directory");
        } else if entry.depth() == MAX_DEPTH {
            found.fault(name, "directories nest deeper than in any layout; what is in it is not read");
        }
        found.count(root)?;
    }
    found.faults.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(())
}

/// Opens a file that the scan has found, unless something else has its name since.
pub fn open(path: &Path) -> Result<File> {
    fsops::open_plain_unlinked(path).map_err(|e| Error::disk("opening", path, e))
}
