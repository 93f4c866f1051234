//! A source that stores the manifests it has read in a file, so that the next run can continue where an interrupted one
//! stopped. A registry that counts pulls might otherwise never let a run finish.
//!
//! The file is a first line, [`FIRST_LINE`], and a sequence of entries: a line `DIGEST SIZE MEDIA-TYPE`, that many bytes, and
//! a line feed. It is only appended to, and removed when the job is done. A file of that name that begins differently, even an
//! empty one, belongs to someone else: it is left alone, and nothing is stored.
//!
//! **Threats.** The file is unprotected and may be cut off, damaged or forged. Nothing is used unless its digest verifies when
//! it is read. The first entry that cannot be parsed, and all after it, are ignored. Lines and entries are bounded. A failure
//! to store does not fail the job.

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

/// Identifies our own file, even if only part of this line was written.
const FIRST_LINE: &[u8] = b"gapferry: manifests that were read, form 1\n";
/// At least this much of it must exist: anything shorter may belong to anyone.
const RECOGNIZABLE: usize = b"gapferry:".len();
/// Maximum length of the line before an entry in bytes; a sha512 digest and the longest media type need less than half of it.
const MAX_LINE: u64 = 512;
/// More manifests than any job has.
const MAX_ENTRIES: usize = 1_000_000;

/// See the module documentation.
pub struct Checkpoint<'a> {
    primary: &'a dyn Source,
    /// `None` if nothing is stored.
    path: Option<PathBuf>,
    /// A file in this place that cannot be used, and why.
    obstacle: Option<(PathBuf, io::Error)>,
    /// Number of manifests from an earlier run.
    found: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// Open for reading and writing as soon as there is something to store.
    file: Option<Arc<File>>,
    /// Keeps other runs from using `file`.
    lock: Option<LockedFile>,
    /// The position of the next entry.
    end: u64,
    /// Whether writing the file failed; nothing more is stored then.
    broken: bool,
}

#[derive(Clone)]
struct Entry {
    offset: u64,
    size: u64,
    media_type: String,
}

impl<'a> Checkpoint<'a> {
    /// Wraps `primary` with what an earlier run stored in `path`. The file is created when there is something to store.
    pub fn new(primary: &'a dyn Source, path: Option<PathBuf>) -> Checkpoint<'a> {
        let read = path.as_deref().map_or_else(|| Ok(State::default()), State::read);
        // A file that cannot be read now, for example because another run holds it, must not be overwritten later.
        let (state, path, obstacle) = match read {
            Ok(state) => (state, path, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (State::default(), path, None),
            Err(error) => (State::default(), None, path.map(|path| (path, error))),
        };
        Checkpoint { primary, path, obstacle, found: state.entries.len(), state: Mutex::new(state) }
    }

    /// Does the same without storing anything.
    pub fn reading(primary: &'a dyn Source, path: &Path) -> Checkpoint<'a> {
        let kept = Checkpoint { path: None, obstacle: None, ..Checkpoint::new(primary, Some(path.to_owned())) };
        // A run that starts meanwhile may append to it.
        kept.state().share();
        kept
    }

    /// The file in our place that cannot be used, and why. It is left alone, and nothing is stored.
    pub fn obstacle(&self) -> Option<(&Path, &io::Error)> {
        self.obstacle.as_ref().map(|(path, why)| (path.as_path(), why))
    }

    /// The number of manifests that the next run will find, and the file.
    pub fn left(&self) -> Option<(usize, &Path)> {
        let state = self.state();
        let count = state.entries.len();
        self.path.as_deref().filter(|_| count > 0 && !state.broken).map(|path| (count, path))
    }

    /// Removes the file after the job is done.
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
                // Another run that started meanwhile keeps what it has written.
                self.set_file(open(path, true)?)
            }
        };
        let (digest, size, media_type) = (manifest.digest(), manifest.size(), manifest.media_type());
        let line = format!("{digest} {size} {media_type}\n");
        let first = if self.end == 0 { FIRST_LINE } else { b"" };
        let bytes = manifest.bytes().map_err(io::Error::other)?;
        let bytes = [first, line.as_bytes(), &bytes, b"\n"].concat();
        // The rest is an incomplete entry of an earlier run.
        file.set_len(self.end)?;
        if let Err(error) = file.write_all_at(&bytes, self.end) {
            // On a full disk, such a short file would no longer be recognized as ours.
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

/// Opens only a regular file and never through a link, because it is written to. Only one run may have it, because another one
/// would overwrite our entries.
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
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    LockedFile::try_take(file).ok_or_else(|| io::Error::new(io::ErrorKind::WouldBlock, "another run is using it"))
}

/// Reads the first line. Returns where the entries begin, or 0 if the line is incomplete.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`]: the file is not ours.
fn begin(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut first = Vec::new();
    reader.take(FIRST_LINE.len() as u64).read_to_end(&mut first)?;
    match FIRST_LINE.strip_prefix(&first[..]) {
        Some(b"") => Ok(FIRST_LINE.len() as u64),
        Some(_) if first.len() >= RECOGNIZABLE => Ok(0),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "gapferry did not write it, so it stays as it is")),
    }
}

/// Reads the entry at `at`, where `reader` is positioned.
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
