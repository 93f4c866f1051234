//! Blobs that are files on this machine, so that they can be linked instead of copied.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Stat;

use super::Slice;
use crate::error::Result;
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
}

/// A file by its path below an open directory, and which file that was.
#[derive(Clone, Debug)]
pub struct Linkable {
    pub directory: Arc<OwnedFd>,
    pub path: String,
    /// Whoever links it compares: the path may lead elsewhere by then.
    pub identity: Identity,
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
