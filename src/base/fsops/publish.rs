//! Giving finished files and directories their names.

use std::fs::File;

use rustix::fs::RenameFlags;

use super::{Dir, Entry, Occupant};
use crate::base::error::{Error, Result};

/// A file whose bytes are on the medium and which still has its temporary name.
#[derive(Debug)]
#[must_use = "it has no name yet"]
pub struct Synced {
    from: Entry,
    to: Entry,
    /// What it may replace; `None`: any file.
    over: Option<Occupant>,
}

impl Synced {
    /// Syncs `file`, which is written under the name `from` and is to be called `to`.
    ///
    /// # Errors
    /// The medium refuses.
    pub fn new(file: &File, from: Entry, to: Entry) -> Result<Synced> {
        file.sync_all().map_err(|e| Error::disk("syncing", from.path(), e))?;
        Ok(Synced { from, to, over: None })
    }

    /// The same, which replaces nothing but `expected`.
    pub fn over(self, expected: Occupant) -> Synced {
        Synced { over: Some(expected), ..self }
    }

    /// Gives all of them their names, in their order. They may replace files. The names are on the medium afterwards.
    ///
    /// # Errors
    /// The system refuses; some may have their names.
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

/// Brings `file`, which is written under the name `from`, to the medium and gives it the name `to`, in place of any file that
/// has it.
///
/// # Errors
/// The system refuses. `to` is what it was, unless syncing the directory is what fails: then it is the new file, but may not be
/// after a power cut.
pub fn publish(file: &File, from: &Entry, to: &Entry) -> Result<()> {
    Synced::publish([Synced::new(file, from.clone(), to.clone())?])
}

/// The same in place of nothing but `expected`.
///
/// # Errors
/// As [`publish`], and something else has the name `to` by now.
pub fn publish_over(file: &File, from: &Entry, to: &Entry, expected: Occupant) -> Result<()> {
    Synced::publish([Synced::new(file, from.clone(), to.clone())?.over(expected)])
}

/// Gives the directory `new`, which is on the medium, the name `to`; `expected`, which has that name, is removed. At no moment
/// has neither of them the name where the file system can exchange names, else for a short one. The name is on the medium
/// afterwards.
///
/// # Errors
/// Something else than `expected` has the name by now, or the system refuses. `to` is the new directory or what it was.
pub fn replace_directory(new: &Entry, to: &Entry, expected: Occupant) -> Result<()> {
    to.refuse_other_than_occupant(expected)?;
    if to.exists() {
        match exchange(new, to) {
            Ok(()) => {
                // Or a power cut could bring the old one back, with files missing.
                to.dir().sync()?;
                if new.occupant() != expected {
                    // Something took the name in the very moment; it gets it back.
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

/// Where a directory waits to be removed on file systems that cannot exchange names.
fn aside(to: &Entry) -> Entry {
    to.beside(".partial.old")
}

fn replace_by_two_renames(new: &Entry, to: &Entry) -> Result<()> {
    let aside = aside(to);
    // Left by a run that was killed between the renames below, or just after.
    aside.remove_tree()?;
    to.rename(&aside)?;
    if let Err(error) = new.rename(to) {
        // Better the old one than none. The error to report is the first.
        let _ = aside.rename(to);
        return Err(error);
    }
    to.dir().sync()?;
    aside.remove_tree()
}
