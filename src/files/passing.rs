//! A layout that passes once: a tar from a pipe. Small files that look like JSON are kept in an unnamed file; of everything
//! else only the hash is kept.
//!
//! # Threats
//! Those of any tar; in addition, nothing can be looked at twice. A name is seen once, and the verdict about a file is final
//! when its last byte has passed. What is kept is bounded, per file and in total.

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

/// Maximum size of kept data in bytes.
const MOST_KEPT: u64 = 1 << 30;
/// Bytes per read.
const BUFFER: usize = 256 * 1024;

/// What is left of files that have passed.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// Blobs by the algorithm of their names, all other files by sha256.
    pub hashed: HashMap<String, Hashed>,
    /// Position of the kept files in the temporary file.
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
    /// Whether to keep the chunks of blobs with a wrong digest.
    locates: bool,
    /// Bytes that are kept.
    used: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were read ahead to look at the start of the file.
    ahead: usize,
}

impl<R: Read> Passing<R> {
    /// `path` is the name in errors. The kept data goes to `TMPDIR`.
    ///
    /// # Errors
    /// The temporary file cannot be created.
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

    /// Keeps the chunks of blobs with a wrong digest, to locate the damage.
    pub fn locating(self) -> Passing<R> {
        Passing { locates: true, ..self }
    }

    /// Bytes that have passed.
    pub fn position(&self) -> u64 {
        self.tar.position()
    }

    /// Returns the next file, and drops the rest of the previous one. Files that must not exist are recorded as faults and
    /// skipped.
    ///
    /// # Errors
    /// The stream cannot be read, or has more entries than any layout.
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

    /// Whether the file that [`Passing::advance`] returned last will be kept.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub fn will_keep(&mut self, entry: &StreamedEntry) -> Result<bool> {
        if self.ahead == 0 {
            self.ahead = self.tar.read(&mut self.buffer, &mut self.found)?;
        }
        Ok(self.is_kept(entry, &self.buffer[..self.ahead]))
    }

    /// Reads the file that [`Passing::advance`] returned last and passes its bytes to `take`. The file is kept if possible and
    /// if it may be needed: if it is JSON or not a blob. Returns `None` if the tar is cut within it; the file is then missing.
    ///
    /// # Errors
    /// The stream cannot be read, or `take` stopped.
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

    /// The hash of this file, if it has passed.
    pub fn hashed(&self, path: &str) -> Option<&Hashed> {
        self.passed.hashed.get(path)
    }

    /// Drops the digests and positions of files that have passed.
    pub fn forget(&mut self) {
        self.passed = Passed::default();
    }

    fn is_kept(&self, entry: &StreamedEntry, first: &[u8]) -> bool {
        let is_beside = !entry.path.contains('/');
        let may_be_needed = is_beside || entry.size <= MAX_MANIFEST_SIZE && looks_like_json(first);
        may_be_needed && self.used.saturating_add(entry.size) <= MOST_KEPT
    }

    /// What has passed so far, and `promised`: files still to come, with their sizes in bytes.
    pub fn so_far(&self, promised: impl IntoIterator<Item = (String, u64)>) -> Layout {
        let mut found = self.found.clone();
        for (path, size) in promised {
            // A name that no file can have is ignored; a file that comes by it is a fault.
            if !found.entries.contains_key(&path) {
                found.file(path.as_bytes(), Place { offset: u64::MAX, size });
            }
        }
        self.layout(found)
    }

    /// Everything that has passed.
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

/// Records which file the layout accepts.
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

/// A file that was not kept cannot be read again.
pub fn is_gone(path: &Path) -> Error {
    Error::disk("reading", path, io::Error::other("it has passed and was not kept: it is not JSON, or too large"))
}
