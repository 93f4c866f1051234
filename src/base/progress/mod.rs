//! Events that happen during a job.
//!
//! Stages and transports report through a [`Reporter`] and never print. The renderers (terminal bars, periodic lines, JSON
//! lines, nothing) are below this module; tests use [`Recorder`].

mod http;
mod json;
mod lines;
mod plain;
mod redact;
mod tally;
mod terminal;
pub mod units;

pub use http::{Exchange, Headers, Moment};
pub use json::Json;
pub use lines::Lines;
pub use plain::{plain, plain_piece, shown_json, shown_line};
pub use redact::{conceal, redacted, redacted_with};
pub use terminal::Terminal;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::oci::Digest;

/// An event. Bytes are counted as they cross the network or the disk, not as planned.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A phase starts, with `items` things (images, blobs, files) and `bytes` bytes ahead, if known.
    Phase {
        phase: Phase,
        items: u64,
        bytes: u64,
    },
    /// One item of the phase is done.
    ItemDone,
    /// A blob starts to move; `present` of its `size` bytes already exist.
    BlobStarted {
        digest: Digest,
        size: u64,
        present: u64,
    },
    /// More bytes of a blob have moved.
    BlobAdvanced {
        digest: Digest,
        bytes: u64,
    },
    /// The blob starts again from its first byte; what was counted for it is void.
    BlobRestarted {
        digest: Digest,
        bytes: u64,
    },
    BlobFinished {
        digest: Digest,
    },
    /// What was done or comes next: `3.0 GiB to read: 12 blobs of 2 images`.
    Status(String),
    /// Information without a problem: a short name was expanded, a duplicate merged.
    Notice(String),
    /// Something to look at; the job continues.
    Warning(String),
    /// A warning that the result lacks something; the job continues, and its exit code says so.
    Incomplete(String),
    /// One image failed; the others continue.
    Failure(String),
    /// Waiting before a retry, or because a registry asked for it.
    Waiting {
        what: String,
        why: String,
        delay: Duration,
    },
    /// A moment of an HTTP exchange; only on request.
    Http(Box<Exchange>),
}

impl Event {
    /// Whether the event is reported even with `--quiet`.
    pub fn is_urgent(&self) -> bool {
        // HTTP exchanges are requested by an option of their own.
        matches!(
            self,
            Event::Warning(_) | Event::Incomplete(_) | Event::Failure(_) | Event::Waiting { .. } | Event::Http(_)
        )
    }
}

/// The phases of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Resolving tags to digests.
    Resolve,
    /// Reading manifests and referrers.
    Walk,
    /// Verifying what an interrupted run left.
    Recheck,
    /// Asking what the target already has.
    Inventory,
    /// Transferring blobs.
    Transfer,
    /// Pushing manifests and tags.
    Publish,
    /// Verifying bytes.
    Verify,
    /// Syncing everything to the medium.
    Sync,
}

impl Phase {
    /// The label to the left of a bar.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Resolve => "resolving",
            Phase::Walk => "reading manifests",
            Phase::Recheck => "rechecking",
            Phase::Inventory => "asking the target",
            Phase::Transfer => "transferring",
            Phase::Publish => "publishing",
            Phase::Verify => "verifying",
            Phase::Sync => "syncing",
        }
    }
}

/// Receives events. Implementations must be fast: the transfer itself calls them.
pub trait Reporter: Send + Sync {
    fn report(&self, event: Event);
}

/// A shared handle to the reporter of this run.
pub type Events = Arc<dyn Reporter>;

/// Drops every event.
pub struct Silent;

impl Reporter for Silent {
    fn report(&self, _: Event) {}
}

/// Keeps every event, for tests and for callers that look at them afterwards.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl Reporter for Recorder {
    fn report(&self, event: Event) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(event);
    }
}
