//! Small files that are replaced at once and for good: no reader sees half of one, and no power cut brings the former one back.
//!
//! The room knows paths and bytes, not what they mean, and adds no words to the errors of the system.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// A file beside `path`, for its owner alone, removed unless it takes the name of `path`.
pub fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let created = tempfile::Builder::new().prefix(".gapferry-").tempfile_in(parent(path));
    // Its own error would name the temporary file.
    created.map_err(|e| e.raw_os_error().map_or(e, io::Error::from_raw_os_error))
}

/// Gives `file`, written [`beside`] it, the name of `path`.
///
/// # Errors
/// `path` is what it was, unless it is the last step that fails: then it is replaced, but perhaps not after a power cut.
pub fn replace(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_directory(parent(path))
}

/// A name that was given, taken or changed in `directory` reaches the medium.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // Not every file system knows this for directories, and who may write in one need not be allowed to read it.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

/// The directory that `path` is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
