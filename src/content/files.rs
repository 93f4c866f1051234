//! Blobs that are files on this machine, so that they can be linked instead of copied.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::Slice;
use crate::base::error::Result;
use crate::base::fsops::Linkable;
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

/// Reports why blobs are not linked, each reason once.
pub struct Reasons {
    events: Events,
    reported: Mutex<HashSet<&'static str>>,
}

impl Reasons {
    pub fn new(events: Events) -> Reasons {
        Reasons { events, reported: Mutex::default() }
    }

    /// `instead`: what becomes of these blobs.
    pub fn report(&self, why: &'static str, instead: &str) {
        if self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(why) {
            self.events.report(Event::Notice(format!("not every blob is linked: {why}; {instead}")));
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
