//! Locks between runs. Some network file systems do not support locks; there, the operator must not run two writers at once.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Dir, Entry, Identity, Open};
use crate::base::error::{Error, Kind, Result};

/// Held while a bundle is written. A second run with the same output fails.
#[derive(Debug)]
pub struct WriteLock {
    _file: File,
    /// The locked output.
    output: Entry,
    lock: Entry,
}

impl WriteLock {
    /// Checks that no other process holds the lock.
    ///
    /// # Errors
    /// Another process holds it, or something else has its name.
    pub fn check(out: &Path) -> Result<()> {
        // If the directory does not exist, nothing is being written.
        let Ok(out) = Entry::of(out) else { return Ok(()) };
        let lock = out.beside(".partial.lock");
        lock.refuse_other_than_file()?;
        match lock.open(Open::Read).ok().map(|file| file.try_lock_shared()) {
            Some(Err(fs::TryLockError::WouldBlock)) => Err(locked_elsewhere(out.path())),
            _ => Ok(()),
        }
    }

    /// Opens the directory of `out` and locks the name.
    ///
    /// # Errors
    /// Another process holds the lock, or the directory cannot be written.
    pub fn take(out: &Path) -> Result<WriteLock> {
        let output = Entry::of(out)?;
        let lock = output.beside(".partial.lock");
        loop {
            let file = lock.open(Open::Keep)?;
            match file.try_lock() {
                Ok(()) if !is_still(&file, &lock) => {} // its former owner has just removed it
                Ok(()) => return Ok(WriteLock { _file: file, output, lock }),
                Err(fs::TryLockError::WouldBlock) => return Err(locked_elsewhere(out)),
                Err(fs::TryLockError::Error(error)) => {
                    tracing::debug!("{} cannot be locked: {error}", lock.path().display());
                    return Ok(WriteLock { _file: file, output, lock });
                }
            }
        }
    }

    /// Removes a lock that a killed run left next to `out`, which is complete.
    pub fn remove_orphaned(out: &Path) {
        let is_there = Entry::of(out).is_ok_and(|out| out.beside(".partial.lock").is_file());
        if is_there {
            // The holder of a lock removes it. On a read-only medium it stays and does no harm.
            let _ = WriteLock::take(out).map(drop);
        }
    }

    /// Takes the lock before it is known whether anything must be written. Returns `None` if nothing can be written there.
    ///
    /// # Errors
    /// Another process holds it.
    pub fn take_if_writable(out: &Path) -> Result<Option<WriteLock>> {
        match WriteLock::take(out) {
            Err(error) if error.kind() == Kind::Disk => Ok(None),
            taken => taken.map(Some),
        }
    }

    /// The locked output, in its open directory.
    pub fn output(&self) -> &Entry {
        &self.output
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // A lock file that stays does no harm: only the lock on it counts.
        let _ = self.lock.remove();
    }
}

/// Whether `name` still leads to the open file.
fn is_still(file: &File, name: &Entry) -> bool {
    let same = |file: &fs::Metadata, stat| Identity::new(file.dev(), file.ino()) == Identity::of(&stat);
    matches!((file.metadata(), name.stat()), (Ok(file), Some(stat)) if same(&file, stat))
}

fn locked_elsewhere(out: &Path) -> Error {
    Error::input(format!("writing {}: another gapferry is writing it", out.display()))
}

/// A directory that this run locks until it is dropped.
#[derive(Debug)]
pub struct LockedDir(Dir);

impl LockedDir {
    /// Returns `None` if another run holds it.
    pub fn try_take(dir: Dir) -> Option<LockedDir> {
        let locked = flock(&dir, FlockOperation::NonBlockingLockExclusive);
        (locked != Err(Errno::WOULDBLOCK)).then_some(LockedDir(dir))
    }

    /// Locks a directory.
    ///
    /// # Errors
    /// Another run holds it; the error says that writing `shown` failed.
    pub fn take(dir: Dir, shown: &Path) -> Result<LockedDir> {
        LockedDir::try_take(dir).ok_or_else(|| locked_elsewhere(shown))
    }

    /// Waits until no other run holds it.
    pub fn wait_for(dir: Dir) -> LockedDir {
        while flock(&dir, FlockOperation::LockExclusive) == Err(Errno::INTR) {}
        LockedDir(dir)
    }

    pub fn dir(&self) -> &Dir {
        &self.0
    }
}

impl Drop for LockedDir {
    /// Closing alone would leave the lock to a child process that is just being started.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// An open file that this run locks until it is dropped.
#[derive(Debug)]
pub struct LockedFile(Arc<File>);

impl LockedFile {
    /// Returns `None` if another run holds it.
    pub fn try_take(file: File) -> Option<LockedFile> {
        (!matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))).then(|| LockedFile(Arc::new(file)))
    }

    pub fn file(&self) -> &Arc<File> {
        &self.0
    }
}

impl Drop for LockedFile {
    /// Closing alone would leave the lock to a child process that is just being started.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}
