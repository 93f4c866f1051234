//! Changing a layout: files appear whole or not at all, and one change is made at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events};
use crate::bundle::{BUNDLE_JSON, CHUNKS, DOCKER_JSON, INDEX_JSON, OCI_LAYOUT, SIGNATURE, SUMS};
use crate::oci::{Algorithm, Digest};

use super::Options;
use super::journal::{self, JOURNAL, Journal, SHORT};
use super::names::{Change, MAX_INDEX, Names};
use super::open_uploads::Uploads;
use super::quota::{Quota, Share};
use super::stored::Stored;

/// Where files are until they are whole.
const UNFINISHED: &str = ".uploads";
/// What a bundle says of itself; untrue after a change. The sums go first: without them it is unfinished.
const FIRST_SEALS: [&str; 2] = [SUMS, SIGNATURE];
const OTHER_SEALS: [&str; 3] = [BUNDLE_JSON, DOCKER_JSON, CHUNKS];
/// Room for the names of two entries, which an index has twice, in bytes.
const FOR_NAMES: u64 = 8 * 1024;
/// Bytes of an index that is written because pushes have paused, for each second since it was written before.
const PER_SECOND: u64 = 1024 * 1024;

/// The right to change one layout directory; no other process has it meanwhile.
pub struct Writer {
    root: PathBuf,
    /// What readers see.
    names: Arc<RwLock<Names>>,
    turn: Mutex<Turn>,
    unsealed: Mutex<bool>,
    /// Whether blobs of an algorithm got names that may not be on the disk yet.
    unsynced: [(Algorithm, AtomicBool); 2],
    pub uploads: Uploads,
    pub quota: Arc<Quota>,
    events: Events,
    /// Locked as long as it is open.
    handle: File,
}

impl Drop for Writer {
    /// Closing the file alone would leave the lock to a child process that is just being started.
    fn drop(&mut self) {
        let _ = self.handle.unlock();
    }
}

/// The right to make a change, which one request has at a time.
pub struct Turn {
    journal: Journal,
    /// How long the journal was when the timer looked.
    seen: u64,
    /// When the index was written, and about how long it was then.
    written: Instant,
    index: u64,
}

impl Writer {
    /// Takes the directory, makes a layout of an empty or absent one, and reads its names. What a server that was killed has left
    /// in a journal becomes part of the index.
    pub fn open(root: &Path, options: &Options, events: Events) -> Result<Writer> {
        if root.is_file() {
            return Err(Error::input(format!("{} is a file: only a directory can be written to", root.display())));
        }
        fs::create_dir_all(root).map_err(|e| Error::disk("creating", root, e))?;
        let handle = File::open(root).map_err(|e| Error::disk("opening", root, e))?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::input(format!("another process is writing to {}", root.display())));
            }
            Err(TryLockError::Error(e)) => return Err(Error::disk("locking", root, e)),
        }
        for name in ["blobs", "blobs/sha256", "blobs/sha512", UNFINISHED] {
            refuse_link(&root.join(name))?;
        }
        let turn = Turn { journal: Journal::of(root), seen: 0, written: Instant::now(), index: 0 };
        let writer = Writer {
            root: root.to_owned(),
            names: Arc::new(RwLock::new(Names::empty())),
            turn: Mutex::new(turn),
            unsealed: Mutex::new(false),
            unsynced: [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| (algorithm, AtomicBool::new(false))),
            uploads: Uploads::new(options.limits),
            quota: Arc::new(Quota::of(root, options.quota)?),
            events,
            handle,
        };
        writer.forget_uploads();
        let mut files = fs::read_dir(root).map_err(|e| Error::disk("reading", root, e))?;
        if files.next().is_none() {
            writer.replace(OCI_LAYOUT, |file| file.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
            writer.write_index()?;
        }
        let stored = Stored::in_directory(root)?;
        let names = stored.names(root, &writer.events)?;
        *writer.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        let mut turn = writer.turn();
        turn.index = writer.size();
        if stored.has_journal() {
            writer.write_index()?;
            turn.journal.remove()?;
        }
        drop(turn);
        Ok(writer)
    }

    pub fn names(&self) -> &Arc<RwLock<Names>> {
        &self.names
    }

    /// Waits until no other change is under way.
    pub fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, on the disk and then for readers.
    ///
    /// # Errors
    /// Not writable, or the index would become larger than one that is read.
    pub fn commit(&self, turn: &mut Turn, change: &Change) -> Result<()> {
        let line = journal::line(change)?;
        let adds = matches!(change, Change::Tag { .. } | Change::List { .. });
        // The manifest, and the one that had the tag before.
        if adds && self.size() + 2 * line.len() as u64 + FOR_NAMES > MAX_INDEX {
            return Err(Error::new(Kind::Refused, "the layout has as many names as an index can hold"));
        }
        self.sync_blobs()?;
        self.unseal()?;
        turn.journal.append(&line)?;
        self.names.write().unwrap_or_else(PoisonError::into_inner).apply(change);
        if self.size() <= SHORT || turn.journal.length() >= turn.index {
            self.fold(turn);
        }
        Ok(())
    }

    /// Makes the journal part of the index. Where that fails the journal stays, and nothing is lost.
    fn fold(&self, turn: &mut Turn) {
        let folded = self.write_index().and_then(|()| turn.journal.empty());
        (turn.seen, turn.written, turn.index) = (0, Instant::now(), self.size());
        if let Err(error) = folded {
            self.events.report(Event::Warning(error.chain()));
        }
    }

    /// The same once nothing has changed since this was called before; the larger the index, the more rarely.
    pub fn fold_if_quiet(&self) {
        let Ok(mut turn) = self.turn.try_lock() else { return };
        let length = turn.journal.length();
        let quiet = std::mem::replace(&mut turn.seen, length) == length;
        if length > 0 && quiet && turn.written.elapsed() >= Duration::from_secs(self.size() / PER_SECOND) {
            self.fold(&mut turn);
        }
    }

    fn size(&self) -> u64 {
        self.names.read().unwrap_or_else(PoisonError::into_inner).size()
    }

    /// The blobs that a name will need are on the disk before the name is.
    fn sync_blobs(&self) -> Result<()> {
        for (algorithm, unsynced) in &self.unsynced {
            if unsynced.swap(false, Ordering::AcqRel) {
                let directory = self.root.join("blobs").join(algorithm.name());
                let synced = File::open(&directory).and_then(|directory| directory.sync_all());
                synced.map_err(|e| Error::disk("syncing", &directory, e))?;
            }
        }
        Ok(())
    }

    /// Just before the first change takes effect: what seals a bundle goes, with a warning. Whatever is refused or fails before
    /// that leaves the bundle as it is.
    fn unseal(&self) -> Result<()> {
        let mut unsealed = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        if *unsealed {
            return Ok(());
        }
        let sealed = self.root.join(BUNDLE_JSON).exists();
        if sealed {
            // A bundle has none, so this one was put there; as a plain layout's it would count.
            remove_if_there(&self.root.join(JOURNAL))?;
        }
        FIRST_SEALS.iter().try_for_each(|name| remove_if_there(&self.root.join(name)))?;
        if sealed {
            // The names that only the lock knows.
            self.sync_root()?;
            self.write_index()?;
        }
        OTHER_SEALS.iter().try_for_each(|name| remove_if_there(&self.root.join(name)))?;
        self.sync_root()?;
        if sealed {
            let text = format!(
                "{} was a sealed bundle and is being changed: {SUMS} and {BUNDLE_JSON} are removed, and it is a plain \
                 OCI layout from now on",
                self.root.display()
            );
            self.events.report(Event::Warning(text));
        }
        *unsealed = true;
        Ok(())
    }

    /// A new file to fill, and its path.
    pub fn unfinished(&self, id: &str) -> Result<(File, PathBuf)> {
        let directory = self.root.join(UNFINISHED);
        make_directory(&directory)?;
        let path = directory.join(id);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        Ok((file.map_err(|e| Error::disk("creating", &path, e))?, path))
    }

    /// Gives a proven file the name of its digest; says whether that is new content.
    pub fn adopt(&self, file: &File, from: &Path, digest: &Digest) -> Result<bool> {
        file.sync_data().map_err(|e| Error::disk("syncing", from, e))?;
        let to = self.root.join(digest.blob_path());
        make_directory(&self.root.join("blobs"))?;
        make_directory(&self.root.join("blobs").join(digest.algorithm().name()))?;
        let new = !to.exists();
        self.unseal()?;
        fs::rename(from, &to).map_err(|e| Error::disk("naming", &to, e))?;
        let own = self.unsynced.iter().find(|(algorithm, _)| *algorithm == digest.algorithm());
        own.inspect(|(_, unsynced)| unsynced.store(true, Ordering::Release));
        Ok(new)
    }

    /// Writes content under its digest.
    pub fn store(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let mut share = Share::of(&self.quota);
        share.grow(bytes.len() as u64)?;
        let id = new_id()?;
        let (mut file, path) = self.unfinished(&id)?;
        file.write_all(bytes).map_err(|e| Error::disk("writing", &path, e))?;
        if self.adopt(&file, &path, digest)? {
            share.keep();
        }
        Ok(())
    }

    /// Removes content.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        self.unseal()?;
        let path = self.root.join(digest.blob_path());
        let size = fs::symlink_metadata(&path).map_or(0, |metadata| metadata.len());
        remove_if_there(&path)?;
        self.quota.give_back(size);
        Ok(())
    }

    fn write_index(&self) -> Result<()> {
        self.replace(INDEX_JSON, |file| {
            let mut out = BufWriter::new(file);
            self.names.read().unwrap_or_else(PoisonError::into_inner).write(&mut out)?;
            out.flush()
        })
    }

    /// Replaces a file as a whole.
    fn replace(&self, name: &str, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let (path, (mut file, unfinished)) = (self.root.join(name), self.unfinished(&new_id()?)?);
        let written = write(&mut file).and_then(|()| file.sync_all());
        written.map_err(|e| Error::disk("writing", &unfinished, e))?;
        fs::rename(&unfinished, &path).map_err(|e| Error::disk("replacing", &path, e))?;
        self.sync_root()
    }

    fn sync_root(&self) -> Result<()> {
        self.handle.sync_all().map_err(|e| Error::disk("syncing", &self.root, e))
    }

    /// Leaves nothing that only a running server needs: unfinished files and the journal.
    pub fn close(&self) {
        let mut turn = self.turn();
        if turn.journal.length() > 0 {
            self.fold(&mut turn);
        }
        if turn.journal.is_begun()
            && turn.journal.length() == 0
            && let Err(error) = turn.journal.remove()
        {
            self.events.report(Event::Warning(error.chain()));
        }
        self.forget_uploads();
    }

    /// Removes unfinished files, of this or of an earlier process.
    fn forget_uploads(&self) {
        self.uploads.forget_all();
        let _ = fs::remove_dir_all(self.root.join(UNFINISHED));
    }
}

/// 32 hexadecimal digits that nobody can guess.
pub fn new_id() -> Result<String> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::new(Kind::Disk, "asking the system for random bytes"))?;
    // The digest is only a way to print bytes.
    Ok(Digest::of(Algorithm::Sha256, &random).hex()[..32].to_owned())
}

fn refuse_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::disk("reading", path, e)),
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Error::input(format!("{} is not a directory", path.display()))),
    }
}

fn make_directory(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(Error::disk("creating", path, e)),
        _ => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::disk("removing", path, e)),
        _ => Ok(()),
    }
}
