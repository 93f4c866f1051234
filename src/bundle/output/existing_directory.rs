//! An existing bundle in a directory, some of whose files are replaced because they are damaged or signed again.
//!
//! # Threats
//! A blob may have other names elsewhere, and a link may have taken a name. Existing files are therefore never written into:
//! every file is created anew and renamed.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::directory::{is_left, new_file, write};
use super::{Linking, Placement, Resuming, Slot};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Dir, Entry, Open, publish};
use crate::bundle::SUMS;
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::format::mode_of;
use crate::content::chunks::Chunks;
use crate::oci::Digest;

/// Suffix of a file that will replace another.
const UNFINISHED: &str = ".partial";
/// Mode of directories.
const MODE: u32 = 0o777;

/// See the module documentation.
pub struct ExistingDirectory {
    root: Dir,
}

impl ExistingDirectory {
    /// Opens the directory of a bundle.
    ///
    /// # Errors
    /// Something else is in the place of one of its directories, or the disk fails.
    pub fn open(out: &Entry) -> Result<ExistingDirectory> {
        let own = ["blobs", "blobs/sha256", "blobs/sha512", "tools"];
        own.iter().try_for_each(|name| fsops::refuse_other_than_directory(&out.path().join(name)))?;
        let directory = ExistingDirectory { root: out.open_dir()? };
        directory.remove_left()?;
        Ok(directory)
    }

    /// Makes room for these files by removing empty directories in their places. A link needs no removal, because the new file
    /// replaces it.
    ///
    /// # Errors
    /// A directory in one of the places is not empty, in which case nothing has changed; or the disk fails.
    pub fn make_room<'a>(&self, paths: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let mut empty = Vec::new();
        for path in paths {
            let (_, named) = self.names(path)?;
            if !named.dir().is_dir(named.name()) {
                continue;
            }
            if let Some(file) = named.open_dir()?.names()?.first() {
                let (shown, file) = (named.path().display(), file.to_string_lossy());
                let text = format!(
                    "it is a directory that contains {file}, and the bundle needs a file there; move \
                                    it away"
                );
                return Err(Error::input(format!("writing {shown}: {text}")));
            }
            empty.push(named);
        }
        empty.iter().try_for_each(|named| named.dir().remove_dir(named.name()))
    }

    /// Removes what a killed run has left of a file, because it does not belong to the bundle.
    fn remove_left(&self) -> Result<()> {
        self.root.each_file(&mut |file| {
            let path = file.path().strip_prefix(self.root.path()).unwrap_or(file.path());
            if file.is_file() && path.to_str().is_some_and(is_left) { file.remove() } else { Ok(()) }
        })
    }

    /// The name of a file, and that of its replacement.
    fn names(&self, path: &str) -> Result<(Entry, Entry)> {
        let named = self.root.make_parents(path, MODE)?;
        Ok((named.beside(UNFINISHED), named))
    }

    fn replace(&self, path: &str, fill: impl FnOnce(&Entry) -> Result<File>) -> Result<()> {
        let (new, named) = self.names(path)?;
        publish(&fill(&new)?, &new, &named)
    }
}

impl Drop for ExistingDirectory {
    fn drop(&mut self) {
        // What could not be finished does not belong to the bundle.
        let _ = self.remove_left();
    }
}

impl Placement for ExistingDirectory {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let (new, _) = self.names(&digest.blob_path())?;
        let file = new_file(&new, mode_of(&digest.blob_path()))?;
        Ok(Slot::new(Arc::new(file), new.path(), 0, size, 0))
    }

    fn restarted(&self, _: &Digest, slot: &Slot) -> Result<()> {
        slot.empty()
    }

    fn completed(&self, digest: &Digest) -> Result<()> {
        let (new, named) = self.names(&digest.blob_path())?;
        publish(&new.open(Open::Read)?, &new, &named)
    }

    /// A link would make two copies one, and damage to its bytes would damage both.
    fn linking(&self) -> Option<&dyn Linking> {
        None
    }

    fn resuming(&self) -> Option<&dyn Resuming> {
        None
    }

    fn seal(&self, files: &FileSet, trailer: &[KnownFile], _: &HashMap<Digest, Chunks>) -> Result<()> {
        for tool in &files.tools {
            self.replace(&tool.path(), |new| {
                let file = new_file(new, mode_of(&tool.path()))?;
                let write = |e| Error::disk("writing", new.path(), e);
                tool.copy(&mut |piece, at| file.write_all_at(piece, at).map_err(write))?;
                Ok(file)
            })?;
        }
        // The sums come last: without them, the directory is not a bundle.
        let (sums, others): (Vec<&KnownFile>, _) = files.head.iter().chain(trailer).partition(|file| file.path == SUMS);
        for file in others.into_iter().chain(sums) {
            self.replace(&file.path, |new| write(new, &file.bytes))?;
        }
        self.root.sync()
    }
}
