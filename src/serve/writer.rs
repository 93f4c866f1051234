//! Changing a layout: files appear whole or not at all, and one change is made at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bundle::{BUNDLE_JSON, CHUNKS, DOCKER_JSON, INDEX_JSON, OCI_LAYOUT, SIGNATURE, SUMS};
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Digest};
use crate::progress::{Event, Events};

use super::names::Names;
use super::quota::{Quota, Share};
use super::shelf::{MAX_INDEX, Shelf};
use super::uploads::Uploads;

/// Where files are until they are whole.
const UNFINISHED: &str = ".uploads";
/// What a bundle says of itself; untrue after a change. The sums go first: without them it is unfinished.
const SEALS: [&str; 5] = [SUMS, SIGNATURE, BUNDLE_JSON, DOCKER_JSON, CHUNKS];

/// The right to change one layout directory; no other process has it meanwhile.
pub struct Writer {
    root: PathBuf,
    turn: Mutex<()>,
    unsealed: Mutex<bool>,
    pub uploads: Uploads,
    pub quota: Arc<Quota>,
    events: Events,
    /// Locked as long as it is open.
    _root: File,
}

impl Writer {
    /// Takes the directory, makes a layout of an empty or absent one, and gives the content of its index.
    pub fn open(root: &Path, quota: Option<u64>, events: Events) -> Result<(Writer, Vec<u8>)> {
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
        let writer = Writer {
            root: root.to_owned(),
            turn: Mutex::new(()),
            unsealed: Mutex::new(false),
            uploads: Uploads::default(),
            quota: Arc::new(Quota::of(root, quota)?),
            events,
            _root: handle,
        };
        writer.close();
        let mut files = fs::read_dir(root).map_err(|e| Error::disk("reading", root, e))?;
        if files.next().is_none() {
            writer.begin_layout()?;
        }
        let index = root.join(INDEX_JSON);
        let size = match fs::symlink_metadata(&index) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => return Err(Error::input(format!("{} is not an OCI image layout", root.display()))),
        };
        if size > MAX_INDEX {
            return Err(Error::damaged(format!("{} has {size} bytes, more than {MAX_INDEX}", index.display())));
        }
        let bytes = fs::read(&index).map_err(|e| Error::disk("reading", &index, e))?;
        Ok((writer, bytes))
    }

    fn begin_layout(&self) -> Result<()> {
        self.replace(&self.root.join(OCI_LAYOUT), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.replace(&self.root.join(INDEX_JSON), &Names::empty().to_json())
    }

    /// Waits until no other change is under way.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Just before the first change takes effect: what seals a bundle goes, with a warning. Whatever is refused or fails before
    /// that leaves the bundle as it is.
    fn unseal(&self) -> Result<()> {
        let mut unsealed = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        if *unsealed {
            return Ok(());
        }
        let sealed = self.root.join(BUNDLE_JSON).exists();
        for name in SEALS {
            remove_if_there(&self.root.join(name))?;
        }
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

    /// Makes `names` the layout's index, on disk and then for readers.
    pub fn publish(&self, shelf: &Shelf, names: Names) -> Result<()> {
        self.replace(&self.root.join(INDEX_JSON), &names.to_json())?;
        shelf.set_names(names);
        Ok(())
    }

    /// Replaces a file as a whole.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let (mut file, unfinished) = self.unfinished(&new_id()?)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::disk("writing", &unfinished, e))?;
        self.unseal()?;
        fs::rename(&unfinished, path).map_err(|e| Error::disk("replacing", path, e))?;
        self._root.sync_all().map_err(|e| Error::disk("syncing", &self.root, e))
    }

    /// Removes unfinished files, of this or of an earlier process.
    pub fn close(&self) {
        self.uploads.forget_all();
        let _ = fs::remove_dir_all(self.root.join(UNFINISHED));
    }
}

/// 32 hexadecimal digits that nobody can guess.
pub fn new_id() -> Result<String> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| Error::new(crate::error::Kind::Disk, "asking the system for random bytes"))?;
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
