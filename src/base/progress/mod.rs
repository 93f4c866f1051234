//! What happens while a job runs, as events.
//!
//! Stages and transports say what they do through a [`Reporter`]; they never print. Renderers (terminal bars, periodic
//! log lines, JSON lines, nothing) live below this module; tests use [`Recorder`].

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

/// Something that happened. Bytes are counted as they cross the network or the disk, not as planned.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A part of the job begins: `items` things (images, blobs, files) and `bytes` bytes lie ahead, where known.
    Phase {
        phase: Phase,
        items: u64,
        bytes: u64,
    },
    /// One of the phase's items is done.
    ItemDone,
    /// A blob begins to move; `present` of its `size` bytes are already there.
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
    /// What was counted for this blob is void: it starts again from its first byte.
    BlobRestarted {
        digest: Digest,
        bytes: u64,
    },
    BlobFinished {
        digest: Digest,
    },
    /// What was done or comes next: `3.0 GiB to read: 12 blobs of 2 images`.
    Status(String),
    /// Worth knowing, nothing wrong: a short name written out, a duplicate merged.
    Notice(String),
    /// Something to look at, though the job goes on.
    Warning(String),
    /// A warning that the result lacks something: the job goes on, and its exit code says so.
    Incomplete(String),
    /// One image failed; the others go on.
    Failure(String),
    /// Waiting before another try, or because a registry asked for it.
    Waiting {
        what: String,
        why: String,
        delay: Duration,
    },
    /// A moment of an HTTP exchange; only where that was asked for.
    Http(Box<Exchange>),
}

impl Event {
    /// Whether it is reported even where only errors and warnings are wanted.
    pub fn is_urgent(&self) -> bool {
        // HTTP exchanges are asked for by an option of their own.
        matches!(
            self,
            Event::Warning(_) | Event::Incomplete(_) | Event::Failure(_) | Event::Waiting { .. } | Event::Http(_)
        )
    }
}

/// The parts a job is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Tags to digests.
    Resolve,
    /// Manifests and referrers.
    Walk,
    /// Proving what an earlier, interrupted run left.
    Recheck,
    /// What the target already has.
    Inventory,
    /// Blobs.
    Transfer,
    /// Manifests and tags.
    Publish,
    /// Proving bytes.
    Verify,
    /// Writing everything to the medium.
    Sync,
}

impl Phase {
    /// As a person reads it at the left of a bar.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Resolve => "resolving",
            Phase::Walk => "reading manifests",
            Phase::Recheck => "proving what is there",
            Phase::Inventory => "asking the target",
            Phase::Transfer => "transferring",
            Phase::Publish => "publishing",
            Phase::Verify => "verifying",
            Phase::Sync => "syncing",
        }
    }
}

/// Where events go. Implementations must be quick: they are called from the transfer itself.
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

/// Keeps every event, for tests and for callers that look afterwards.
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
