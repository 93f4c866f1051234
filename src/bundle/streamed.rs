//! A bundle out of a pipe: first what an import is planned with, then its blobs, each proven before anybody gets it.
//!
//! # Threats
//! Those of any layout that passes. Who sends it may put anything behind what was looked at, or nothing: so each later file
//! has to be one that `bundle.json` declared, with its size and sha256, and is had only when all of it has been proven.

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

/// How much waits to be pushed, in bytes, beside one blob of any size.
const MOST_WAITING: u64 = 256 << 20;
/// And how many blobs: each is an open file.
const MOST_FILES: usize = 128;
/// More problems are not listed.
const MOST_PROBLEMS: usize = 100;

/// A bundle of which the metadata and manifests have been read.
pub struct StreamedBundle<R> {
    path: PathBuf,
    passing: Passing<R>,
    /// The file whose bytes come next.
    next: Option<StreamedEntry>,
    /// The blobs that `bundle.json` declares, with their sizes in bytes.
    declared: HashMap<Digest, u64>,
    /// What became of the blobs that came first.
    before: Vec<(Digest, Result<()>)>,
    /// Blobs that are still to come.
    awaited: HashSet<Digest>,
}

/// What the stream turned out to be after its last byte.
#[derive(Debug, Default)]
pub struct Ending {
    /// What is wrong with it, for people.
    pub problems: Vec<String>,
    /// Bytes that came.
    pub length: u64,
    /// Reading ended early, and the sender is not at fault: this machine has no room, say.
    pub failed_here: bool,
}

/// The blobs that have come and are wanted still.
#[derive(Default)]
struct Buffered {
    blobs: HashMap<Digest, Slice>,
    /// Bytes of these.
    waiting: u64,
    /// Nobody wants any more.
    closed: bool,
}

/// Where the blobs wait that have come.
#[derive(Default)]
pub struct StreamBuffer {
    buffered: Mutex<Buffered>,
    room: Condvar,
}

/// What has come of the bundle, as a source.
pub struct StreamSource<'a> {
    pub buffer: Arc<StreamBuffer>,
    /// What came first, and wherever else something may be.
    pub rest: &'a dyn Source,
}

/// A blob that a stream did not bring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not received: after {} {why}", bytes(*length))]
pub struct NotReceived {
    /// How many bytes came before.
    pub length: u64,
    pub why: String,
}

impl Fact for NotReceived {}

impl<R: Read> StreamedBundle<R> {
    /// Reads up to the first file that is not kept: a layer. `before_blobs` sees what stands before the blobs, and may refuse
    /// to read on.
    ///
    /// # Errors
    /// Not readable, or refused.
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
            // The manifests are behind the tools, which nothing here needs.
            if !is_tool && !passing.will_keep(&entry)? {
                next = Some(entry);
                break;
            }
            passing.read(&entry, &mut |_| Ok(()))?;
        }
        if is_before {
            stands(&passing.so_far([]))?;
        }
        // Whoever checks it says what is wrong with one that has none.
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

    /// Reads to the end. What is wanted is proven, put into the buffer and reported to `came`; so is what will not come, as an error.
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
                // Nobody waits for the rest: what is in it, nobody will know.
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
                // It is cut: the next one says so.
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
        // What fails here is no fault of whoever sends.
        let kind = failed.as_ref().map_or(Kind::Damaged, Error::kind);
        problems.extend(failed.as_ref().map(Error::chain));
        for digest in open {
            let error = Error::of(kind, NotReceived { length, why: why.clone() });
            let _ = came.send((digest, Err(failed.iter().cloned().fold(error, Error::speaking_for))));
        }
        let layout = self.passing.into_layout();
        problems.extend(layout.faults().iter().map(|fault| match fault.path.as_str() {
            "" => format!("{path}: {}", fault.what),
            name => format!("{name}: {}", fault.what),
        }));
        let missing = self.declared.keys().filter(|digest| layout.size_of(&digest.blob_path()).is_none()).count();
        if missing > 0 && kind == Kind::Damaged {
            problems.push(format!("{path} has ended after {}: {missing} of its blobs have not come", bytes(length)));
        }
        problems.truncate(MOST_PROBLEMS);
        Ending { problems, length, failed_here: kind != Kind::Damaged }
    }

    /// One file, a blob by this digest; where it is wanted, it is put there. `false`: the tar ends in it.
    fn take(&mut self, entry: &StreamedEntry, digest: Option<Digest>, arrived: Option<&StreamBuffer>) -> Result<bool> {
        let Some((digest, size)) = digest.and_then(|digest| Some((digest, *self.declared.get(&digest)?))) else {
            self.passing.read(entry, &mut |_| Ok(()))?;
            // What stands behind the blobs is derived, and nothing here needs it.
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

/// What was sent is wrong, and would be wrong again: unlike a stream that was cut.
fn damaged(text: String) -> Error {
    Error::damaged(text).with_reason(Reason::DamagedFile)
}

/// # Errors
/// A blob is not what its name says.
fn prove(digest: &Digest, hashed: &Hashed) -> Result<()> {
    let wrong = |Wrong { found, .. }| damaged(format!("{}: wrong digest: the bytes have {found}", digest.blob_path()));
    hashed.prove(digest).map_err(wrong)
}

impl StreamBuffer {
    /// A file without a name for a blob of this size, when so much of what came before has been pushed that there is room;
    /// `None`: nobody wants it any more.
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

    /// Nobody wants this blob any more.
    pub fn forget(&self, digest: &Digest) {
        let mut buffered = self.lock();
        if let Some(slice) = buffered.blobs.remove(digest) {
            buffered.waiting = buffered.waiting.saturating_sub(slice.size());
            self.room.notify_all();
        }
    }

    /// Nobody wants any more: what still comes need not wait.
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
            Some(_) => Err(Error::damaged(format!("blob {} has another size than its manifest says", blob.digest))),
            None => self.rest.blob(repository, blob, offset).await,
        }
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        // What has passed comes from nowhere else.
        let has_passed = self.buffer.lock().blobs.contains_key(&blob.digest);
        if has_passed { Err(error) } else { self.rest.gave_wrong(repository, blob, error).await }
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.rest.counts_pulls(repository)
    }

    /// A blob that passes is no file.
    fn files(&self) -> Option<&dyn Files> {
        None
    }
}
