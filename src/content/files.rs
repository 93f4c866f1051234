//! Blobs that are local files, which can be linked instead of copied.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::Slice;
use crate::base::error::Result;
use crate::base::fsops::Linkable;
use crate::base::progress::{Event, Events};
use crate::oci::{Digest, Repository};

/// A source whose blobs are files or parts of files.
pub trait Files: Sync {
    /// The bytes of a blob, not verified.
    ///
    /// # Errors
    /// It does not exist or cannot be read.
    fn file(&self, repository: &Repository, digest: &Digest) -> Result<Slice>;

    /// The blob as a file that can be hard-linked; `None` if it is part of a file.
    ///
    /// # Errors
    /// As for [`Files::file`].
    fn linkable(&self, repository: &Repository, digest: &Digest) -> Result<Option<Linkable>>;

    /// The device of the files; `None` if they cannot be linked.
    fn device(&self) -> Option<u64>;
}

/// How to place blobs that are files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMode {
    /// Hard links, otherwise reflinks, otherwise copies.
    Auto,
    Hard,
    Reflink,
    Copy,
}

/// Reports why blobs are not linked, once per reason.
pub struct Reasons {
    events: Events,
    reported: Mutex<HashSet<&'static str>>,
}

impl Reasons {
    pub fn new(events: Events) -> Reasons {
        Reasons { events, reported: Mutex::default() }
    }

    /// `instead` says what happens to these blobs.
    pub fn report(&self, why: &'static str, instead: &str) {
        if self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(why) {
            self.events.report(Event::Notice(format!("not every blob is linked: {why}; {instead}")));
        }
    }
}

/// Why the file system did not link, in words.
pub fn why_not_linked(errno: Errno) -> &'static str {
    match errno {
        Errno::XDEV => "it is on another file system (EXDEV)",
        Errno::MLINK => "a file there already has the maximum number of links (EMLINK)",
        Errno::PERM => {
            "the system does not allow it (EPERM): the files have another owner, or the file system has no \
                        links"
        }
        _ => "the file system does not support links",
    }
}
