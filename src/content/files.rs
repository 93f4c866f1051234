//! Blobs that are files on this machine, so that they can be linked instead of copied.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, FlockOperation, Stat};
use rustix::io::Errno;

use super::Slice;
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events};
use crate::oci::{Digest, Repository};

/// A source whose blobs are files, or parts of one.
pub trait Files: Sync {
    /// The bytes of a blob, unproven.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn file(&self, repository: &Repository, digest: &Digest) -> Result<Slice>;

    /// The blob as a file that may get another name; `None` where it is a part of one.
    ///
    /// # Errors
    /// As [`Files::file`].
    fn linkable(&self, repository: &Repository, digest: &Digest) -> Result<Option<Linkable>>;

    /// The device that the files are on; `None` where none can be linked.
    fn device(&self) -> Option<u64>;
}

/// How blobs that are files get to another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMode {
    /// Hard links, else reflinks, else copies.
    Auto,
    Hard,
    Reflink,
    Copy,
}

/// What came of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    Done,
    /// The file system does not link this file to there.
    Refused(Errno),
    /// The path leads to another file than it did, or to none; nothing was linked.
    Changed,
}

/// A file by its path below an open directory, and which file that was.
#[derive(Clone, Debug)]
pub struct Linkable {
    pub directory: Arc<OwnedFd>,
    pub path: String,
    /// Whoever links it compares: the path may lead elsewhere by then.
    pub identity: Identity,
}

impl Linkable {
    /// Gives whatever is at the path another name, which nothing has yet; a refusal is what says that it cannot be linked to
    /// there.
    ///
    /// # Errors
    /// All others.
    pub fn name_at(&self, directory: impl AsFd, name: &str) -> Result<Result<(), Errno>, Errno> {
        // Without a flag, a link at the end of the path is not followed.
        match rustix::fs::linkat(&self.directory, &self.path, directory, name, AtFlags::empty()) {
            Err(errno @ (Errno::XDEV | Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS)) => Ok(Err(errno)),
            other => other.map(Ok),
        }
    }

    /// The same for the file that was meant and no other.
    ///
    /// # Errors
    /// As there.
    pub fn link_at(&self, directory: impl AsFd, name: &str) -> Result<Linked, Errno> {
        if let Err(errno) = self.name_at(&directory, name)? {
            return Ok(Linked::Refused(errno));
        }
        if self.is_it(&rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?) {
            return Ok(Linked::Done);
        }
        rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
        Ok(Linked::Changed)
    }

    /// Whether that is the file that was meant.
    pub fn is_it(&self, stat: &Stat) -> bool {
        Identity::of(stat) == self.identity && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
    }

    /// The path leads to another file than it did.
    pub fn changed(&self) -> Error {
        Error::damaged(format!("{} has become another file while it was read", self.path))
    }
}

/// Keeps a directory for this run until it is closed. Where the file system has no locks, two runs at once are the
/// operator's to avoid.
///
/// # Errors
/// Another run has it.
pub fn keep(directory: impl AsFd, path: &Path) -> Result<()> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => {
            Err(Error::input(format!("writing {}: another gapferry is writing it", path.display())))
        }
        _ => Ok(()),
    }
}

/// Tells why blobs are not linked, each reason once.
pub struct Reasons {
    events: Events,
    told: Mutex<HashSet<&'static str>>,
}

impl Reasons {
    pub fn new(events: Events) -> Reasons {
        Reasons { events, told: Mutex::default() }
    }

    /// `instead`: what becomes of these blobs.
    pub fn tell(&self, why: &'static str, instead: &str) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(why) {
            self.events.report(Event::Notice(format!("not every blob is linked to the storage: {why}; {instead}")));
        }
    }
}

/// Why the file system did not link, for people.
pub fn why_not_linked(errno: Errno) -> &'static str {
    match errno {
        Errno::XDEV => "it is on another file system (EXDEV)",
        Errno::MLINK => "a file there has as many names as it can (EMLINK)",
        Errno::PERM => "the system does not allow it (EPERM): files of others, or a file system without links",
        _ => "the file system knows no links",
    }
}

/// Which file it is: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

impl Identity {
    pub fn of(stat: &Stat) -> Identity {
        // Their types differ between platforms.
        #[allow(clippy::unnecessary_cast)]
        Identity(stat.st_dev as u64, stat.st_ino as u64)
    }

    /// Whether it is the file that `directory` lists with this inode. Where directories tell other inodes than files do, no
    /// file is.
    pub fn is_listed(&self, directory: Identity, inode: u64) -> bool {
        *self == Identity(directory.0, inode)
    }
}
