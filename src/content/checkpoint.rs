//! A source that keeps the manifests it has read in a file, so that a run that had to stop while reading them is continued
//! by the next: a registry that counts pulls would otherwise let neither ever come to an end.
//!
//! The file is a first line, [`FIRST_LINE`], and a row of entries: a line `DIGEST SIZE MEDIA-TYPE`, so many bytes, a line
//! feed. It is only ever added to, and removed when the job is done. A file of that name that does not begin so, be it empty,
//! is somebody else's: it stays as it is, and nothing is kept.
//!
//! **Threats.** The file lies about; it may be cut off, damaged or forged. Nothing counts that its digest does not prove when
//! it is read; what cannot be understood, and all after it, is as if it were not there. Lines and entries are bounded. That
//! nothing can be kept is no failure of the job.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Body, Files, Need, ReferrerList, Slice, Source, TagList};
use crate::base::error::{Error, Result};
use crate::base::fsops::LockedFile;
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, Reference, Repository, media_type};

/// By this we know our own file, also when only a part of it was written.
const FIRST_LINE: &[u8] = b"gapferry: manifests that were read, form 1\n";
/// So much of it has to be there: less, or nothing, may be anybody's.
const RECOGNIZABLE: usize = b"gapferry:".len();
/// The longest line before an entry, in bytes; a digest of sha512 and the longest media type need less than half of it.
const MAX_LINE: u64 = 512;
/// More manifests than any job has.
const MAX_ENTRIES: usize = 1_000_000;

/// See the module documentation.
pub struct Checkpoint<'a> {
    primary: &'a dyn Source,
    /// `None`: nothing is kept.
    path: Option<PathBuf>,
    /// What stands in the file's place and cannot be used, and why.
    obstacle: Option<(PathBuf, io::Error)>,
    /// How many an earlier run has left.
    found: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// Open for reading and writing; not before there is something to keep.
    file: Option<Arc<File>>,
    /// Keeps other runs from `file`.
    lock: Option<LockedFile>,
    /// Where the next entry goes.
    end: u64,
    /// The file could not be written: nothing more is kept.
    broken: bool,
}

#[derive(Clone)]
struct Entry {
    offset: u64,
    size: u64,
    media_type: String,
}

impl<'a> Checkpoint<'a> {
    /// Before `primary`, with what an earlier run has left in `path`. The file is made when there is something to keep.
    pub fn new(primary: &'a dyn Source, path: Option<PathBuf>) -> Checkpoint<'a> {
        let read = path.as_deref().map_or_else(|| Ok(State::default()), State::read);
        // What could not be read now, because another run holds it or whyever, is not to be written over later.
        let (state, path, obstacle) = match read {
            Ok(state) => (state, path, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (State::default(), path, None),
            Err(error) => (State::default(), None, path.map(|path| (path, error))),
        };
        Checkpoint { primary, path, obstacle, found: state.entries.len(), state: Mutex::new(state) }
    }

    /// The same, adding nothing.
    pub fn reading(primary: &'a dyn Source, path: &Path) -> Checkpoint<'a> {
        let kept = Checkpoint { path: None, obstacle: None, ..Checkpoint::new(primary, Some(path.to_owned())) };
        // A run that begins meanwhile may add to it.
        kept.state().share();
        kept
    }

    /// What stands where our file would, and why it is not used: it stays as it is, and nothing is kept.
    pub fn obstacle(&self) -> Option<(&Path, &io::Error)> {
        self.obstacle.as_ref().map(|(path, why)| (path.as_path(), why))
    }

    /// How many manifests the next run will find, and where.
    pub fn left(&self) -> Option<(usize, &Path)> {
        let state = self.state();
        let count = state.entries.len();
        self.path.as_deref().filter(|_| count > 0 && !state.broken).map(|path| (count, path))
    }

    /// The job is done: nobody needs the file any more.
    pub fn remove(&self) {
        let Some(path) = &self.path else { return };
        let state = std::mem::take(&mut *self.state());
        if state.file.is_some()
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!("removing {}: {error}", path.display());
        }
    }

    fn get(&self, digest: &Digest) -> Option<Manifest> {
        let (entry, file) = {
            let state = self.state();
            (state.entries.get(digest)?.clone(), state.file.clone()?)
        };
        let bytes = Slice::new(file, "", entry.offset, entry.size).read_all(MAX_MANIFEST_SIZE).ok()?;
        Manifest::parse(bytes, Some(&entry.media_type), Some(digest)).ok()
    }

    fn record(&self, manifest: &Manifest) {
        let Some(path) = &self.path else { return };
        let mut state = self.state();
        if state.broken || state.entries.contains_key(&manifest.digest()) {
            return;
        }
        if let Err(error) = state.add(path, manifest) {
            tracing::debug!("keeping manifests in {}: {error}", path.display());
            state.broken = true;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(path: &Path) -> io::Result<State> {
        let file = open(path, false)?;
        let length = file.file().metadata()?.len();
        let mut reader = BufReader::new(&**file.file());
        let mut state = State { end: begin(&mut reader)?, ..State::default() };
        while state.end > 0
            && state.entries.len() < MAX_ENTRIES
            && let Some((digest, entry)) = next(&mut reader, state.end)
            && entry.offset.saturating_add(entry.size) < length
        {
            state.end = entry.offset + entry.size + 1;
            reader.seek(SeekFrom::Start(state.end))?;
            state.entries.insert(digest, entry);
        }
        drop(reader);
        state.set_file(file);
        Ok(state)
    }

    fn set_file(&mut self, lock: LockedFile) -> Arc<File> {
        let file = lock.file().clone();
        (self.file, self.lock) = (Some(file.clone()), Some(lock));
        file
    }

    /// Lets other runs write the file that is read here.
    fn share(&mut self) {
        self.lock = None;
    }

    fn add(&mut self, path: &Path, manifest: &Manifest) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                // Another run that began meanwhile keeps what it has written.
                self.set_file(open(path, true)?)
            }
        };
        let (digest, size, media_type) = (manifest.digest(), manifest.size(), manifest.media_type());
        let line = format!("{digest} {size} {media_type}\n");
        let first = if self.end == 0 { FIRST_LINE } else { b"" };
        let bytes = manifest.bytes().map_err(io::Error::other)?;
        let bytes = [first, line.as_bytes(), &bytes, b"\n"].concat();
        // What stands there is the torn end of an earlier run.
        file.set_len(self.end)?;
        if let Err(error) = file.write_all_at(&bytes, self.end) {
            // A full disk: so short a file would not be known for ours again.
            if self.end == 0 && file.metadata().is_ok_and(|now| now.len() < RECOGNIZABLE as u64) {
                std::fs::remove_file(path)?;
            }
            return Err(error);
        }
        let offset = self.end + (first.len() + line.len()) as u64;
        let entry = Entry { offset, size, media_type: media_type.to_owned() };
        self.end += bytes.len() as u64;
        self.entries.insert(digest, entry);
        Ok(())
    }
}

/// Only a regular file, never through a link: it is written to. One run at a time: another would take our entries away.
fn open(path: &Path, new: bool) -> io::Result<LockedFile> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).write(true).create_new(new).custom_flags(no_follow.bits().cast_signed());
    let is_link = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    let file = options.open(path).map_err(|error| match is_link(&error) {
        true => io::Error::new(error.kind(), "it is a symbolic link"),
        false => error,
    })?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    LockedFile::try_take(file).ok_or_else(|| io::Error::new(io::ErrorKind::WouldBlock, "another run is using it"))
}

/// Reads the first line; gives where the entries begin, 0 where not even that line is whole.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: the file is none of ours.
fn begin(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut first = Vec::new();
    reader.take(FIRST_LINE.len() as u64).read_to_end(&mut first)?;
    match FIRST_LINE.strip_prefix(&first[..]) {
        Some(b"") => Ok(FIRST_LINE.len() as u64),
        Some(_) if first.len() >= RECOGNIZABLE => Ok(0),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of gapferry, and stays as it is")),
    }
}

/// The line at `at`, where `reader` stands.
fn next(reader: &mut impl BufRead, at: u64) -> Option<(Digest, Entry)> {
    let mut line = Vec::new();
    reader.take(MAX_LINE).read_until(b'\n', &mut line).ok()?;
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (digest, rest) = text.split_once(' ')?;
    let (size, media_type) = rest.split_once(' ')?;
    let size: u64 = size.parse().ok().filter(|size| *size <= MAX_MANIFEST_SIZE)?;
    let entry = Entry { offset: at + line.len() as u64, size, media_type: media_type.to_owned() };
    media_type::is_manifest(media_type).then_some((digest.parse().ok()?, entry))
}

#[async_trait]
impl Source for Checkpoint<'_> {
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList> {
        self.primary.tags(repository, need).await
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.primary.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        if let Some(kept) = reference.digest.and_then(|digest| self.get(&digest)) {
            return Ok(Some(kept));
        }
        let found = self.primary.manifest(reference, need).await?;
        found.iter().for_each(|manifest| self.record(manifest));
        Ok(found)
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        self.primary.referrers(repository, subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        self.primary.blob(repository, blob, offset).await
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        self.primary.gave_wrong(repository, blob, error).await
    }

    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.found > 0 || self.primary.counts_pulls(repository)
    }

    fn files(&self) -> Option<&dyn Files> {
        self.primary.files()
    }
}

#[cfg(test)]
mod tests;
