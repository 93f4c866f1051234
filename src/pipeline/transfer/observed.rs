//! A source that reports what is read from it, blob by blob.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::StreamExt;

use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events};
use crate::content::{Body, Files, Need, ReferrerList, Source, TagList};
use crate::oci::{Described, Descriptor, Digest, Manifest, Reference, Repository};

/// Counts bytes where they are read, so that they are counted in the same way for every sink, including retries.
pub struct Observed<'a> {
    inner: &'a dyn Source,
    events: Events,
    /// Bytes reported for each open blob.
    open: Mutex<HashMap<Digest, Arc<AtomicU64>>>,
    /// Total number of bytes read.
    read: Arc<AtomicU64>,
}

impl<'a> Observed<'a> {
    pub fn new(inner: &'a dyn Source, events: Events) -> Observed<'a> {
        Observed { inner, events, open: Mutex::default(), read: Arc::default() }
    }

    /// Bytes read so far, including failed tries.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Records that this blob will not be read any more.
    pub fn close(&self, digest: &Digest) {
        let was_open = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
        if was_open.is_some() {
            self.events.report(Event::BlobFinished { digest: *digest });
        }
    }

    /// What was read of this blob and discarded does not count.
    pub fn take_back(&self, digest: &Digest) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counted) = open.get(digest) {
            self.read.fetch_sub(counted.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// A blob that is opened a second time starts again.
    fn begin(&self, blob: &Descriptor, present: u64) -> Arc<AtomicU64> {
        let Described { digest, size, .. } = **blob;
        let counted = Arc::new(AtomicU64::new(0));
        let before = self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, counted.clone());
        self.events.report(match before {
            Some(before) => Event::BlobRestarted { digest, bytes: before.load(Ordering::Relaxed) },
            None => Event::BlobStarted { digest, size, present },
        });
        counted
    }
}

#[async_trait]
impl Source for Observed<'_> {
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList> {
        self.inner.tags(repository, need).await
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.inner.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        self.inner.manifest(reference, need).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        self.inner.referrers(repository, subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        let body = self.inner.blob(repository, blob, offset).await?;
        let counted = self.begin(blob, body.offset);
        let (events, digest, all) = (self.events.clone(), blob.digest, self.read.clone());
        let stream = body.stream.inspect(move |piece| {
            if let Ok(piece) = piece {
                let bytes = piece.len() as u64;
                counted.fetch_add(bytes, Ordering::Relaxed);
                all.fetch_add(bytes, Ordering::Relaxed);
                events.report(Event::BlobAdvanced { digest, bytes });
            }
        });
        Ok(Body { file: body.file, ..Body::new(body.offset, stream.boxed()) })
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        self.inner.gave_wrong(repository, blob, error).await
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.inner.counts_pulls(repository)
    }

    fn files(&self) -> Option<&dyn Files> {
        self.inner.files()
    }
}
