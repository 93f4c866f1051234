//! Limits on what clients can take from a server, individually or together.

use std::time::Duration;

use crate::oci::MAX_MANIFEST_SIZE;

/// Amounts and times.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Parallel connections; another one takes the place of the oldest idle one, or waits.
    pub connections: usize,
    /// How long the head of a request may take: the first from the start of the connection, others from their first byte.
    pub head: Duration,
    /// A connection that moves fewer than [`Limits::least`] bytes in this time is closed.
    pub idle: Duration,
    /// In bytes, both directions together.
    pub least: u64,
    /// Bytes per second below which a client is slow. While all connections are taken, one that lags behind this pace for
    /// [`Limits::patience`] gives way to a new one.
    pub pace: u64,
    pub patience: Duration,
    /// Maximum size of a manifest in bytes, never more than 4 MiB. The quota limits blobs.
    pub manifest: u64,
    /// Parallel open uploads.
    pub uploads: usize,
    /// An upload without new bytes for this long is dropped.
    pub upload_idle: Duration,
    /// How long running requests may take after the server was asked to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Half of the threads that tokio has for file work.
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
    /// How often the server looks for abandoned uploads and for pauses in pushes.
    pub(super) fn tick(&self) -> Duration {
        (self.upload_idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(2))
    }
}
