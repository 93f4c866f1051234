//! Whether what was written can be read from the medium again: a stick that takes everything and keeps half of it says so
//! only when it is asked.

use std::fs::File;
use std::io::IoSliceMut;
use std::path::Path;

use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;

use super::format::VOLUMES;
use super::format::{CHUNKS, SUMS, SUMS512, is_signature};
use super::prove_files::prove_all;
use super::sums::{self, MAX_SUMS};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Identity, WriteLock};
use crate::base::progress::Events;
use crate::files::Layout;
use crate::oci::{Algorithm, Digest};

/// File systems that are in memory (statfs(2)): there is no medium.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// How often the system is asked to let go of a file: while a page is in use, be it for a moment, it keeps it.
const MOST_ASKED: u32 = 100;

/// Reads every file of the bundle or volume at `path`, which was just written, from the medium and not from memory, and proves it
/// by its sums. If other bytes come back, it loses its name again: it is called `.partial` then, or `.damaged.1` and so on where
/// something else is called so.
///
/// `false`: it has the bytes that were written, but the system would not let go of all that it has in memory, so some of them
/// may have come from there.
///
/// # Errors
/// What was read is not what was written (`Damaged`), or cannot be read.
pub fn read_back(path: &Path, events: &Events) -> Result<bool> {
    let path = &fsops::canonicalize(path)?;
    let named = Entry::of(path)?;
    let identity = named.stat().as_ref().map(Identity::of);
    let layout = Layout::open(path)?;
    let written = Written::of(&layout)?;
    let is_forgotten = forget(path, &layout)?;
    // Opened again: what was read to find the files is no proof.
    let proven = Layout::open(path).and_then(|layout| read_again(&layout, &written, events));
    let Err(error) = proven else { return Ok(is_forgotten) };
    let doing = format!("reading back {}", path.display());
    Err(match take_name(&named, identity) {
        Ok(Some(now)) => error.while_doing(format!("{doing}, which is called {} now", now.path().display())),
        Ok(None) => error.while_doing(doing),
        Err(kept) => error.while_doing(format!("{doing}, which keeps its name ({})", kept.chain())),
    })
}

/// Gives what was read another name. `None`: something else has the name by now.
///
/// # Errors
/// Another run writes the bundle, or the system refuses.
fn take_name(named: &Entry, read: Option<Identity>) -> Result<Option<Entry>> {
    let _lock = WriteLock::take(named.path())?;
    if named.stat().as_ref().map(Identity::of) != read {
        return Ok(None);
    }
    let others = (1_u64..).map(|number| format!(".damaged.{number}"));
    let mut names = std::iter::once(".partial".to_owned()).chain(others).map(|suffix| named.beside(&suffix));
    let Some(free) = names.find(|name| !name.exists()) else { return Ok(None) };
    named.rename(&free)?;
    Ok(Some(free))
}

/// The digest of every file as it was written: of those that no sums name, what it is now.
struct Written {
    /// In the order in which they are read.
    files: Vec<(String, Digest)>,
}

impl Written {
    fn of(layout: &Layout) -> Result<Written> {
        let is_own = |path: &str| path.starts_with(VOLUMES) && path.ends_with(".sha256");
        let is_volume = layout.entries().any(|(path, _)| is_own(path));
        let is_sums = |path: &str| if is_volume { is_own(path) } else { matches!(path, SUMS | SUMS512) };
        let (mut named, mut own) = (Vec::new(), Vec::new());
        for (path, _) in layout.entries() {
            if is_sums(path) {
                let bytes = layout.read(path, MAX_SUMS)?.unwrap_or_default();
                let algorithm = if path == SUMS512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
                named.extend(sums::lines(&bytes, algorithm).flatten().map(|line| (line.path.to_owned(), line.digest)));
                own.push((path.to_owned(), Digest::sha256(&bytes)));
            } else if (path == CHUNKS || is_signature(path))
                && let Some(slice) = layout.slice(path)?
            {
                let digest =
                    slice.hash(Algorithm::Sha256, &|_| ()).map_err(|e| Error::disk("reading", slice.path(), e))?;
                own.push((path.to_owned(), digest));
            }
        }
        named.extend(own);
        Ok(Written { files: named })
    }
}

fn read_again(layout: &Layout, written: &Written, events: &Events) -> Result<()> {
    let named: Vec<(&str, Digest)> = written.files.iter().map(|(path, digest)| (path.as_str(), *digest)).collect();
    // What is between the files of a tar has no sums.
    if let Some(fault) = layout.faults().first() {
        return Err(Error::damaged(format!("it reads back differently from what was written: {}", fault.what)));
    }
    let proven = prove_all(layout, &named, events);
    let mut wrong = named.iter().zip(&proven).filter(|(_, proven)| proven.is_none()).map(|((path, _), _)| *path);
    let Some(first) = wrong.next() else { return Ok(()) };
    let others = wrong.count();
    let others = if others > 0 { format!(", and so do {others} other files") } else { String::new() };
    Err(Error::damaged(format!("{first} reads back differently from what was written{others}")))
}

/// The system keeps nothing of these files in memory. `false`: it does so all the same, because it is memory that they are in,
/// or another program holds them there.
fn forget(path: &Path, layout: &Layout) -> Result<bool> {
    let forget = |path: &Path| {
        let file = fsops::open_plain(path).map_err(|e| Error::disk("opening", path, e))?;
        // Only what has reached the medium can be forgotten.
        file.sync_all().map_err(|e| Error::disk("syncing", path, e))?;
        let is_memory = |kind| u64::try_from(kind).is_ok_and(|kind| IN_MEMORY.contains(&kind));
        if rustix::fs::fstatfs(&file).is_ok_and(|stat| is_memory(stat.f_type)) {
            return Ok(false);
        }
        Ok((0..MOST_ASKED).any(|_| {
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
            let is_forgotten = !is_in_memory(&file);
            if !is_forgotten {
                std::thread::yield_now();
            }
            is_forgotten
        }))
    };
    if path.is_file() {
        return forget(path);
    }
    let mut all = true;
    for (name, _) in layout.entries() {
        all &= forget(&path.join(name))?;
    }
    Ok(all)
}

/// As far as the system tells, which it does by what it can read at once.
fn is_in_memory(file: &File) -> bool {
    let middle = file.metadata().map_or(0, |metadata| metadata.len() / 2);
    // Only once: what is not there is read because it was asked for.
    let mut byte = [0];
    rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], middle, ReadWriteFlags::NOWAIT)
        .is_ok_and(|read| read > 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::base::progress::Silent;
    use crate::bundle::SIGNATURE;

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
        assert!(
            text.contains("reading back") && text.contains("b reads back differently from what was written"),
            "{text}"
        );
        let unnamed = out.with_file_name("out.partial");
        assert!(!out.exists() && unnamed.is_dir());
        fs::rename(&unnamed, &out).unwrap();
        fs::remove_file(out.join("a")).unwrap();
        // What an earlier run has left keeps its name, and no damaged bundle has a good one because of it.
        fs::create_dir(&unnamed).unwrap();
        let text = read_back(&out, &events).unwrap_err().chain();
        assert!(text.contains("a reads back differently from what was written, and so do 1 other files"), "{text}");
        let damaged = out.with_file_name("out.damaged.1");
        assert!(text.contains(&format!("called {} now", damaged.display())), "{text}");
        assert!(!out.exists() && damaged.join("b").exists() && fs::read_dir(&unnamed).unwrap().next().is_none());
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
        let layout = Layout::open(&out).unwrap();
        assert!(is_in_memory(&File::open(&path).unwrap()));
        // It asks itself, of each file.
        assert!(forget(&out, &layout).unwrap(), "it is still in memory");
    }

    #[test]
    fn what_no_sum_speaks_of_is_proven_too() {
        let (_directory, out) = ground();
        let events: Events = Arc::new(Silent);
        for unnamed in [SIGNATURE, CHUNKS] {
            fs::write(out.join(unnamed), [7; 64]).unwrap();
        }
        let layout = Layout::open(&out).unwrap();
        let written = Written::of(&layout).unwrap();
        read_again(&layout, &written, &events).unwrap();
        for unnamed in [SIGNATURE, CHUNKS] {
            fs::write(out.join(unnamed), [8; 64]).unwrap();
            let text = read_again(&layout, &written, &events).unwrap_err().chain();
            assert!(text.contains(&format!("{unnamed} reads back differently")), "{text}");
            fs::write(out.join(unnamed), [7; 64]).unwrap();
        }
        // What is between the files of a tar: here, behind those of the last one.
        let tar = out.with_file_name("out.tar");
        let files = ["a", SUMS, "b"];
        assert!(
            Command::new("tar")
                .args(["-b1", "-cf"])
                .arg(&tar)
                .arg("-C")
                .arg(&out)
                .args(files)
                .status()
                .unwrap()
                .success()
        );
        read_back(&tar, &events).unwrap();
        let mut bytes = fs::read(&tar).unwrap();
        let place = bytes.len() - 2 * 512 - 1;
        bytes[place] ^= 1;
        fs::write(&tar, bytes).unwrap();
        let text = read_back(&tar, &events).unwrap_err().chain();
        assert!(text.contains("reads back differently from what was written: data is hidden"), "{text}");
    }

    #[test]
    fn it_is_said_where_there_is_no_medium() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let (ground, out) = ground();
        let copy = directory.path().join("out");
        assert!(Command::new("cp").arg("-r").arg(&out).arg(&copy).status().unwrap().success());
        assert!(!read_back(&copy, &(Arc::new(Silent) as Events)).unwrap());
        drop(ground);
    }
}
