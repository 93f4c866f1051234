//! Gives finished files and directories their final names.

use std::fs::File;

use rustix::fs::RenameFlags;

use super::{Dir, Entry, Occupant};
use crate::base::error::{Error, Result};

/// A synced file that still has its temporary name.
#[derive(Debug)]
#[must_use = "it has no name yet"]
pub struct Synced {
    from: Entry,
    to: Entry,
    /// What it may replace; `None` for any file.
    over: Option<Occupant>,
}

impl Synced {
    /// Syncs `file`, which has the temporary name `from` and the final name `to`.
    ///
    /// # Errors
    /// The medium refuses.
    pub fn new(file: &File, from: Entry, to: Entry) -> Result<Synced> {
        file.sync_all().map_err(|e| Error::disk("syncing", from.path(), e))?;
        Ok(Synced { from, to, over: None })
    }

    /// Restricts what it may replace to `expected`.
    pub fn over(self, expected: Occupant) -> Synced {
        Synced { over: Some(expected), ..self }
    }

    /// Gives all files their final names, in order, and syncs the names. Existing files are replaced.
    ///
    /// # Errors
    /// The system refuses; some files may have their names.
    pub fn publish(all: impl IntoIterator<Item = Synced>) -> Result<()> {
        let mut directories: Vec<Dir> = Vec::new();
        for Synced { from, to, over } in all {
            match over {
                Some(expected) => from.rename_over(&to, expected)?,
                None => from.rename(&to)?,
            }
            if !directories.iter().any(|dir| dir.path() == to.dir().path()) {
                directories.push(to.dir().clone());
            }
        }
        directories.iter().try_for_each(Dir::sync)
    }
}

/// Syncs `file`, renames it from `from` to `to`, and syncs the name. An existing file is replaced.
///
/// # Errors
/// The system refuses. `to` is unchanged, unless syncing the directory failed: then it is the new file, but may be the old one
/// after a power failure.
pub fn publish(file: &File, from: &Entry, to: &Entry) -> Result<()> {
    Synced::publish([Synced::new(file, from.clone(), to.clone())?])
}

/// Does the same, but replaces only `expected`.
///
/// # Errors
/// As for [`publish`], or something else has the name `to` now.
pub fn publish_over(file: &File, from: &Entry, to: &Entry, expected: Occupant) -> Result<()> {
    Synced::publish([Synced::new(file, from.clone(), to.clone())?.over(expected)])
}

/// Gives the synced directory `new` the name `to`, removes `expected`, which has that name, and syncs the name. If the file
/// system can exchange names, one of them always has the name; otherwise there is a short gap.
///
/// # Errors
/// Something other than `expected` has the name, or the system refuses. `to` is the new directory or unchanged.
pub fn replace_directory(new: &Entry, to: &Entry, expected: Occupant) -> Result<()> {
    to.refuse_other_than_occupant(expected)?;
    if to.exists() {
        match exchange(new, to) {
            Ok(()) => {
                // Otherwise a power failure could bring back the old directory with files missing.
                to.dir().sync()?;
                if new.occupant() != expected {
                    // Something took the name at this very moment; it gets the name back.
                    let _ = exchange(new, to);
                    return to.refuse_other_than_occupant(expected);
                }
                new.remove_tree()?;
            }
            Err(_) => replace_by_two_renames(new, to)?,
        }
    } else {
        new.rename_over(to, expected)?;
        to.dir().sync()?;
        // A run that was killed between its two renames has left nothing under `to`.
        aside(to).remove_tree()?;
    }
    to.dir().sync()
}

fn exchange(one: &Entry, other: &Entry) -> rustix::io::Result<()> {
    rustix::fs::renameat_with(one.dir(), one.name(), other.dir(), other.name(), RenameFlags::EXCHANGE)
}

/// Where a directory waits for its removal on file systems that cannot exchange names.
fn aside(to: &Entry) -> Entry {
    to.beside(".partial.old")
}

fn replace_by_two_renames(new: &Entry, to: &Entry) -> Result<()> {
    let aside = aside(to);
    // Left by a run that was killed between the renames below, or just after them.
    aside.remove_tree()?;
    to.rename(&aside)?;
    if let Err(error) = new.rename(to) {
        // The old directory is better than none. The first error is the one to report.
        let _ = aside.rename(to);
        return Err(error);
    }
    to.dir().sync()?;
    aside.remove_tree()
}
