//! Changes a layout: files appear completely or not at all, and only one change is made at a time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{Dir, Entry, LockedDir, publish};
use crate::base::progress::{Event, Events};
use crate::bundle::{BUNDLE_JSON, CHUNKS, DOCKER_JSON, INDEX_JSON, OCI_LAYOUT, SIGNATURE, SUMS};
use crate::oci::{Algorithm, Digest};

use super::Options;
use super::journal::{self, JOURNAL, LayoutJournal, SHORT};
use super::names::{Change, LayoutIndex, MAX_INDEX};
use super::open_uploads::Uploads;
use super::quota::{Quota, Share};
use super::stored::StoredIndex;

/// The directory for incomplete files.
const UNFINISHED: &str = ".uploads";
/// The files by which a bundle describes itself; they are wrong after a change. The sums are removed first: without them the
/// bundle is unfinished.
const FIRST_SEALS: [&str; 2] = [SUMS, SIGNATURE];
const OTHER_SEALS: [&str; 3] = [BUNDLE_JSON, DOCKER_JSON, CHUNKS];
/// Modes of directories and files.
const DIR_MODE: u32 = 0o777;
const FILE_MODE: u32 = 0o666;
/// Space in bytes for the names of two entries, which an index contains twice.
const FOR_NAMES: u64 = 8 * 1024;
/// Bytes of an index that may be written during a pause, for each second since it was last written.
const PER_SECOND: u64 = 1024 * 1024;

/// The right to change a layout directory, which no other process has at the same time.
pub struct LayoutWriter {
    /// Locked while it is open.
    root: LockedDir,
    unfinished: Mutex<Option<Dir>>,
    /// What readers see.
    names: Arc<RwLock<LayoutIndex>>,
    turn: Mutex<WriteTurn>,
    unsealed: Mutex<bool>,
    /// Whether blobs of an algorithm were named and may not be on the disk yet.
    unsynced: [(Algorithm, AtomicBool); 2],
    pub uploads: Uploads,
    pub quota: Arc<Quota>,
    events: Events,
}

/// The right to make a change, held by one request at a time.
pub struct WriteTurn {
    journal: LayoutJournal,
    /// Length of the journal when the timer last looked.
    seen: u64,
    /// When the index was written, and its approximate size.
    written: Instant,
    index: u64,
}

impl LayoutWriter {
    /// Takes the directory, turns an empty or missing one into a layout, and reads its names. The journal of a killed server
    /// is merged into the index.
    pub fn open(root: &Path, options: &Options, events: Events) -> Result<LayoutWriter> {
        if root.is_file() {
            return Err(Error::input(format!("{} is a file: only a directory can be written to", root.display())));
        }
        let held = || Error::input(format!("another process is writing to {}", root.display()));
        let dir = LockedDir::try_take(Dir::create(root)?).ok_or_else(held)?;
        for name in ["blobs", "blobs/sha256", "blobs/sha512", UNFINISHED] {
            refuse_link(dir.dir(), name)?;
        }
        let turn = WriteTurn { journal: LayoutJournal::of(dir.dir()), seen: 0, written: Instant::now(), index: 0 };
        let writer = LayoutWriter {
            root: dir,
            unfinished: Mutex::default(),
            names: Arc::new(RwLock::new(LayoutIndex::empty())),
            turn: Mutex::new(turn),
            unsealed: Mutex::new(false),
            unsynced: [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| (algorithm, AtomicBool::new(false))),
            uploads: Uploads::new(options.limits),
            quota: Arc::new(Quota::of(root, options.quota)?),
            events,
        };
        writer.forget_uploads();
        if writer.root.dir().names()?.is_empty() {
            writer.replace(OCI_LAYOUT, |file| file.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
            writer.write_index()?;
        }
        let stored = StoredIndex::in_directory(root)?;
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

    pub fn names(&self) -> &Arc<RwLock<LayoutIndex>> {
        &self.names
    }

    /// Waits until no other change is in progress.
    pub fn turn(&self) -> MutexGuard<'_, WriteTurn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, on the disk and then for readers.
    ///
    /// # Errors
    /// The disk cannot be written, or the index would exceed its maximum size.
    pub fn commit(&self, turn: &mut WriteTurn, change: &Change) -> Result<()> {
        let line = journal::line(change)?;
        let adds = matches!(change, Change::Tag { .. } | Change::List { .. });
        // The manifest, and the one that had the tag before.
        if adds && self.size() + 2 * line.len() as u64 + FOR_NAMES > MAX_INDEX {
            return Err(Error::new(Kind::Refused, "the layout already has the maximum number of names"));
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

    /// Merges the journal into the index. If that fails the journal stays, and nothing is lost.
    fn fold(&self, turn: &mut WriteTurn) {
        let folded = self.write_index().and_then(|()| turn.journal.empty());
        (turn.seen, turn.written, turn.index) = (0, Instant::now(), self.size());
        if let Err(error) = folded {
            self.events.report(Event::Warning(error.chain()));
        }
    }

    /// Does the same if nothing has changed since the last call; the larger the index, the more rarely.
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

    /// Syncs the blobs that a name will need before the name.
    fn sync_blobs(&self) -> Result<()> {
        for (algorithm, unsynced) in &self.unsynced {
            if unsynced.swap(false, Ordering::AcqRel) {
                self.root.dir().dir("blobs")?.dir(algorithm.name())?.sync()?;
            }
        }
        Ok(())
    }

    /// Unseals a bundle, with a warning, just before the first change takes effect. A change that is refused or fails earlier
    /// leaves the bundle unchanged.
    fn unseal(&self) -> Result<()> {
        let mut unsealed = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        if *unsealed {
            return Ok(());
        }
        let root = self.root.dir();
        let sealed = root.stat(BUNDLE_JSON)?.is_some();
        if sealed {
            // A bundle has no journal, so this one was planted; in a plain layout it would count.
            root.remove(JOURNAL)?;
        }
        FIRST_SEALS.iter().try_for_each(|name| root.remove(name))?;
        if sealed {
            // The names that only the lock has.
            root.sync()?;
            self.write_index()?;
        }
        OTHER_SEALS.iter().try_for_each(|name| root.remove(name))?;
        root.sync()?;
        if sealed {
            let text = format!(
                "{} was a sealed bundle and is being changed: {SUMS} and {BUNDLE_JSON} are removed, and it is a plain \
                 OCI layout from now on",
                root.path().display()
            );
            self.events.report(Event::Warning(text));
        }
        *unsealed = true;
        Ok(())
    }

    /// A new file to fill, and its name until it is complete.
    pub fn unfinished(&self, id: &str) -> Result<(File, Entry)> {
        let entry = Entry::in_dir(&self.unfinished_dir()?, id);
        Ok((entry.create_new(FILE_MODE)?, entry))
    }

    /// Opened once for all uploads; created again if it was removed.
    fn unfinished_dir(&self) -> Result<Dir> {
        let mut open = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = &*open
            && Entry::in_dir(self.root.dir(), UNFINISHED).is_still(dir)?
        {
            return Ok(dir.clone());
        }
        Ok(open.insert(self.root.dir().make(UNFINISHED, DIR_MODE)?.dir).clone())
    }

    /// Names a proven file by its digest. Returns whether the content is new.
    pub fn adopt(&self, file: &File, from: &Entry, digest: &Digest) -> Result<bool> {
        file.sync_data().map_err(|e| Error::disk("syncing", from.path(), e))?;
        let to = self.root.dir().make_parents(&digest.blob_path(), DIR_MODE)?;
        let new = !to.exists();
        self.unseal()?;
        from.rename(&to)?;
        let own = self.unsynced.iter().find(|(algorithm, _)| *algorithm == digest.algorithm());
        own.inspect(|(_, unsynced)| unsynced.store(true, Ordering::Release));
        Ok(new)
    }

    /// Writes content under its digest.
    pub fn store(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let mut share = Share::of(&self.quota);
        share.grow(bytes.len() as u64)?;
        let id = new_id()?;
        let (mut file, entry) = self.unfinished(&id)?;
        file.write_all(bytes).map_err(|e| Error::disk("writing", entry.path(), e))?;
        if self.adopt(&file, &entry, digest)? {
            share.commit();
        }
        Ok(())
    }

    /// Removes content.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        self.unseal()?;
        let blob = self.root.dir().make_parents(&digest.blob_path(), DIR_MODE)?;
        let size = blob.stat().and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or_default();
        blob.remove()?;
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

    /// Replaces a file atomically.
    fn replace(&self, name: &str, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        let (mut file, unfinished) = self.unfinished(&new_id()?)?;
        write(&mut file).map_err(|e| Error::disk("writing", unfinished.path(), e))?;
        publish(&file, &unfinished, &Entry::in_dir(self.root.dir(), name))
    }

    /// Removes what only a running server needs: incomplete files and the journal.
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

    /// Removes incomplete files of this or an earlier process.
    fn forget_uploads(&self) {
        self.uploads.forget_all();
        let _ = self.root.dir().remove_tree(UNFINISHED);
    }
}

/// 32 unpredictable hexadecimal digits.
pub fn new_id() -> Result<String> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::new(Kind::Disk, "asking the system for random bytes"))?;
    // The digest only formats the bytes.
    //
    Ok(Digest::of(Algorithm::Sha256, &random).hex()[..32].to_owned())
}

fn refuse_link(root: &Dir, name: &str) -> Result<()> {
    match root.open_below(name, OFlags::DIRECTORY) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
            Err(Error::input(format!("{} is not a directory", root.path_of(name).display())))
        }
        Err(errno) => Err(Error::disk("reading", &root.path_of(name), errno.into())),
    }
}
