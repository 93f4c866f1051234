//! Files that are only read, by the path that the user gave: links in it are followed.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a plain file. A pipe that is there instead does not make the program wait for a writer.
///
/// # Errors
/// It is no plain file, or the system refuses.
pub fn open_plain(path: &Path) -> io::Result<File> {
    let open = |flags: OFlags| File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let is_plain = || path.metadata().map(|metadata| metadata.is_file());
    plain(without_waiting(open, is_plain)?)
}

/// Opens by `open` without waiting for a writer; a plain file that another holds a lease on (a file server, say) is waited for.
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

/// The file, if it is a plain one.
///
/// # Errors
/// It is a directory, a pipe or a device.
pub fn plain(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")),
    }
}
