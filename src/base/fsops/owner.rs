//! Changes the owner of files. The new owner may already own some of the directories and change names in them meanwhile.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::dir::{Dir, one};
use super::walk::Walked;
use crate::base::error::{Error, Result};

/// A numeric user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    pub group: u32,
}

impl Owner {
    /// Changes the owner of an open file; `path` is for the message.
    ///
    /// # Errors
    /// The system refuses.
    pub fn take(self, file: &File, path: &Path) -> Result<()> {
        give(file, self).map_err(|e| Error::disk("changing the owner of", path, e.into()))
    }
}

impl Dir {
    /// Changes the owner of the directory itself.
    ///
    /// # Errors
    /// The system refuses.
    pub fn give(&self, owner: Owner) -> Result<()> {
        give(self, owner).map_err(|e| Error::disk("changing the owner of", self.path(), e.into()))
    }

    /// Changes the owner of a name and everything below it. Returns the number of files that keep their owner because they
    /// have other hard links.
    ///
    /// A file in another user's directory changes its owner only if that user already owns it: in their own directory, users
    /// can put a link to any file in place of ours.
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

/// Returns `false` if the file has other hard links.
fn give_file(found: &Walked<'_>, owner: Owner) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Checked and changed through one descriptor: the name may lead to another file in between.
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
