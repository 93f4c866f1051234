//! A source that remembers manifests and configs and reads each only once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::{BlobReader, Body, Files, Need, ReferrerList, Source, TagList};
use crate::base::error::{Error, Kind, Result};
use crate::oci::{Described, Descriptor, Digest, Manifest, Reference, Repository};

/// Maximum size of a remembered blob in bytes; image configs have a few KiB.
const MAX_REMEMBERED: usize = 64 * 1024;
/// Maximum size of all remembered blobs in bytes; others are read again.
const REMEMBER_IN_ALL: usize = 16 * 1024 * 1024;

/// A primary source with local sources in front of it.
///
/// `local` are, for example, earlier bundles. Whatever they have by digest is read there, so an unchanged image costs the
/// primary source one request for its tag. A manifest is fetched once, however many images share it and even if they ask at
/// the same time.
pub struct Cached<'a> {
    primary: &'a dyn Source,
    local: Vec<Box<dyn Source + 'a>>,
    manifests: Mutex<HashMap<Digest, Arc<OnceCell<Option<Manifest>>>>>,
    /// Small blobs that were read or are being read.
    blobs: Mutex<HashMap<Digest, Arc<OnceCell<Bytes>>>>,
    /// Bytes of the remembered blobs.
    remembered: AtomicUsize,
}

impl<'a> Cached<'a> {
    pub fn new(primary: &'a dyn Source, local: Option<Box<dyn Source + 'a>>) -> Cached<'a> {
        let (manifests, blobs, remembered) = Default::default();
        Cached { primary, local: local.into_iter().collect(), manifests, blobs, remembered }
    }

    /// Adds local sources.
    pub fn with_local(mut self, more: impl IntoIterator<Item = Box<dyn Source + 'a>>) -> Cached<'a> {
        self.local.extend(more);
        self
    }

    /// Drops the local sources; what was read from them stays remembered.
    pub fn forget_local(&mut self) {
        self.local.clear();
    }

    /// Whether a local source has this manifest.
    pub async fn is_at_hand(&self, reference: &Reference) -> bool {
        self.local_manifest(reference).await.is_some()
    }

    /// Returns a small blob, verified, and remembers it. Concurrent callers wait for the first one.
    ///
    /// # Errors
    /// The blob is larger than `limit` bytes or cannot be read.
    pub async fn small_blob(&self, repository: &Repository, blob: &Descriptor, limit: u64) -> Result<Bytes> {
        let Described { digest, size, .. } = **blob;
        if size > limit {
            let text = format!("reading blob {digest} of {repository}: it has {size} bytes; the limit is {limit}");
            return Err(Error::damaged(text));
        }
        let cell = self.lock_blobs().entry(digest).or_default().clone();
        let first = cell.get().is_none();
        let bytes = cell.get_or_try_init(|| self.read_small(repository, blob)).await?.clone();
        if first && !self.is_worth_remembering(bytes.len()) {
            self.lock_blobs().remove(&digest);
        }
        Ok(bytes)
    }

    async fn read_small(&self, repository: &Repository, blob: &Descriptor) -> Result<Bytes> {
        // A local copy may be damaged; the primary source still has the blob.
        for local in &self.local {
            if let Ok(bytes) = read_whole(&**local, repository, blob).await {
                return Ok(bytes);
            }
        }
        match read_whole(self.primary, repository, blob).await {
            Err(error) if error.is_absent_or_denied() => blob.proven_data().ok_or(error),
            read => read,
        }
    }

    fn is_worth_remembering(&self, bytes: usize) -> bool {
        bytes <= MAX_REMEMBERED && self.remembered.fetch_add(bytes, Ordering::Relaxed) + bytes <= REMEMBER_IN_ALL
    }

    fn lock_blobs(&self) -> MutexGuard<'_, HashMap<Digest, Arc<OnceCell<Bytes>>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn local_manifest(&self, reference: &Reference) -> Option<Manifest> {
        for local in &self.local {
            if let Ok(Some(manifest)) = local.manifest(reference, Need::Required).await {
                return Some(manifest);
            }
        }
        None
    }

    /// With a local source, or if pulls are counted, a tag is only resolved, because its manifest may be known. Otherwise the
    /// manifest comes with the first response.
    async fn read(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        if let Some(digest) = reference.digest {
            return self.by_digest(reference, digest, need).await;
        }
        if !self.local.is_empty() || self.primary.counts_pulls(&reference.repository) {
            let Some(found) = self.primary.resolve(reference, need).await? else { return Ok(None) };
            let known = self.by_digest(&reference.repository.with_digest(found.digest), found.digest, need).await?;
            if let Some(known) = known {
                return Ok(Some(known.described_as(&found.media_type)?));
            }
            // A cache in front of the registry may have returned the old digest of the tag; the manifest itself decides.
        }
        let found = self.primary.manifest(reference, need).await?;
        if let Some(manifest) = &found {
            let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
            let cell = manifests.entry(manifest.digest()).or_default();
            // Another task may have fetched it meanwhile; equal digests mean equal bytes.
            let _ = cell.set(Some(manifest.clone()));
        }
        Ok(found)
    }

    async fn by_digest(&self, reference: &Reference, digest: Digest, need: Need) -> Result<Option<Manifest>> {
        let cell = {
            let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
            manifests.entry(digest).or_default().clone()
        };
        let fetched = cell
            .get_or_try_init(|| async {
                if let Some(manifest) = self.local_manifest(reference).await {
                    return Ok(Some(manifest));
                }
                match self.primary.manifest(reference, need).await {
                    Ok(None) => Err(None),
                    Ok(found) => Ok(found),
                    Err(error) => Err(Some(error)),
                }
            })
            .await;
        match fetched {
            Ok(manifest) => Ok(manifest.clone()),
            // Absence in this repository says nothing about others, so it is not remembered.
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }
}

async fn read_whole(source: &dyn Source, repository: &Repository, blob: &Descriptor) -> Result<Bytes> {
    loop {
        match read_once(source, repository, blob).await {
            Err(error) if error.kind() == Kind::Damaged => source.gave_wrong(repository, blob, error).await?,
            other => return other,
        }
    }
}

async fn read_once(source: &dyn Source, repository: &Repository, blob: &Descriptor) -> Result<Bytes> {
    let mut reader = BlobReader::new(blob, source.blob(repository, blob, 0).await?)?;
    let mut all = Vec::with_capacity(usize::try_from(blob.size).unwrap_or_default());
    while let Some(piece) = reader.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.into())
}

/// The bytes in memory from `offset`.
fn part_of(bytes: &Bytes, offset: u64) -> Body {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    Body::new(offset, stream::iter([Ok(bytes.slice(from..))]).boxed())
}

#[async_trait]
impl Source for Cached<'_> {
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList> {
        self.primary.tags(repository, need).await
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.primary.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        self.read(reference, need).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        self.primary.referrers(repository, subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        let remembered = self.lock_blobs().get(&blob.digest).and_then(|cell| cell.get().cloned());
        if let Some(bytes) = remembered {
            return Ok(part_of(&bytes, offset));
        }
        match self.primary.blob(repository, blob, offset).await {
            // The descriptor may contain the blob itself (`data`).
            Err(error) if error.is_absent_or_denied() => {
                blob.proven_data().map(|data| part_of(&data, offset)).ok_or(error)
            }
            body => body,
        }
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        self.primary.gave_wrong(repository, blob, error).await
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.primary.counts_pulls(repository)
    }

    fn files(&self) -> Option<&dyn Files> {
        self.primary.files()
    }
}
