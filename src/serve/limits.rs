//! What clients may take of a server, one of them or all together.

use std::time::Duration;

use crate::oci::MAX_MANIFEST_SIZE;

/// How much and how slow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; a further one takes the place of the oldest that is idle, or waits.
    pub connections: usize,
    /// How long the head of a request may take to arrive: the first from the beginning of the connection, each further one from
    /// its first byte.
    pub head: Duration,
    /// A connection that moves fewer than [`Limits::least`] bytes in this time is closed.
    pub idle: Duration,
    /// In bytes, both directions together.
    pub least: u64,
    /// Bytes a second below which a client is slow: while all connections are taken, one that lags behind this pace for
    /// [`Limits::patience`] gives way to a new one.
    pub pace: u64,
    pub patience: Duration,
    /// The largest manifest, in bytes; never more than 4 MiB. How large blobs may be is for the quota to say.
    pub manifest: u64,
    /// Uploads that are open at a time.
    pub uploads: usize,
    /// An upload that gets no byte for so long is dropped.
    pub upload_idle: Duration,
    /// How long requests in flight may take to end once the server was told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Half of the threads tokio has for file work.
            connections: 256,
            head: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            least: 4 * 1024,
            pace: 16 * 1024,
            patience: Duration::from_secs(10),
            manifest: MAX_MANIFEST_SIZE,
            uploads: 1_000,
            upload_idle: Duration::from_secs(3_600),
            grace: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// How often the server looks for uploads that were left, and for pushes that have paused.
    pub(super) fn tick(&self) -> Duration {
        (self.upload_idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(2))
    }
}
