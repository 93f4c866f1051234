//! Replaces small files as a whole.

use std::collections::hash_map::RandomState;
use std::fs::{File, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::io::Errno;

use super::{Dir, Entry, publish};
use crate::base::error::{Error, Result};

/// Prefix of temporary names.
const PREFIX: &str = ".gapferry-";
/// Number of names to try.
const TRIES: usize = 100;

/// A file that is written next to another and takes its name when it is complete. Until then only its owner can read it. It is
/// removed when it is dropped.
#[derive(Debug)]
pub struct Replacement {
    file: File,
    at: Entry,
    to: Entry,
    is_published: bool,
}

impl Replacement {
    /// Creates the replacement of `path`.
    ///
    /// # Errors
    /// The directory of `path` cannot be opened or written.
    pub fn of(path: &Path) -> Result<Replacement> {
        // Messages name the intended file, even if its directory cannot be opened.
        Replacement::of_entry(Entry::try_of(path).map_err(|e| Error::disk("writing", path, e.into()))?)
    }

    /// Creates the replacement of `to`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn of_entry(to: Entry) -> Result<Replacement> {
        // Messages name the intended file, not the temporary one.
        let fail = |e: Errno| Error::disk("writing", to.path(), e.into());
        for _ in 0..TRIES {
            let at = Entry::in_dir(to.dir(), format!("{PREFIX}{:016x}", RandomState::new().build_hasher().finish()));
            match to.dir().try_create(at.name(), 0o600) {
                Ok(file) => return Ok(Replacement { file, at, to, is_published: false }),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        Err(Error::disk("writing", to.path(), Errno::EXIST.into()))
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the file readable for everyone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn make_readable(&self) -> Result<()> {
        let changed = self.file.set_permissions(Permissions::from_mode(0o644));
        changed.map_err(|e| Error::disk("writing", self.to.path(), e))
    }

    /// Publishes the file under its name.
    ///
    /// # Errors
    /// The system refuses; see [`publish`].
    pub fn commit(mut self) -> Result<()> {
        publish(&self.file, &self.at, &self.to)?;
        self.is_published = true;
        Ok(())
    }

    /// Removes replacements in `dir` that killed runs have left.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove_left(dir: &Dir) -> Result<()> {
        let is_left = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        dir.names()?.into_iter().filter(is_left).try_for_each(|name| dir.remove(name))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = self.at.remove();
        }
    }
}
