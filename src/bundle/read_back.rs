//! Whether what was written can be read from the medium again: a stick that takes everything and keeps half of it says so
//! only when it is asked.

use std::fs::File;
use std::path::Path;

use rustix::fs::Advice;

use super::format::Metadata;
use super::leftovers::hash_all;
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::progress::Events;
use crate::transport::layout::Layout;

/// Reads every file that `sums` names, and `sums`, from the medium, not from memory, and proves it. All of it was synced;
/// `path` is the bundle or volume, which need not have its name yet.
///
/// # Errors
/// What was read is not what was written (`Damaged`), or cannot be read.
pub fn read_back(path: &Path, sums: &Metadata, events: &Events) -> Result<()> {
    forget(path, &Layout::open(path)?)?;
    // Opened again: what was read to find the files is not the proof.
    let layout = Layout::open(path)?;
    let named = names(sums);
    let wrong = hash_all(&layout, &named, events);
    let there = layout.read(sums.path, sums.bytes.len() as u64);
    let first = match there.is_ok_and(|there| there.is_some_and(|there| there == sums.bytes)) {
        true => wrong.first().map(|at| named[*at].0),
        false => Some(sums.path),
    };
    let Some(first) = first else { return Ok(()) };
    let others = wrong.len().saturating_sub(1);
    let others = if others > 0 { format!(" and of {others} other files") } else { String::new() };
    let text =
        format!("reading back {}: other bytes of {first}{others} came from the medium than went to it", path.display());
    Err(Error::damaged(text))
}

/// Path and sha256 of each line.
fn names(sums: &Metadata) -> Vec<(&str, Digest)> {
    let text = std::str::from_utf8(&sums.bytes).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once("  "));
    lines.filter_map(|(sum, path)| Some((path, format!("sha256:{sum}").parse().ok()?))).collect()
}

/// The system keeps nothing of these files in memory. Where it does so all the same, it is not to be helped: it is memory that
/// the files are in, or another program holds them.
fn forget(path: &Path, layout: &Layout) -> Result<()> {
    let forget = |path: &Path| {
        let file = File::open(path).map_err(|e| Error::disk("opening", path, e))?;
        // Only what has reached the medium can be forgotten.
        file.sync_all().map_err(|e| Error::disk("syncing", path, e))?;
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        Ok(())
    };
    if layout.is_tar() {
        return forget(path);
    }
    layout.entries().try_for_each(|(name, _)| forget(&path.join(name)))
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::sync::Arc;

    use rustix::io::{Errno, ReadWriteFlags};

    use super::*;
    use crate::bundle::SUMS;
    use crate::progress::Silent;

    /// A directory with two files, and what is to be in it.
    fn ground() -> (tempfile::TempDir, Metadata) {
        let directory = tempfile::tempdir().unwrap();
        let mut sums = String::new();
        for (name, content) in [("a", &[1; 70_000][..]), ("b", b"two")] {
            std::fs::write(directory.path().join(name), content).unwrap();
            sums += &format!("{}  {name}\n", Digest::sha256(content).hex());
        }
        std::fs::write(directory.path().join(SUMS), &sums).unwrap();
        (directory, Metadata { path: SUMS, bytes: sums.into_bytes() })
    }

    fn said(directory: &tempfile::TempDir, sums: &Metadata) -> Option<String> {
        read_back(directory.path(), sums, &(Arc::new(Silent) as Events)).err().map(|error| error.chain())
    }

    #[test]
    fn a_medium_that_gives_other_bytes_than_it_was_given_is_told_with_the_file() {
        let (directory, sums) = ground();
        assert_eq!(said(&directory, &sums), None);
        std::fs::write(directory.path().join("b"), b"too").unwrap();
        let text = said(&directory, &sums).unwrap();
        assert!(text.contains("other bytes of b came from the medium"), "{text}");
        std::fs::remove_file(directory.path().join("a")).unwrap();
        let text = said(&directory, &sums).unwrap();
        assert!(text.contains("of a and of 1 other files"), "{text}");
        std::fs::write(directory.path().join(SUMS), b"").unwrap();
        assert!(said(&directory, &sums).unwrap().contains(SUMS));
    }

    #[test]
    fn the_proof_is_not_taken_from_memory() {
        let (directory, _) = ground();
        let path = directory.path().join("a");
        let at_once = || {
            let (file, mut buffer) = (File::open(&path).unwrap(), [0; 10]);
            rustix::io::preadv2(&file, &mut [IoSliceMut::new(&mut buffer)], 0, ReadWriteFlags::NOWAIT)
        };
        if at_once() != Ok(10) {
            return; // a file system that cannot tell
        }
        forget(directory.path(), &Layout::open(directory.path()).unwrap()).unwrap();
        assert_eq!(at_once(), Err(Errno::AGAIN), "it is still in memory");
    }
}
