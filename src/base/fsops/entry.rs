//! A name in an open directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::dir::{Dir, Open, one};
use super::identity::{Identity, Occupant, Stat};
use super::names::parent;
use crate::base::error::{Error, Result};

/// A name in an open directory, whether or not anything has it.
#[derive(Clone, Debug)]
pub struct Entry {
    dir: Dir,
    name: OsString,
    path: PathBuf,
}

impl Entry {
    /// Opens the directory that contains `path`. Links on the way are followed; a link at its end is not.
    ///
    /// # Errors
    /// The directory cannot be opened, or `path` does not end in a name.
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

    /// The last component of `path`, in the same directory.
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

    /// The status of the name without following a link, or `None` if nothing has it or the system refuses.
    pub fn stat(&self) -> Option<Stat> {
        self.dir.stat(&self.name).ok().flatten()
    }

    /// Bytes allocated for the file; 0 if nothing has the name.
    pub fn allocated(&self) -> u64 {
        let blocks = self.stat().and_then(|stat| u64::try_from(stat.st_blocks).ok());
        blocks.unwrap_or_default().saturating_mul(512)
    }

    /// What has the name now, without following a link.
    pub fn occupant(&self) -> Occupant {
        Occupant(self.stat().as_ref().map(Identity::of))
    }

    /// Fails if something other than `expected` has the name.
    ///
    /// # Errors
    /// Something other than `expected` has the name now.
    pub fn refuse_other_than_occupant(&self, expected: Occupant) -> Result<()> {
        if self.occupant() == expected {
            return Ok(());
        }
        let text = "something else has taken this name and is not replaced; move it away, then run the same command \
                    again";
        Err(Error::input(format!("naming {}: {text}", self.path.display())))
    }

    /// Whether anything has the name.
    pub fn exists(&self) -> bool {
        self.stat().is_some()
    }

    /// Whether a regular file has the name.
    pub fn is_file(&self) -> bool {
        self.dir.is_of_type(&self.name, FileType::RegularFile)
    }

    /// Whether a regular file of `size` bytes has the name.
    pub fn is_file_of(&self, size: u64) -> bool {
        self.is_file() && self.stat().is_some_and(|stat| u64::try_from(stat.st_size) == Ok(size))
    }

    /// Whether the name still leads to this open directory.
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
    /// It is not a regular file, or the system refuses.
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
    /// The name is taken, or the system refuses.
    pub fn create_new(&self, mode: u32) -> Result<File> {
        self.dir.create_new(&self.name, mode)
    }

    /// Fails if something other than a regular file has the name.
    ///
    /// # Errors
    /// Something other than a regular file has the name.
    pub fn refuse_other_than_file(&self) -> Result<()> {
        self.refuse_other_than(FileType::RegularFile, "file")
    }

    /// Fails if something other than a directory has the name.
    ///
    /// # Errors
    /// Something other than a directory has the name.
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
    /// The system refuses; part of it may be gone.
    pub fn remove_tree(&self) -> Result<()> {
        self.dir.remove_tree(&self.name)
    }

    /// Renames the file or directory to `to`, and replaces any file with that name. Neither content nor names are synced:
    /// [`publish`](super::publish()) does that.
    ///
    /// # Errors
    /// The system refuses; nothing has changed.
    pub fn rename(&self, to: &Entry) -> Result<()> {
        let renamed = one(&self.name).and_then(|from| rustix::fs::renameat(&self.dir, from, &to.dir, one(&to.name)?));
        renamed.map_err(|e| Error::disk("naming", &to.path, e.into()))
    }

    /// Renames to `to` if `expected` has that name. If nothing has the name, nothing can be lost; otherwise a file that takes
    /// the name at this very moment is lost.
    ///
    /// # Errors
    /// Something else has the name, or the system refuses; nothing has changed.
    pub fn rename_over(&self, to: &Entry, expected: Occupant) -> Result<()> {
        to.refuse_other_than_occupant(expected)?;
        if expected.0.is_some() {
            return self.rename(to);
        }
        let renamed = one(&self.name).and_then(|from| {
            rustix::fs::renameat_with(&self.dir, from, &to.dir, one(&to.name)?, RenameFlags::NOREPLACE)
        });
        match renamed {
            // Not every file system supports this flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.rename(to),
            Err(Errno::EXIST) => to.refuse_other_than_occupant(expected),
            renamed => renamed.map_err(|e| Error::disk("naming", &to.path, e.into())),
        }
    }
}

impl Dir {
    /// The last component of `path`, in the directory below this one that the other components name. Missing directories are
    /// created with `mode`.
    ///
    /// # Errors
    /// A component is not a directory, or the system refuses.
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
/// Something other than a regular file exists there.
pub fn refuse_other_than_file(path: &Path) -> Result<()> {
    Entry::of(path).map_or(Ok(()), |entry| entry.refuse_other_than_file())
}

/// [`Entry::refuse_other_than_directory`] of `path`, whose directory need not exist.
///
/// # Errors
/// Something other than a directory exists there.
pub fn refuse_other_than_directory(path: &Path) -> Result<()> {
    Entry::of(path).map_or(Ok(()), |entry| entry.refuse_other_than_directory())
}
