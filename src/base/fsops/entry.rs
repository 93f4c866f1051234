//! A name in an open directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::dir::{Dir, Open, one};
use super::identity::{Identity, Stat};
use super::names::parent;
use crate::base::error::{Error, Result};

/// A name in an open directory, whether anything has it or not.
#[derive(Clone, Debug)]
pub struct Entry {
    dir: Dir,
    name: OsString,
    path: PathBuf,
}

impl Entry {
    /// Opens the directory that `path` is in. Links on the way there are followed, one at its end is not.
    ///
    /// # Errors
    /// The directory cannot be opened, or `path` ends in no name.
    pub fn of(path: &Path) -> Result<Entry> {
        Entry::try_of(path).map_err(|e| Error::disk("opening", parent(path), e.into()))
    }

    pub(super) fn try_of(path: &Path) -> Result<Entry, Errno> {
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        Ok(Entry { dir: Dir::try_open(parent(path))?, name: name.to_owned(), path: path.to_owned() })
    }

    /// A name in `dir`.
    pub fn in_dir(dir: &Dir, name: impl AsRef<OsStr>) -> Entry {
        let name = name.as_ref();
        Entry { dir: dir.clone(), name: name.to_owned(), path: dir.path_of(name) }
    }

    /// The name with `suffix` appended, in the same directory.
    pub fn beside(&self, suffix: &str) -> Entry {
        let (mut name, mut path) = (self.name.clone(), self.path.clone().into_os_string());
        name.push(suffix);
        path.push(suffix);
        Entry { dir: self.dir.clone(), name, path: path.into() }
    }

    /// The name that `path` ends in, in the same directory.
    pub fn sibling(&self, path: &Path) -> Entry {
        let name = path.file_name().unwrap_or_default();
        Entry { dir: self.dir.clone(), name: name.to_owned(), path: self.path.with_file_name(name) }
    }

    /// For messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// What has the name; a link is not followed. `None`: nothing has, or the system does not say.
    pub fn stat(&self) -> Option<Stat> {
        self.dir.stat(&self.name).ok().flatten()
    }

    /// Bytes that the file system has given to what has the name; 0 if nothing has.
    pub fn allocated(&self) -> u64 {
        let blocks = self.stat().and_then(|stat| u64::try_from(stat.st_blocks).ok());
        blocks.unwrap_or_default().saturating_mul(512)
    }

    /// Whether anything has the name.
    pub fn exists(&self) -> bool {
        self.stat().is_some()
    }

    /// Whether a plain file has the name.
    pub fn is_file(&self) -> bool {
        self.dir.is_of_type(&self.name, FileType::RegularFile)
    }

    /// Whether a plain file of `size` bytes has the name.
    pub fn is_file_of(&self, size: u64) -> bool {
        self.is_file() && self.stat().is_some_and(|stat| u64::try_from(stat.st_size) == Ok(size))
    }

    /// Whether the name leads to this open directory.
    ///
    /// # Errors
    /// The system refuses.
    pub fn is_still(&self, dir: &Dir) -> Result<bool> {
        let identity = dir.identity()?;
        Ok(self.stat().is_some_and(|stat| Identity::of(&stat) == identity))
    }

    /// [`Dir::open_file`] of this name.
    ///
    /// # Errors
    /// It is no plain file, or the system refuses.
    pub fn open(&self, how: Open) -> Result<File> {
        self.dir.open_file(&self.name, how)
    }

    /// [`Dir::dir`] of this name.
    ///
    /// # Errors
    /// No directory has the name, or the system refuses.
    pub fn open_dir(&self) -> Result<Dir> {
        self.dir.dir(&self.name)
    }

    /// [`Dir::create_new`] of this name.
    ///
    /// # Errors
    /// Something has the name already, or the system refuses.
    pub fn create_new(&self, mode: u32) -> Result<File> {
        self.dir.create_new(&self.name, mode)
    }

    /// # Errors
    /// Something else than a plain file has the name.
    pub fn refuse_other_than_file(&self) -> Result<()> {
        self.refuse_other_than(FileType::RegularFile, "file")
    }

    /// # Errors
    /// Something else than a directory has the name.
    pub fn refuse_other_than_directory(&self) -> Result<()> {
        self.refuse_other_than(FileType::Directory, "directory")
    }

    fn refuse_other_than(&self, kind: FileType, wanted: &str) -> Result<()> {
        match self.stat() {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) != kind => Err(self.dir.not_ours(&self.name, wanted)),
            _ => Ok(()),
        }
    }

    /// [`Dir::remove`] of this name.
    ///
    /// # Errors
    /// It is a directory, or the system refuses.
    pub fn remove(&self) -> Result<()> {
        self.dir.remove(&self.name)
    }

    /// [`Dir::remove_tree`] of this name.
    ///
    /// # Errors
    /// The system refuses; some of it may be gone.
    pub fn remove_tree(&self) -> Result<()> {
        self.dir.remove_tree(&self.name)
    }

    /// Gives the file or directory the name `to`, in place of any file that has it. Neither bytes nor names are synced:
    /// [`publish`](super::publish()) does that.
    ///
    /// # Errors
    /// The system refuses; nothing has changed.
    pub fn rename(&self, to: &Entry) -> Result<()> {
        let renamed = one(&self.name).and_then(|from| rustix::fs::renameat(&self.dir, from, &to.dir, one(&to.name)?));
        renamed.map_err(|e| Error::disk("naming", &to.path, e.into()))
    }
}

impl Dir {
    /// The last name of `path`, in the directory below this one that the rest of `path` names; what is missing of that is made
    /// with `mode`.
    ///
    /// # Errors
    /// Something else than a directory is on the way, or the system refuses.
    pub fn make_parents(&self, path: &str, mode: u32) -> Result<Entry> {
        match path.rsplit_once('/') {
            Some((above, name)) => Ok(Entry::in_dir(&self.make_all(above, mode)?, name)),
            None => Ok(Entry::in_dir(self, path)),
        }
    }
}

/// [`Entry::refuse_other_than_file`] of `path`, whose directory need not exist.
///
/// # Errors
/// Something else than a plain file is there.
pub fn refuse_other_than_file(path: &Path) -> Result<()> {
    Entry::of(path).map_or(Ok(()), |entry| entry.refuse_other_than_file())
}

/// [`Entry::refuse_other_than_directory`] of `path`, whose directory need not exist.
///
/// # Errors
/// Something else than a directory is there.
pub fn refuse_other_than_directory(path: &Path) -> Result<()> {
    Entry::of(path).map_or(Ok(()), |entry| entry.refuse_other_than_directory())
}
