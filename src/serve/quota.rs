//! Limits the size of a writable layout: blobs, manifests, and what has arrived of uploads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units;

/// The remaining space, shared by all uploads. Without a limit nothing is counted.
pub struct Quota {
    /// In bytes.
    limit: Option<u64>,
    used: AtomicU64,
}

/// Bytes that count as long as this value lives, or permanently once they are [committed](Share::commit).
pub struct Share {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Quota {
    /// Counts what the layout at `root` contains already.
    ///
    /// # Errors
    /// Its blobs cannot be listed.
    pub fn of(root: &Path, limit: Option<u64>) -> Result<Quota> {
        let used = if limit.is_some() { size_below(&root.join("blobs"))? } else { 0 };
        Ok(Quota { limit, used: AtomicU64::new(used) })
    }

    fn take(&self, bytes: u64) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|used| {
            // `transport/registry/refusals.rs` parses this.
            let (limit, left) = (units::bytes(limit), limit.saturating_sub(used));
            Error::new(Kind::Refused, format!("the quota of this registry is {limit}; {left} bytes left"))
        })
    }

    /// Content was removed.
    pub fn give_back(&self, bytes: u64) {
        if self.limit.is_some() {
            let _ =
                self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
        }
    }
}

impl Share {
    pub fn of(quota: &Arc<Quota>) -> Share {
        Share { quota: Arc::clone(quota), bytes: 0 }
    }

    /// Counts `bytes` more.
    ///
    /// # Errors
    /// [`Kind::Refused`]: the quota does not allow it.
    pub fn grow(&mut self, bytes: u64) -> Result<()> {
        self.quota.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Some of the bytes do not count after all.
    pub fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.quota.give_back(bytes);
        self.bytes -= bytes;
    }

    /// The bytes have become part of the layout.
    pub fn commit(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.quota.give_back(self.bytes);
    }
}

fn size_below(directory: &Path) -> Result<u64> {
    if !directory.exists() {
        return Ok(0);
    }
    let mut size = 0;
    for entry in walkdir::WalkDir::new(directory).follow_links(false) {
        let metadata = entry.and_then(|entry| entry.metadata());
        let metadata =
            metadata.map_err(|e| Error::new(Kind::Disk, format!("listing {}", directory.display())).because(e))?;
        if metadata.is_file() {
            size += metadata.len();
        }
    }
    Ok(size)
}
