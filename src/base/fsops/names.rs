//! Paths as the user gives them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use crate::base::error::{Error, Result};

/// The directory that contains `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `path` with `suffix` appended to its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `path` with a last component that can be renamed: without a trailing `/`, with `.` resolved and a link followed. Nothing
/// has to exist there.
///
/// # Errors
/// `path` is a dangling link.
pub fn canonicalize(path: &Path) -> Result<PathBuf> {
    let plain: PathBuf = path.components().collect();
    let is_link = plain.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    if plain.file_name().is_some() && !is_link {
        return Ok(plain);
    }
    fs::canonicalize(&plain).map_err(|e| Error::disk("opening", &plain, e))
}

/// Whether a file system, or a part of one, is mounted at `path`. Such a directory cannot be renamed.
pub fn is_mount_point(path: &Path) -> bool {
    let asked = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    asked.is_ok_and(|answer| answer.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
