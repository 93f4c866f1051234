//! Hard-links a file whose path may lead to another file by then.

use std::ffi::OsStr;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::dir::{Dir, one};
use super::identity::{Identity, Stat};
use crate::base::error::Error;

/// The outcome of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    Done,
    /// The file system does not allow this link.
    Refused(Errno),
    /// The path now leads to another file or to nothing; nothing was linked.
    Changed,
}

/// A file by its path below an open directory, with its identity.
#[derive(Clone, Debug)]
pub struct Linkable {
    pub directory: Dir,
    pub path: String,
    /// The caller compares it, because the path may lead to another file by then.
    pub identity: Identity,
}

impl Linkable {
    /// Links the file at the path to a new name. The inner error is a refusal: the file system does not allow this link.
    ///
    /// # Errors
    /// The system fails for another reason.
    pub fn name_at(&self, directory: &Dir, name: &str) -> Result<Result<(), Errno>, Errno> {
        let name = one(OsStr::new(name))?;
        // Without a flag, a link at the end of the path is not followed.
        match rustix::fs::linkat(&self.directory, &self.path, directory, name, AtFlags::empty()) {
            Err(errno @ (Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS)) => Ok(Err(errno)),
            other => other.map(Ok),
        }
    }

    /// Links the intended file and no other.
    ///
    /// # Errors
    /// The system fails for another reason than those of [`Linked::Refused`].
    pub fn link_at(&self, directory: &Dir, name: &str) -> Result<Linked, Errno> {
        if let Err(errno) = self.name_at(directory, name)? {
            return Ok(Linked::Refused(errno));
        }
        if self.is_it(&rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?) {
            return Ok(Linked::Done);
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
        Ok(Linked::Changed)
    }

    /// Whether this is the intended file.
    pub fn is_it(&self, stat: &Stat) -> bool {
        Identity::of(stat) == self.identity && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
    }

    /// The error for a path that leads to another file now.
    pub fn changed(&self) -> Error {
        Error::damaged(format!("{} was replaced while it was being read", self.path))
    }
}
