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
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    plain(File::options().read(true).custom_flags(flags).open(path)?)
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
