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
    open(path, OFlags::NONBLOCK)
}

/// The same; a link at the end of the path is not followed.
///
/// # Errors
/// It is no plain file, or the system refuses.
pub fn open_plain_unlinked(path: &Path) -> io::Result<File> {
    open(path, OFlags::NONBLOCK | OFlags::NOFOLLOW)
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")),
    }
}
