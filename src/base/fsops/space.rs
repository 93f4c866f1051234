//! Space on the medium, and when bytes are written to it.

use std::fs::File;
use std::num::NonZeroU64;
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use crate::base::error::{Error, Result};

/// Bytes that this user can still write in `directory`.
///
/// # Errors
/// The file system does not say.
pub fn free_space(directory: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(directory);
    let stat = stat.map_err(|e| Error::disk("reading the free space of", directory, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Reserves `length` bytes for `file`, so that a full disk is noticed before anything is fetched. On a file system that cannot
/// reserve space, it only sets the length.
///
/// # Errors
/// There is not enough space, or the disk fails. `path` is for the message.
pub fn reserve(file: &File, path: &Path, length: u64) -> Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            file.set_len(length).map_err(|e| Error::disk("reserving space for", path, e))
        }
        Err(error) => Err(Error::disk("reserving space for", path, error.into())),
    }
}

/// Asks the kernel to start writing these bytes to the medium now instead of collecting them for half a minute. Does not wait.
/// Linux starts when it learns that the bytes are no longer needed in memory.
pub fn begin_writing_out(file: &File, offset: u64, length: u64) {
    // This is only advice. A file system that ignores it writes everything at the final sync.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}
