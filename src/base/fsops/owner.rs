//! Giving files to another user, who may already own some of the directories and change names in them meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::dir::{Dir, one};
use super::walk::Walked;
use crate::base::error::{Error, Result};

/// A user and a group, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    /// Gives an open file away; `path` is for the message.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take(self, file: &File, path: &Path) -> Result<()> {
        give(file, self).map_err(|e| Error::disk("changing the owner of", path, e.into()))
    }
}

impl Dir {
    /// Gives the directory itself away.
    ///
    /// # Errors
    /// The system refuses.
    pub fn give(&self, owner: Owner) -> Result<()> {
        give(self, owner).map_err(|e| Error::disk("changing the owner of", self.path(), e.into()))
    }

    /// Gives away what has the name and everything below it; returns how many files keep their owner because they
    /// have further names.
    ///
    /// A file in a directory of another user is given away only if it belongs to that user. In its own directory a user could
    /// put a link to any file in place of ours.
    ///
    /// # Errors
    /// The system refuses.
    pub fn give_tree(&self, name: impl AsRef<OsStr>, owner: Owner) -> Result<u64> {
        let mut kept = 0;
        self.walk(name.as_ref(), &mut |found| {
            match found.dir {
                Some(dir) => dir.give(owner)?,
                None => {
                    let given = give_file(found, owner);
                    let given = given.map_err(|e| found.parent.fail("changing the owner of", found.name, e))?;
                    kept += u64::from(!given);
                }
            }
            Ok(())
        })?;
        Ok(kept)
    }
}

/// `false`: it has further names.
fn give_file(found: &Walked<'_>, owner: Owner) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Looked at and given away by one descriptor: the name may lead to another file in between.
    let file = rustix::fs::openat(found.parent, one(found.name)?, flags, Mode::empty())?;
    let (stat, directory) = (rustix::fs::fstat(&file)?, rustix::fs::fstat(found.parent)?);
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink > 1 {
        return Ok(false);
    }
    if stat.st_uid == directory.st_uid {
        give(file, owner)?;
    }
    Ok(true)
}

fn give(file: impl AsFd, owner: Owner) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    rustix::fs::chownat(file, c"", Some(user), Some(group), AtFlags::EMPTY_PATH)
}
