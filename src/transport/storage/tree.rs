//! The files of a storage by their paths below `docker/registry/v2`, in a directory or in a plain tar that is read by
//! position. It does not depend on their meaning.
//!
//! # Threats
//! Names may lead out (`..`, absolute paths), links may point anywhere, and a pipe may keep a reader waiting. A directory is
//! read through its open root, and no link is followed below it, not even in the middle of a path. In a tar only regular files
//! and directories below the root count, and the number of entries and the length of their names are bounded. Anything odd is
//! [`Kind::Other`] and never read.

mod directory;
mod packed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use directory::Directory;
use packed::Packed;

use crate::archive::tar;
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Identity, Linkable};
use crate::content::Slice;

/// The root of a storage, relative to what people may call its directory: itself, a directory on the way to it, a registry's
/// `rootdirectory`, Harbor's data volume.
const ROOTS: [&str; 5] = ["", "v2", "registry/v2", "docker/registry/v2", "registry/docker/registry/v2"];

/// The files of a storage.
#[derive(Debug)]
pub struct StorageTree {
    /// The root, for messages.
    shown: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Directory(Directory),
    Tar(Packed),
}

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Directory,
    /// A link, a device, or a name that is not text.
    Other,
}

/// What is in the place of a file.
#[derive(Debug)]
pub enum FoundFile<F = Slice> {
    File(F),
    /// Something else, which is not read.
    Odd(&'static str),
    Nothing,
}

/// What is known about a file that was not opened.
#[derive(Debug)]
pub struct Seen {
    /// Size in bytes.
    pub size: u64,
    /// For linking.
    pub identity: Option<Identity>,
}

impl StorageTree {
    /// Opens a storage.
    ///
    /// # Errors
    /// It cannot be read, is compressed, or does not contain a storage of distribution.
    pub fn open(path: &Path) -> Result<StorageTree> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::disk("opening", path, e))?;
        if metadata.is_dir() {
            let (shown, root) = Directory::open(path)?.ok_or_else(|| none(path))?;
            return Ok(StorageTree { shown, form: Form::Directory(root) });
        }
        // Opening a pipe would wait for a writer.
        if !metadata.is_file() {
            return Err(none(path));
        }
        let file = fsops::open_plain(path).map_err(|e| Error::disk("opening", path, e))?;
        if !tar::is_tar(path, &file, metadata.len())? {
            return Err(none(path));
        }
        let (shown, packed) = Packed::open(path, Arc::new(file), metadata.len())?.ok_or_else(|| none(path))?;
        Ok(StorageTree { shown, form: Form::Tar(packed) })
    }

    /// A path in messages.
    pub fn shown(&self, path: &str) -> PathBuf {
        self.shown.join(path)
    }

    /// The problems of the tar itself, with the path of each entry.
    pub fn problems(&self) -> &[(String, String)] {
        match &self.form {
            Form::Directory(_) => &[],
            Form::Tar(packed) => packed.problems(),
        }
    }

    /// The names in a directory, sorted; empty if the directory does not exist.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn list(&self, directory: &str) -> Result<Vec<(String, Kind)>> {
        match &self.form {
            Form::Directory(root) => {
                root.list(directory).map_err(|e| Error::disk("reading", &self.shown(directory), e))
            }
            Form::Tar(packed) => Ok(packed.list(directory)),
        }
    }

    /// The file at `path`, to link it; `None` if files cannot be linked.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn linkable(&self, path: &str) -> Result<Option<Linkable>> {
        match &self.form {
            Form::Directory(root) => root.linkable(path).map_err(|e| Error::disk("opening", &self.shown(path), e)),
            Form::Tar(_) => Ok(None),
        }
    }

    /// [`linkable`](Self::linkable) for a file that was checked.
    pub fn linkable_as(&self, path: &str, identity: Identity) -> Option<Linkable> {
        match &self.form {
            Form::Directory(root) => Some(root.linkable_as(path, identity)),
            Form::Tar(_) => None,
        }
    }

    /// Whether all links of layers can be listed; for a tar, most are not kept.
    pub fn has_layers(&self) -> bool {
        matches!(self.form, Form::Directory(_))
    }

    /// The device of the files, if they can be linked.
    pub fn device(&self) -> Option<u64> {
        match &self.form {
            Form::Directory(root) => root.device(),
            Form::Tar(_) => None,
        }
    }

    /// [`file`](Self::file), only for its size.
    ///
    /// # Errors
    /// It exists and cannot be opened.
    pub fn look(&self, path: &str) -> Result<FoundFile<Seen>> {
        let seen = |slice: Slice| Seen { size: slice.size(), identity: None };
        match &self.form {
            Form::Directory(root) => match root.look(path) {
                Ok(Some(found)) => Ok(found),
                // Only opening it tells more.
                Ok(None) => Ok(self.file(path)?.map(seen)),
                Err(e) => Err(Error::disk("opening", &self.shown(path), e)),
            },
            Form::Tar(_) => Ok(self.file(path)?.map(seen)),
        }
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// It exists and cannot be opened.
    pub fn file(&self, path: &str) -> Result<FoundFile> {
        match &self.form {
            Form::Directory(root) => {
                let found = root.file(path, self.shown(path));
                found.map_err(|e| Error::disk("opening", &self.shown(path), e))
            }
            Form::Tar(packed) => Ok(packed.file(path, self.shown(path))),
        }
    }
}

impl<F> FoundFile<F> {
    fn map<G>(self, change: impl FnOnce(F) -> G) -> FoundFile<G> {
        match self {
            FoundFile::File(file) => FoundFile::File(change(file)),
            FoundFile::Odd(what) => FoundFile::Odd(what),
            FoundFile::Nothing => FoundFile::Nothing,
        }
    }
}

fn none(path: &Path) -> Error {
    Error::input(format!(
        "{} is not the storage of a registry: it contains no docker/registry/v2 with repositories and blobs",
        path.display()
    ))
}
