//! Whether what was written can be read from the medium again: a stick that takes everything and keeps half of it says so
//! only when it is asked.

use std::fs::{self, File};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::Advice;

use super::leftovers::hash_all;
use super::volumes::VOLUMES;
use super::{MAX_SUMS, SUMS, medium};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::progress::Events;
use crate::transport::layout::Layout;

/// Reads every file of the bundle or volume at `path`, which was just written, from the medium and not from memory, and proves it
/// by its sums. If other bytes come back, it loses its name again: it is called `.partial` then.
///
/// # Errors
/// What was read is not what was written (`Damaged`), or cannot be read.
pub fn read_back(path: &Path, events: &Events) -> Result<()> {
    let path = &medium::settle(path)?;
    let layout = Layout::open(path)?;
    let sums = sums_of(&layout)?;
    forget(path, &layout)?;
    // Opened again: what was read to find the files is no proof.
    let proven = Layout::open(path).and_then(|layout| prove(&layout, &sums, events));
    let Err(error) = proven else { return Ok(()) };
    let unnamed = medium::beside(path, ".partial");
    if unnamed.symlink_metadata().is_err() {
        fs::rename(path, &unnamed).map_err(|e| Error::disk("taking the name from", path, e))?;
    }
    Err(error.while_doing(format!("reading back {}", path.display())))
}

/// The files that are lists of sums, as they were written.
fn sums_of(layout: &Layout) -> Result<Vec<(String, Bytes)>> {
    let is_own = |path: &str| path.starts_with(VOLUMES) && path.ends_with(".sha256");
    let is_volume = layout.entries().any(|(path, _)| is_own(path));
    let paths =
        layout.entries().map(|(path, _)| path).filter(|path| if is_volume { is_own(path) } else { *path == SUMS });
    let sums = paths.map(|path| Ok((path.to_owned(), layout.read(path, MAX_SUMS)?.unwrap_or_default())));
    sums.collect()
}

fn prove(layout: &Layout, sums: &[(String, Bytes)], events: &Events) -> Result<()> {
    let named: Vec<(&str, Digest)> =
        sums.iter().flat_map(|(path, bytes)| names(bytes).chain([(path.as_str(), Digest::sha256(bytes))])).collect();
    let wrong = hash_all(layout, &named, events);
    let Some(first) = wrong.first().map(|at| named[*at].0) else { return Ok(()) };
    let others = wrong.len() - 1;
    let others = if others > 0 { format!(" and of {others} other files") } else { String::new() };
    Err(Error::damaged(format!("other bytes of {first}{others} came from the medium than went to it")))
}

/// Path and sha256 of each line.
fn names(sums: &[u8]) -> impl Iterator<Item = (&str, Digest)> {
    let lines = std::str::from_utf8(sums).unwrap_or_default().lines().filter_map(|line| line.split_once("  "));
    lines.filter_map(|(sum, path)| Some((path, format!("sha256:{sum}").parse().ok()?)))
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
    if path.is_file() {
        return forget(path);
    }
    layout.entries().try_for_each(|(name, _)| forget(&path.join(name)))
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::path::PathBuf;
    use std::sync::Arc;

    use rustix::io::{Errno, ReadWriteFlags};

    use super::*;
    use crate::progress::Silent;

    /// A directory with two files and their sums.
    fn ground() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        fs::create_dir(&out).unwrap();
        let mut sums = String::new();
        for (name, content) in [("a", &[1; 70_000][..]), ("b", b"two")] {
            fs::write(out.join(name), content).unwrap();
            sums += &format!("{}  {name}\n", Digest::sha256(content).hex());
        }
        fs::write(out.join(SUMS), &sums).unwrap();
        (directory, out)
    }

    #[test]
    fn what_the_medium_gives_back_otherwise_is_told_and_loses_its_name() {
        let (_directory, out) = ground();
        let events: Events = Arc::new(Silent);
        read_back(&out, &events).unwrap();
        fs::write(out.join("b"), b"too").unwrap();
        let text = read_back(&out, &events).unwrap_err().chain();
        assert!(text.contains("reading back") && text.contains("other bytes of b came from the medium"), "{text}");
        let unnamed = out.with_file_name("out.partial");
        assert!(!out.exists() && unnamed.is_dir());
        fs::rename(&unnamed, &out).unwrap();
        fs::remove_file(out.join("a")).unwrap();
        let text = read_back(&out, &events).unwrap_err().chain();
        assert!(text.contains("of a and of 1 other files"), "{text}");
    }

    #[test]
    fn the_proof_is_not_taken_from_memory() {
        let (_directory, out) = ground();
        let path = out.join("a");
        let at_once = || {
            let (file, mut buffer) = (File::open(&path).unwrap(), [0; 10]);
            rustix::io::preadv2(&file, &mut [IoSliceMut::new(&mut buffer)], 0, ReadWriteFlags::NOWAIT)
        };
        if at_once() != Ok(10) {
            return; // a file system that cannot tell
        }
        forget(&out, &Layout::open(&out).unwrap()).unwrap();
        assert_eq!(at_once(), Err(Errno::AGAIN), "it is still in memory");
    }
}
