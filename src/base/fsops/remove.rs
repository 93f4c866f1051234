//! Removes names.

use std::ffi::OsStr;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::dir::{Dir, one};
use crate::base::error::Result;

impl Dir {
    /// Removes a file or link, if the name exists.
    ///
    /// # Errors
    /// It is a directory, or the system refuses.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.unlink(name.as_ref(), AtFlags::empty())
    }

    /// Removes an empty directory, if the name exists.
    ///
    /// # Errors
    /// It is not an empty directory, or the system refuses.
    pub fn remove_dir(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.unlink(name.as_ref(), AtFlags::REMOVEDIR)
    }

    fn unlink(&self, name: &OsStr, flags: AtFlags) -> Result<()> {
        match one(name).and_then(|name| rustix::fs::unlinkat(self, name, flags)) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.fail("removing", name, errno)),
        }
    }

    /// Removes a file, a link, or a directory with everything in it, if the name exists.
    ///
    /// # Errors
    /// The system refuses; part of it may be gone.
    pub fn remove_tree(&self, name: impl AsRef<OsStr>) -> Result<()> {
        self.walk(name.as_ref(), &mut |found| match found.dir {
            Some(_) => found.parent.remove_dir(found.name),
            None => found.parent.remove(found.name),
        })
    }
}
