//! A layout that passes once: a tar out of a pipe. What is small and looks like JSON is kept, in a file without a name; of
//! everything else only what it hashes to.
//!
//! # Threats
//! Those of any tar, and that nobody can look twice: a name that was seen is not seen again, and what a file was is decided
//! when its last byte has passed. What is kept is bounded, by the file and in all.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{Form, FoundFiles, Layout};
use crate::archive::tar::{Entries, Place, Stream, StreamedFile};
use crate::base::error::{Error, Result};
use crate::content::chunks::ChunkHasher;
use crate::content::proof::Hashed;
use crate::oci::{Algorithm, Digest, Hasher, MAX_MANIFEST_SIZE};

/// How much is kept, in bytes.
const MOST_KEPT: u64 = 1 << 30;
/// How much is read at a time.
const BUFFER: usize = 256 * 1024;

/// What is left of the files that have passed.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// Blobs by the algorithm of their names, any other file by sha256.
    pub hashed: HashMap<String, Hashed>,
    /// Where those that were kept begin in the file.
    pub kept: HashMap<String, u64>,
}

/// A file whose bytes come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamedEntry {
    pub path: String,
    /// In bytes.
    pub size: u64,
}

/// See the module documentation.
pub struct Passing<R> {
    path: PathBuf,
    tar: Stream<R>,
    found: FoundFiles,
    passed: Passed,
    kept: Arc<File>,
    /// Whether the chunks of blobs that have not their digest are kept.
    locates: bool,
    /// Bytes that are kept.
    used: u64,
    buffer: Vec<u8>,
    /// How much of the buffer is the beginning of the file, looked at before it is read.
    ahead: usize,
}

impl<R: Read> Passing<R> {
    /// `path` is what errors call it. A place for what is kept is made in `TMPDIR`.
    ///
    /// # Errors
    /// There is no such place.
    pub fn new(path: &Path, input: R) -> Result<Passing<R>> {
        let place = std::env::temp_dir();
        let kept = tempfile::tempfile_in(&place).map_err(|e| Error::disk("keeping what is needed of", path, e))?;
        Ok(Passing {
            path: path.to_owned(),
            tar: Stream::new(path, input),
            found: FoundFiles::default(),
            passed: Passed::default(),
            kept: Arc::new(kept),
            locates: false,
            used: 0,
            buffer: vec![0; BUFFER],
            ahead: 0,
        })
    }

    /// Of blobs that turn out to have another digest the chunks are kept, to tell where.
    pub fn locating(self) -> Passing<R> {
        Passing { locates: true, ..self }
    }

    /// Bytes that have passed.
    pub fn position(&self) -> u64 {
        self.tar.position()
    }

    /// The next file; what has not been read of the one before is lost. Files that must not be there are faults, and not
    /// given.
    ///
    /// # Errors
    /// Not readable, or more entries than in any layout.
    pub fn advance(&mut self) -> Result<Option<StreamedEntry>> {
        self.ahead = 0;
        loop {
            let mut accepting = Accepting { found: &mut self.found, accepted: None };
            let next = self.tar.next(&mut accepting)?;
            let accepted = accepting.accepted;
            let Some(StreamedFile { place, .. }) = next else { return Ok(None) };
            if let Some(path) = accepted {
                return Ok(Some(StreamedEntry { path, size: place.size }));
            }
        }
    }

    /// Whether the file that [`Passing::advance`] gave last will be kept.
    ///
    /// # Errors
    /// Not readable.
    pub fn will_keep(&mut self, entry: &StreamedEntry) -> Result<bool> {
        if self.ahead == 0 {
            self.ahead = self.tar.read(&mut self.buffer, &mut self.found)?;
        }
        Ok(self.is_kept(entry, &self.buffer[..self.ahead]))
    }

    /// Reads the file that [`Passing::advance`] gave last; `take` gets its bytes. It is kept, where that is possible, if it may
    /// be one that is needed: JSON, or beside the blobs. `None`: the tar is cut within it, and it is not there.
    ///
    /// # Errors
    /// Not readable, or `take` has had enough.
    pub fn read(&mut self, entry: &StreamedEntry, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Option<Hashed>> {
        let expected = Digest::of_blob_path(&entry.path);
        let mut hasher = Hasher::new(expected.map_or(Algorithm::Sha256, |digest| digest.algorithm()));
        let mut chunks = expected.filter(|_| self.locates).map(|_| ChunkHasher::new());
        let (begin, mut keeps) = (self.used, None);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut ahead = std::mem::take(&mut self.ahead);
        let read = loop {
            let read = match ahead {
                0 => self.tar.read(&mut buffer, &mut self.found),
                _ => Ok(std::mem::take(&mut ahead)),
            };
            let read = match read {
                Ok(0) => break Ok(()),
                Ok(read) => read,
                Err(error) => break Err(error),
            };
            let piece = &buffer[..read];
            hasher.update(piece);
            chunks.iter_mut().for_each(|chunks| chunks.update(piece));
            if *keeps.get_or_insert_with(|| self.is_kept(entry, piece)) {
                let written = self.kept.write_all_at(piece, self.used);
                if let Err(e) = written {
                    break Err(Error::disk("keeping what is needed of", &self.path, e));
                }
                self.used += read as u64;
            }
            if let Err(error) = take(piece) {
                break Err(error);
            }
        };
        self.buffer = buffer;
        read?;
        if self.tar.is_cut() {
            self.found.entries.remove(&entry.path);
            return Ok(None);
        }
        if keeps.unwrap_or(true) {
            self.passed.kept.insert(entry.path.clone(), begin);
        }
        let mut hashed = Hashed::of(hasher);
        if let Some((expected, chunks)) = expected.zip(chunks)
            && hashed.prove(&expected).is_err()
        {
            hashed = hashed.consisting_of(chunks.finish());
        }
        self.passed.hashed.insert(entry.path.clone(), hashed.clone());
        Ok(Some(hashed))
    }

    /// Whether this file has been kept.
    pub fn has_kept(&self, path: &str) -> bool {
        self.passed.kept.contains_key(path)
    }

    /// What this file hashed to, if it has passed.
    pub fn hashed(&self, path: &str) -> Option<&Hashed> {
        self.passed.hashed.get(path)
    }

    /// Lets go of digests and places: nobody will ask for those of files that have passed until now.
    pub fn forget(&mut self) {
        self.passed = Passed::default();
    }

    fn is_kept(&self, entry: &StreamedEntry, first: &[u8]) -> bool {
        let is_beside = !entry.path.contains('/');
        let may_be_needed = is_beside || entry.size <= MAX_MANIFEST_SIZE && looks_like_json(first);
        may_be_needed && self.used.saturating_add(entry.size) <= MOST_KEPT
    }

    /// What has passed so far, and `promised`: files that are to come, with their sizes in bytes.
    pub fn so_far(&self, promised: impl IntoIterator<Item = (String, u64)>) -> Layout {
        let mut found = self.found.clone();
        for (path, size) in promised {
            // A name that no file can have is not believed; whatever comes by it is a fault then.
            if !found.entries.contains_key(&path) {
                found.file(path.as_bytes(), Place { offset: u64::MAX, size });
            }
        }
        self.layout(found)
    }

    /// All that has passed.
    pub fn into_layout(mut self) -> Layout {
        let found = std::mem::take(&mut self.found);
        self.layout(found)
    }

    fn layout(&self, found: FoundFiles) -> Layout {
        let (entries, faults) = found.finish();
        let form = Form::Passed { file: self.kept.clone(), passed: self.passed.clone() };
        Layout { path: self.path.clone(), form, entries, faults, index: OnceLock::new() }
    }
}

/// Notes which file the layout takes.
struct Accepting<'a> {
    found: &'a mut FoundFiles,
    accepted: Option<String>,
}

impl Entries for Accepting<'_> {
    fn file(&mut self, name: &[u8], place: Place) {
        let before = self.found.entries.len();
        self.found.file(name, place);
        let path = std::str::from_utf8(name).ok().map(|name| name.strip_prefix("./").unwrap_or(name));
        self.accepted = path.filter(|_| self.found.entries.len() > before).map(str::to_owned);
    }

    fn directory(&mut self, name: &[u8]) {
        self.found.directory(name);
    }

    fn other(&mut self, name: &[u8], what: impl Into<String>) {
        self.found.other(name, what);
    }

    fn cut(&mut self, name: &[u8], what: String) {
        self.found.cut(name, what);
    }

    fn fault(&mut self, name: &[u8], what: impl Into<String>) {
        self.found.fault(name, what);
    }

    fn count(&mut self, path: &Path) -> Result<()> {
        self.found.count(path)
    }
}

fn looks_like_json(first: &[u8]) -> bool {
    first.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'{')
}

/// What was not kept cannot be read again.
pub fn is_gone(path: &Path) -> Error {
    Error::disk("reading", path, io::Error::other("it has passed, and was not kept: it is no JSON, or too large"))
}
