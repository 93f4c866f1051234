//! The open uploads, and what has arrived of each.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;

use crate::base::error::{Error, Result};
use crate::base::fsops::Entry;
use crate::content::Slice;
use crate::content::proof::{Hashed, Unproven, prove};
use crate::oci::{Algorithm, Digest, Hasher};

use super::answer::RequestRefusal;
use super::limits::Limits;
use super::quota::Share;

/// Maximum number of parallel users of an upload: the list of uploads, the request that writes, and those that wait for it.
const MOST_AT_ONCE: usize = 4;

/// The open uploads, by number.
pub struct Uploads {
    open: Mutex<HashMap<String, Upload>>,
    limits: Limits,
}

#[derive(Clone)]
struct Upload {
    /// The repository it was opened in, as the client spelled it.
    name: String,
    received: Arc<tokio::sync::Mutex<Received>>,
}

/// What has arrived of a blob. Its file is removed with it, unless it has been named.
pub struct Received {
    pub file: Arc<File>,
    /// The name it has until it is complete.
    pub entry: Entry,
    /// Size in bytes.
    pub size: u64,
    /// Hash of all bytes.
    pub hasher: Hasher,
    touched: Instant,
    pub share: Share,
}

/// The right to write to an upload.
pub type Held = OwnedMutexGuard<Received>;

impl Uploads {
    pub fn new(limits: Limits) -> Uploads {
        Uploads { open: Mutex::default(), limits }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops all uploads.
    pub fn forget_all(&self) {
        self.map().clear();
    }

    /// Drops uploads that received no bytes for too long.
    pub fn drop_idle(&self) {
        let limit = self.limits.upload_idle;
        // A locked one is being written to.
        self.map().retain(|_, upload| upload.received.try_lock().map_or(true, |r| r.touched.elapsed() < limit));
    }

    /// Opens an upload into a repository; `id` is its number.
    ///
    /// # Errors
    /// Too many are open.
    pub fn add(
        &self,
        id: &str,
        name: &str,
        received: Received,
    ) -> Result<Arc<tokio::sync::Mutex<Received>>, RequestRefusal> {
        let received = Arc::new(tokio::sync::Mutex::new(received));
        let mut map = self.map();
        let most = self.limits.uploads;
        if map.len() >= most {
            let text = format!("{most} uploads are already open; finish or cancel some");
            return Err(RequestRefusal::new(429, "TOOMANYREQUESTS", text));
        }
        map.insert(id.to_owned(), Upload { name: name.to_owned(), received: Arc::clone(&received) });
        Ok(received)
    }

    /// Locks an upload, so that only this request continues it.
    ///
    /// # Errors
    /// There is no such upload, or too many requests use it.
    pub async fn lock(&self, name: &str, id: &str) -> Result<Held, RequestRefusal> {
        let received = self.find(name, id)?.received;
        // Waiting requests keep their connections; a client that tries again needs one or two.
        if Arc::strong_count(&received) > MOST_AT_ONCE {
            let refusal = RequestRefusal::new(429, "TOOMANYREQUESTS", "other requests are writing to this upload");
            return Err(refusal.with("retry-after", "1"));
        }
        let held = received.lock_owned().await;
        // It may have been finished meanwhile.
        self.find(name, id)?;
        Ok(held)
    }

    /// Ends the upload.
    pub fn remove(&self, id: &str) {
        self.map().remove(id);
    }

    /// Checks that the upload exists.
    ///
    /// # Errors
    /// There is no such upload.
    pub fn check(&self, name: &str, id: &str) -> Result<(), RequestRefusal> {
        self.find(name, id).map(drop)
    }

    fn find(&self, name: &str, id: &str) -> Result<Upload, RequestRefusal> {
        let upload = self.map().get(id).filter(|upload| upload.name == name).cloned();
        upload.ok_or_else(|| {
            let short: String = id.chars().take(64).collect();
            RequestRefusal::new(404, "BLOB_UPLOAD_UNKNOWN", format!("there is no upload {short} in {name}"))
        })
    }
}

impl Received {
    /// An empty upload that will be written to this new file.
    pub fn into(file: File, entry: Entry, share: Share) -> Received {
        let hasher = Hasher::new(Algorithm::Sha256);
        Received { file: Arc::new(file), entry, size: 0, hasher, touched: Instant::now(), share }
    }

    /// Appends bytes; after a failure, nothing of `batch` counts.
    pub fn write(&mut self, batch: &[Bytes]) -> Result<()> {
        let more = batch.iter().map(|piece| piece.len() as u64).sum();
        self.share.grow(more)?;
        let (mut position, mut hasher) = (self.size, self.hasher.clone());
        for piece in batch {
            if let Err(error) = self.file.write_all_at(piece, position) {
                self.share.shrink(more);
                return Err(Error::disk("writing", self.entry.path(), error));
            }
            hasher.update(piece);
            position += piece.len() as u64;
        }
        (self.size, self.hasher, self.touched) = (position, hasher, Instant::now());
        Ok(())
    }

    /// Drops everything after the first `size` bytes, whose hash state is `hasher`.
    pub fn take_back(&mut self, size: u64, hasher: Hasher) {
        self.share.shrink(self.size.saturating_sub(size));
        (self.size, self.hasher) = (size, hasher);
    }

    /// Proves everything that has arrived by the promised digest.
    ///
    /// # Errors
    /// It has another digest, or the file cannot be read.
    pub fn prove(&self, digest: &Digest) -> Result<(), Unproven> {
        if digest.algorithm() == Algorithm::Sha256 {
            return Ok(Hashed::of(self.hasher.clone()).prove(digest)?);
        }
        let whole = Slice::new(Arc::clone(&self.file), self.entry.path(), 0, self.size);
        prove(&whole, digest, &|_| {})
    }

    /// `Range` of an upload: inclusive, so that no byte and one byte look alike.
    pub fn range(&self) -> String {
        format!("0-{}", self.size.saturating_sub(1))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        // It no longer exists if it has been named.
        let _ = self.entry.remove();
    }
}
