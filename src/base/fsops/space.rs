//! Room on the medium, and when bytes go there.

use std::fs::File;
use std::num::NonZeroU64;
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use crate::base::error::{Error, Result};

/// Bytes that this user can still write in `directory`.
///
/// # Errors
/// The file system does not tell.
pub fn free_space(directory: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(directory);
    let stat = stat.map_err(|e| Error::disk("asking for the free space of", directory, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Reserves `length` bytes for `file`, so that a full disk is found before anything is fetched. On a file system that cannot
/// reserve, the file only gets that length.
///
/// # Errors
/// There is not enough room, or what else the disk says. `path` is for the message.
pub fn reserve(file: &File, path: &Path, length: u64) -> Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            file.set_len(length).map_err(|e| Error::disk("making room in", path, e))
        }
        Err(error) => Err(Error::disk("reserving room for", path, error.into())),
    }
}

/// Lets the kernel begin to write these bytes to the medium now, instead of collecting them for half a minute. Does not wait.
/// Linux begins when it hears that the bytes are not needed in memory.
pub fn begin_writing_out(file: &File, offset: u64, length: u64) {
    // It is only advice. A file system that does not take it syncs everything at the end.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}
