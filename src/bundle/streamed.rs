//! A bundle from a pipe: first the data for planning an import, then its blobs, each proven before it is used.
//!
//! # Threats
//! As for any layout that passes. The sender may send anything, or nothing, after what was examined. Every later file must
//! therefore be declared in `bundle.json` with its size and sha256, and is available only after all of it is proven.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc::UnboundedSender;

use crate::base::error::{Error, Fact, Kind, Reason, Result};
use crate::base::progress::units::bytes;
use crate::bundle::{Bundle, is_never_declared, is_tool, refuse_part};
use crate::content::proof::{Hashed, Wrong};
use crate::content::{Body, Files, Need, ReferrerList, Slice, Source, TagList};
use crate::files::{Layout, Passing, StreamedEntry};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};

/// Bytes that may wait to be pushed, in addition to one blob of any size.
const MOST_WAITING: u64 = 256 << 20;
/// Number of blobs that may wait, because each is an open file.
const MOST_FILES: usize = 128;
/// Maximum number of problems to list.
const MOST_PROBLEMS: usize = 100;

/// A bundle whose metadata and manifests have been read.
pub struct StreamedBundle<R> {
    path: PathBuf,
    passing: Passing<R>,
    /// The file whose bytes come next.
    next: Option<StreamedEntry>,
    /// The blobs declared in `bundle.json`, with their sizes in bytes.
    declared: HashMap<Digest, u64>,
    /// The outcome for the blobs that came first.
    before: Vec<(Digest, Result<()>)>,
    /// Blobs that are still to come.
    awaited: HashSet<Digest>,
}

/// The state of the stream after its last byte.
#[derive(Debug, Default)]
pub struct Ending {
    /// Its problems, for people.
    pub problems: Vec<String>,
    /// Bytes received.
    pub length: u64,
    /// Whether reading ended early for a reason on this machine, such as a full disk.
    pub failed_here: bool,
}

/// The blobs that have arrived and are still needed.
#[derive(Default)]
struct Buffered {
    blobs: HashMap<Digest, Slice>,
    /// Their size in bytes.
    waiting: u64,
    /// Whether no more blobs are needed.
    closed: bool,
}

/// Holds the blobs that have arrived until they are pushed.
#[derive(Default)]
pub struct StreamBuffer {
    buffered: Mutex<Buffered>,
    room: Condvar,
}

/// What has arrived of the bundle, as a source.
pub struct StreamSource<'a> {
    pub buffer: Arc<StreamBuffer>,
    /// What came first, and other places that may have something.
    pub rest: &'a dyn Source,
}

/// A blob that the stream did not contain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not received: after {} {why}", bytes(*length))]
pub struct NotReceived {
    /// Bytes received before the end.
    pub length: u64,
    pub why: String,
}

impl Fact for NotReceived {}

impl<R: Read> StreamedBundle<R> {
    /// Reads up to the first file that is not kept, which is a layer. `before_blobs` sees everything before the blobs and may
    /// stop.
    ///
    /// # Errors
    /// The stream cannot be read, or was stopped.
    pub fn open(
        path: &Path,
        input: R,
        before_blobs: &mut dyn FnMut(&Layout) -> Result<()>,
    ) -> Result<(StreamedBundle<R>, Layout)> {
        let mut passing = Passing::new(path, input)?;
        let (mut is_before, mut next) = (true, None);
        let mut stands = |layout: &Layout| refuse_part(layout).and_then(|()| before_blobs(layout));
        while let Some(entry) = passing.advance()? {
            let is_tool = is_tool(&entry.path);
            if is_before && (is_tool || entry.path.starts_with("blobs/")) {
                is_before = false;
                stands(&passing.so_far([]))?;
            }
            // The manifests follow the tools, which are not needed here.
            if !is_tool && !passing.will_keep(&entry)? {
                next = Some(entry);
                break;
            }
            passing.read(&entry, &mut |_| Ok(()))?;
        }
        if is_before {
            stands(&passing.so_far([]))?;
        }
        // Its check reports what is wrong with a bundle without one.
        let bundle = Bundle::in_layout(passing.so_far([])).ok();
        let declared: HashMap<Digest, u64> = bundle.iter().flat_map(|bundle| bundle.json().blobs()).collect();
        let promised = declared.iter().filter(|_| next.is_some());
        let layout = passing.so_far(promised.map(|(digest, size)| (digest.blob_path(), *size)));
        let before = declared.keys().filter_map(|digest| {
            let hashed = passing.hashed(&digest.blob_path())?;
            Some((*digest, prove(digest, hashed)))
        });
        let before = before.collect();
        let awaited = declared.keys().filter(|digest| !passing.has_kept(&digest.blob_path())).copied().collect();
        passing.forget();
        Ok((StreamedBundle { path: path.to_owned(), passing, next, declared, before, awaited }, layout))
    }

    /// Blobs that are still to come.
    pub fn take_awaited(&mut self) -> HashSet<Digest> {
        std::mem::take(&mut self.awaited)
    }

    /// Reads to the end. Needed blobs are proven, put into the buffer and reported to `came`; blobs that will not come are
    /// reported as errors.
    pub fn read(
        mut self,
        wanted: HashSet<Digest>,
        arrived: &StreamBuffer,
        came: &UnboundedSender<(Digest, Result<()>)>,
    ) -> Ending {
        let mut problems = Vec::new();
        let mut open = wanted;
        for (digest, came_right) in std::mem::take(&mut self.before) {
            problems.extend(came_right.as_ref().err().map(Error::chain));
            if open.remove(&digest) {
                let _ = came.send((digest, came_right));
            }
        }
        let failed = loop {
            if came.is_closed() {
                // No further blob is needed, so the rest is not examined.
                return Ending { length: self.passing.position(), ..Ending::default() };
            }
            let entry = match self.next.take() {
                Some(entry) => entry,
                None => match self.passing.advance() {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                },
            };
            let digest = Digest::of_blob_path(&entry.path);
            let wanted = digest.filter(|digest| open.contains(digest));
            match self.take(&entry, digest, wanted.is_some().then_some(arrived)) {
                Ok(true) => {}
                // It is cut; the next read reports that.
                Ok(false) => continue,
                Err(error) if error.kind() == Kind::Damaged => {
                    problems.push(error.chain());
                    if let Some(digest) = wanted.filter(|digest| open.remove(digest)) {
                        let _ = came.send((digest, Err(error)));
                    }
                    continue;
                }
                Err(error) => break Some(error),
            }
            if let Some(digest) = wanted.filter(|digest| open.remove(digest)) {
                let _ = came.send((digest, Ok(())));
            }
        };
        let (length, path) = (self.passing.position(), self.path.display().to_string());
        let why = match &failed {
            Some(error) => error.chain(),
            None => format!("{path} has ended"),
        };
        // The sender is not to blame for what fails here.
        let kind = failed.as_ref().map_or(Kind::Damaged, Error::kind);
        problems.extend(failed.as_ref().map(Error::chain));
        for digest in open {
            let error = Error::of(kind, NotReceived { length, why: why.clone() });
            let _ = came.send((digest, Err(failed.iter().cloned().fold(error, Error::speaking_for))));
        }
        let layout = self.passing.into_layout();
        problems.extend(layout.problems().iter().map(|fault| match fault.path.as_str() {
            "" => format!("{path}: {}", fault.what),
            name => format!("{name}: {}", fault.what),
        }));
        let missing = self.declared.keys().filter(|digest| layout.size_of(&digest.blob_path()).is_none()).count();
        if missing > 0 && kind == Kind::Damaged {
            problems.push(format!("{path} ended after {}: {missing} of its blobs were not received", bytes(length)));
        }
        problems.truncate(MOST_PROBLEMS);
        Ending { problems, length, failed_here: kind != Kind::Damaged }
    }

    /// Reads one file, a blob with this digest; a needed blob is stored. Returns `false` if the tar ends in it.
    fn take(&mut self, entry: &StreamedEntry, digest: Option<Digest>, arrived: Option<&StreamBuffer>) -> Result<bool> {
        let Some((digest, size)) = digest.and_then(|digest| Some((digest, *self.declared.get(&digest)?))) else {
            self.passing.read(entry, &mut |_| Ok(()))?;
            // What follows the blobs is derived and not needed here.
            return match is_never_declared(&entry.path) {
                true => Ok(true),
                false => Err(Error::damaged(format!("{} is not declared", entry.path))),
            };
        };
        if size != entry.size {
            let text = format!("{} has {} bytes instead of {size}", entry.path, entry.size);
            return Err(damaged(text));
        }
        let mut file = match arrived {
            Some(arrived) => arrived.make_room(entry.size)?,
            None => None,
        };
        let failed = |e| Error::disk("keeping a blob in TMPDIR,", &std::env::temp_dir(), e);
        let hashed = self.passing.read(entry, &mut |piece| match &mut file {
            Some(file) => file.write_all(piece).map_err(failed),
            None => Ok(()),
        })?;
        let Some(hashed) = hashed else { return Ok(false) };
        self.passing.forget();
        prove(&digest, &hashed)?;
        if let Some((arrived, file)) = arrived.zip(file) {
            arrived.put(digest, Slice::new(Arc::new(file), self.path.join(&entry.path), 0, entry.size));
        }
        Ok(true)
    }
}

/// What was sent is wrong and would be wrong again, unlike a stream that was cut.
fn damaged(text: String) -> Error {
    Error::damaged(text).with_reason(Reason::DamagedFile)
}

/// Checks a blob.
///
/// # Errors
/// The blob does not match its digest.
fn prove(digest: &Digest, hashed: &Hashed) -> Result<()> {
    let wrong = |Wrong { found, .. }| damaged(format!("{}: wrong digest: the bytes have {found}", digest.blob_path()));
    hashed.prove(digest).map_err(wrong)
}

impl StreamBuffer {
    /// An unnamed file for a blob of this size, as soon as enough earlier blobs have been pushed; `None` if it is no longer
    /// needed.
    fn make_room(&self, size: u64) -> Result<Option<File>> {
        let mut buffered = self.lock();
        let is_full = |buffered: &Buffered| {
            buffered.waiting.saturating_add(size) > MOST_WAITING || buffered.blobs.len() >= MOST_FILES
        };
        while !buffered.blobs.is_empty() && is_full(&buffered) && !buffered.closed {
            buffered = self.room.wait(buffered).unwrap_or_else(PoisonError::into_inner);
        }
        if buffered.closed {
            return Ok(None);
        }
        drop(buffered);
        let file = tempfile::tempfile_in(std::env::temp_dir());
        file.map(Some).map_err(|e| Error::disk("keeping a blob in TMPDIR,", &std::env::temp_dir(), e))
    }

    fn put(&self, digest: Digest, slice: Slice) {
        let mut buffered = self.lock();
        buffered.waiting = buffered.waiting.saturating_add(slice.size());
        buffered.blobs.insert(digest, slice);
    }

    /// The blob is no longer needed.
    pub fn forget(&self, digest: &Digest) {
        let mut buffered = self.lock();
        if let Some(slice) = buffered.blobs.remove(digest) {
            buffered.waiting = buffered.waiting.saturating_sub(slice.size());
            self.room.notify_all();
        }
    }

    /// No further blob is needed, so those that arrive need not wait.
    pub fn close(&self) {
        let mut buffered = self.lock();
        buffered.closed = true;
        buffered.blobs.clear();
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Buffered> {
        self.buffered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Source for StreamSource<'_> {
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList> {
        self.rest.tags(repository, need).await
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.rest.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        self.rest.manifest(reference, need).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        self.rest.referrers(repository, subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        let slice = self.buffer.lock().blobs.get(&blob.digest).cloned();
        match slice {
            Some(slice) if slice.size() == blob.size => Ok(slice.stream(offset)),
            Some(_) => Err(Error::damaged(format!("blob {} has another size than in its manifest", blob.digest))),
            None => self.rest.blob(repository, blob, offset).await,
        }
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        // What has passed is not available anywhere else.
        let has_passed = self.buffer.lock().blobs.contains_key(&blob.digest);
        if has_passed { Err(error) } else { self.rest.gave_wrong(repository, blob, error).await }
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.rest.counts_pulls(repository)
    }

    /// A blob that passes is not a file.
    fn files(&self) -> Option<&dyn Files> {
        None
    }
}
