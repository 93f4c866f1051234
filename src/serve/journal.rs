//! The journal: what has happened to the names since `index.json` was written.
//!
//! # Why
//! An index of 30,000 tags has about 10 MiB. Writing it for every push would make the last push 10,000 times as expensive as
//! the first. A push therefore appends one line to `index.journal` and syncs it before it is answered. The whole index is
//! written when the journal has become as long as the index was when it was last written, and always while it is
//! [short](SHORT): for each byte of the journal, at most about three more are written, however many tags there are. It is also
//! written when the server ends, when it starts and finds a journal, and after pushes have paused for a while. The journal is
//! then emptied or removed.
//!
//! # Form
//! One line for each [`Change`], in order: sixteen hexadecimal digits of the SHA-256 of the rest of the line, a space, and the
//! change as JSON.
//!
//! # After a crash
//! `index.json` is complete at any time, because it is replaced by renaming, and the layout is valid with or without its
//! journal.
//!
//! - Killed, or without power, between two pushes: index and journal together contain everything that was answered. A server,
//!   read-only or not, reads both; other programs see the older index until a writable server has run.
//! - In the middle of a line: that push was not answered. An incomplete last line does not count.
//! - After the index was replaced and before the journal was emptied: the index already contains all changes. They are made
//!   again, which changes nothing (see [`Change`]).
//! - Another program has changed the index meanwhile: its names stay, except for tags that the journal assigns.
//!
//! A damaged line that is not the last is an error, because names would be lost.
//!
//! # Readers
//! Another process may read while a server writes. It reads the index, the journal, and both again, until the index is
//! unchanged and the journal has only grown. The journal then belongs to this index, or is already contained in it.
//!
//! The directory is locked: there is only one writing server.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::fsops::{Dir, Entry};
use crate::oci::Digest;

use super::names::{Change, LayoutIndex, MAX_INDEX};

/// Its name in the layout.
pub const JOURNAL: &str = "index.journal";
/// Maximum size in bytes: that of the largest index, and one more change.
pub const MAX_JOURNAL: u64 = MAX_INDEX + 8 * 1024 * 1024;
/// An index up to this size in bytes is written for each change.
pub const SHORT: u64 = 64 * 1024;
/// Hexadecimal digits before each change.
const CHECK: usize = 16;

/// The journal of a layout that is written to.
pub struct LayoutJournal {
    entry: Entry,
    /// Created with the first change.
    file: Option<File>,
    /// Its valid length in bytes.
    length: u64,
}

impl LayoutJournal {
    /// For a layout whose journal, if any, is already in the index.
    pub fn of(root: &Dir) -> LayoutJournal {
        LayoutJournal { entry: Entry::in_dir(root, JOURNAL), file: None, length: 0 }
    }

    /// Whether this server has a file.
    pub fn is_begun(&self) -> bool {
        self.file.is_some()
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends the [line] of a change. Afterwards it is on the disk, or does not count.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, line: &str) -> Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => create(&self.entry)?,
        };
        // The remains of a failed attempt are cut off.
        let written = file
            .set_len(self.length)
            .and_then(|()| file.write_all_at(line.as_bytes(), self.length))
            .and_then(|()| file.sync_data());
        self.file = Some(file);
        written.map_err(|e| Error::disk("writing", self.entry.path(), e))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Empties it when everything in it is in the index.
    ///
    /// # Errors
    /// The file cannot be written. Nothing is lost.
    pub fn empty(&mut self) -> Result<()> {
        if let Some(file) = &self.file {
            file.set_len(0).map_err(|e| Error::disk("emptying", self.entry.path(), e))?;
        }
        self.length = 0;
        Ok(())
    }

    /// Removes the file when everything in it is in the index.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(&mut self) -> Result<()> {
        (self.file, self.length) = (None, 0);
        self.entry.remove()
    }
}

/// Makes the changes of a journal.
///
/// # Errors
/// A line other than the last is damaged.
pub fn replay(journal: &[u8], path: &Path, names: &mut LayoutIndex) -> Result<()> {
    // What follows the last line end is incomplete.
    let whole = journal.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines: Vec<&[u8]> = journal[..whole].split_inclusive(|byte| *byte == b'\n').collect();
    for (number, line) in lines.iter().enumerate() {
        match read(line) {
            Some(change) => names.apply(&change),
            None if number + 1 == lines.len() => break,
            None => {
                let text = format!(
                    "{} is damaged in line {}: without the journal, the layout has only the tags in index.json",
                    path.join(JOURNAL).display(),
                    number + 1
                );
                return Err(Error::damaged(text));
            }
        }
    }
    Ok(())
}

/// A change as a line of the journal.
///
/// # Errors
/// None, because it consists of text and numbers.
pub fn line(change: &Change) -> Result<String> {
    let json = serde_json::to_string(change).map_err(|e| Error::input("recording a change").because(e))?;
    Ok(format!("{} {json}\n", check(json.as_bytes())))
}

fn read(line: &[u8]) -> Option<Change> {
    let (digits, json) = line.strip_suffix(b"\n")?.split_at_checked(CHECK)?;
    let json = json.strip_prefix(b" ")?;
    if digits != check(json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn check(json: &[u8]) -> String {
    let mut hex = Digest::sha256(json).hex();
    hex.truncate(CHECK);
    hex
}

/// Creates a new file, never through a link, and syncs its name before anything relies on it.
fn create(entry: &Entry) -> Result<File> {
    entry.remove()?;
    let file = entry.create_new(0o666)?;
    entry.dir().sync()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Tag};

    fn tag(name: &str) -> Change {
        let manifest = Descriptor::new("m", Digest::sha256(name.as_bytes()), 1);
        let (repository, tag) = ("docker.io/team/app".parse().unwrap(), name.parse().unwrap());
        Change::Tag { repository, tag, manifest, unlisted: vec![] }
    }

    fn tags(names: &LayoutIndex) -> Vec<String> {
        let tags: Vec<Tag> = names.tags("team/app", None, "", usize::MAX).unwrap_or_default();
        tags.iter().map(ToString::to_string).collect()
    }

    /// The tags in a journal with these bytes.
    fn replayed(journal: &[u8]) -> Result<Vec<String>> {
        let mut names = LayoutIndex::empty();
        replay(journal, Path::new("x"), &mut names).map(|()| tags(&names))
    }

    #[test]
    fn acknowledged_changes_survive_a_power_failure_and_half_a_line_is_ignored() {
        let work = tempfile::tempdir().unwrap();
        let mut journal = LayoutJournal::of(&Dir::open(work.path()).unwrap());
        for name in ["1", "2", "3"] {
            journal.append(&line(&tag(name)).unwrap()).unwrap();
        }
        let bytes = std::fs::read(work.path().join(JOURNAL)).unwrap();
        assert_eq!(bytes.len() as u64, journal.length());
        let ends: Vec<usize> = (1..=bytes.len()).filter(|end| bytes[end - 1] == b'\n').collect();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(replayed(&bytes[..cut]).unwrap(), ["1", "2", "3"][..whole], "cut at {cut}");
        }
        // A disk may have zeros where the last line was to be written.
        let mut zeros = bytes.clone();
        zeros[ends[1] + 5..].fill(0);
        assert_eq!(replayed(&zeros).unwrap(), ["1", "2"]);
        zeros.push(b'\n');
        assert_eq!(replayed(&zeros).unwrap(), ["1", "2"]);
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_an_error_and_not_a_loss() {
        let text: String = ["1", "2", "3"].iter().map(|name| line(&tag(name)).unwrap()).collect();
        let damaged = text.replacen("\"2\"", "\"9\"", 1);
        assert_ne!(damaged, text);
        let message = replayed(damaged.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            message,
            "x/index.journal is damaged in line 2: without the journal, the layout has only the tags in index.json"
        );
    }

    #[test]
    fn an_emptied_journal_starts_again() {
        let work = tempfile::tempdir().unwrap();
        let mut journal = LayoutJournal::of(&Dir::open(work.path()).unwrap());
        let read = || replayed(&std::fs::read(work.path().join(JOURNAL)).unwrap()).unwrap();
        journal.append(&line(&tag("1")).unwrap()).unwrap();
        journal.empty().unwrap();
        assert_eq!(journal.length(), 0);
        journal.append(&line(&tag("2")).unwrap()).unwrap();
        assert_eq!(read(), ["2"]);
        // What another server has left was read before this journal is created.
        drop(journal);
        let mut journal = LayoutJournal::of(&Dir::open(work.path()).unwrap());
        journal.append(&line(&tag("3")).unwrap()).unwrap();
        assert_eq!(read(), ["3"]);
        journal.remove().unwrap();
        assert!(!work.path().join(JOURNAL).exists());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = replayed(&bytes);
        }
    }
}
