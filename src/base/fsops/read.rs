//! Opens files for reading by the path that the user gave. Links are followed.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file. A pipe in its place does not make the program wait for a writer.
///
/// # Errors
/// It is not a regular file, or the system refuses.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let open = |flags: OFlags| File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let is_plain = || path.metadata().map(|metadata| metadata.is_file());
    plain(without_waiting(open, is_plain)?)
}

/// Opens with `open` without waiting for the writer of a pipe, but waits for a regular file on which another process, such as
/// a file server, holds a lease.
///
/// # Errors
/// The system refuses.
pub fn without_waiting(
    open: impl Fn(OFlags) -> io::Result<File>,
    is_plain: impl FnOnce() -> io::Result<bool>,
) -> io::Result<File> {
    match open(OFlags::NONBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_plain()? => open(OFlags::empty()),
        other => other,
    }
}

/// Returns the file if it is a regular one.
///
/// # Errors
/// It is a directory, a pipe or a device.
pub fn plain(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}
