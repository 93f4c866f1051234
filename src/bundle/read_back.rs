//! Checks that what was written can be read from the medium again. A stick that stores only half of it reports that only on
//! reading.

use std::collections::HashSet;
use std::fs::File;
use std::io::IoSliceMut;
use std::path::Path;

use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;

use super::fileset::FileList;
use super::format::{BUNDLE_JSON, BundleJson, CHUNKS, MAX_BUNDLE_JSON, VOLUMES, is_signature};
use super::prove_files::{chunks_with, prove_all};
use super::sums::{self, MAX_SUMS};
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{self, Entry, Identity, WriteLock};
use crate::base::progress::Events;
use crate::content::proof::prove;
use crate::files::Layout;
use crate::oci::{Algorithm, Digest};

/// File systems in memory (statfs(2)), which have no medium.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// How often to ask the system to drop a file from memory; it keeps pages that are in use, even for a moment.
const MOST_ASKED: u32 = 100;

/// Reads every file of the bundle or volume at `path`, which was just written, from the medium and not from memory, and proves
/// it: a bundle by its `identity`, a volume by its sums. If the bytes differ, it is renamed to `.partial`, or to `.damaged.1`
/// and so on if that name is taken.
///
/// Returns `false` if the bytes are right but the system kept some of them in memory, so that they may not have come from the
/// medium.
///
/// # Errors
/// What was read differs from what was written (`Damaged`), or cannot be read.
pub fn read_back(path: &Path, identity: Digest, events: &Events) -> Result<bool> {
    let path = &fsops::canonicalize(path)?;
    let named = Entry::of(path)?;
    let there = named.stat().as_ref().map(Identity::of);
    let prove = || -> Result<bool> {
        let layout = Layout::open(path)?;
        let written = Written::of(&layout, identity)?;
        let is_forgotten = forget(path, &layout)?;
        // Opened again, because what was read to find the files proves nothing.
        read_again(&Layout::open(path)?, &written, events)?;
        Ok(is_forgotten)
    };
    let error = match prove() {
        Ok(is_forgotten) => return Ok(is_forgotten),
        // The medium is not to blame, so the bundle keeps its name.
        Err(error) if error.is_shortage() => return Err(error),
        // What was written was readable; what comes back is not.
        Err(error) if error.kind() == Kind::Input => error.of_kind(Kind::Damaged),
        Err(error) => error,
    };
    let doing = format!("reading back {}", path.display());
    Err(match take_name(&named, there) {
        Ok(Some(now)) => error.while_doing(format!("{doing}, whose name is now {}", now.path().display())),
        Ok(None) => error.while_doing(doing),
        Err(kept) => error.while_doing(format!("{doing}, which keeps its name ({})", kept.chain())),
    })
}

/// Renames what was read. Returns `None` if something else has the name now.
///
/// # Errors
/// Another run is writing the bundle, or the system refuses.
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

/// The digest of every file as written. For signatures and for the sums of a volume, it is the present one.
struct Written {
    /// In reading order.
    files: Vec<(String, Digest)>,
    /// `None` for a volume.
    json: Option<BundleJson>,
    identity: Digest,
    has_chunks: bool,
}

impl Written {
    fn of(layout: &Layout, identity: Digest) -> Result<Written> {
        let sums_of_volume = layout.entries().map(|(path, _)| path).find(|path| is_sums_of_volume(path));
        let (mut files, json) = match sums_of_volume {
            Some(path) => {
                let bytes = layout.read(path, MAX_SUMS)?.unwrap_or_default();
                let named: Vec<(String, Digest)> = sums::lines(&bytes, Algorithm::Sha256)
                    .map(|line| line.map(|line| (line.path.to_owned(), line.digest)))
                    .collect::<Option<_>>()
                    .ok_or_else(|| other(path))?;
                // Files that the sums do not list would not be read.
                let names: HashSet<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
                let is_lost = |name: &str| name != path && !is_signature(name) && !names.contains(name);
                if layout.entries().any(|(name, _)| is_lost(name)) {
                    return Err(other(path));
                }
                let sums = (path.to_owned(), Digest::sha256(&bytes));
                (named.into_iter().chain([sums]).collect::<Vec<_>>(), None)
            }
            None => {
                let bytes = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON)?.filter(|bytes| identity.is_of(bytes));
                let bytes = bytes.ok_or_else(|| other(BUNDLE_JSON))?;
                let json = BundleJson::parse(&bytes, &layout.path().join(BUNDLE_JSON).display().to_string())?;
                let list = FileList { json: &json, identity, size: bytes.len() as u64 };
                (list.files().into_iter().map(|file| (file.path, file.digest)).collect(), Some(json))
            }
        };
        for path in layout.entries().map(|(path, _)| path).filter(|path| is_signature(path)) {
            let Some(slice) = layout.slice(path)? else { continue };
            let digest = slice.hash(Algorithm::Sha256, &|_| ()).map_err(|e| Error::disk("reading", slice.path(), e))?;
            files.push((path.to_owned(), digest));
        }
        Ok(Written { files, json, identity, has_chunks: layout.size_of(CHUNKS).is_some() })
    }
}

fn is_sums_of_volume(path: &str) -> bool {
    path.starts_with(VOLUMES) && path.ends_with(".sha256")
}

fn other(path: &str) -> Error {
    Error::damaged(format!("{path} reads back differently from what was written"))
}

fn read_again(layout: &Layout, written: &Written, events: &Events) -> Result<()> {
    let named: Vec<(&str, Digest)> = written.files.iter().map(|(path, digest)| (path.as_str(), *digest)).collect();
    // The sums do not cover what is between the files of a tar.
    if let Some(fault) = layout.problems().first() {
        return Err(Error::damaged(format!("it reads back differently from what was written: {}", fault.what)));
    }
    let proven = prove_all(layout, &named, events)?;
    let mut wrong = named.iter().zip(&proven).filter(|(_, proven)| proven.is_none()).map(|((path, _), _)| *path);
    if let Some(first) = wrong.next() {
        let others = wrong.count();
        let others = if others > 0 { format!(", and {others} more") } else { String::new() };
        return Err(Error::damaged(format!("{first} reads back differently from what was written{others}")));
    }
    let Some(json) = written.json.as_ref().filter(|_| written.has_chunks) else { return Ok(()) };
    let digests = named.iter().map(|(_, digest)| *digest);
    let known = digests.zip(proven).filter_map(|(digest, chunks)| Some((digest, chunks?))).collect();
    let made = chunks_with(&known, layout, json, written.identity, events).ok_or_else(|| other(CHUNKS))?;
    let there = layout.slice(CHUNKS)?.filter(|there| there.size() == made.len() as u64);
    let is_same = there.is_some_and(|there| prove(&there, &Digest::sha256(&made), &|_| ()).is_ok());
    if is_same { Ok(()) } else { Err(other(CHUNKS)) }
}

/// Makes the system drop these files from memory. Returns `false` if it keeps them, because they are on a memory file system
/// or another program uses them.
fn forget(path: &Path, layout: &Layout) -> Result<bool> {
    let forget = |path: &Path| {
        let file = fsops::open_plain(path).map_err(|e| Error::disk("opening", path, e))?;
        // Only data that has reached the medium can be dropped.
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

/// According to the system, which reports what it can read without waiting.
fn is_in_memory(file: &File) -> bool {
    let middle = file.metadata().map_or(0, |metadata| metadata.len() / 2);
    // Only once, because the read itself brings the data into memory.
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

    const SUMS: &str = "volumes/001.sha256";

    /// A directory with two files and their sums, as in a volume.
    fn ground() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        fs::create_dir_all(out.join(VOLUMES)).unwrap();
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
        read_back(&out, Digest::ZEROS, &events).unwrap();
        fs::write(out.join("b"), b"too").unwrap();
        let text = read_back(&out, Digest::ZEROS, &events).unwrap_err().chain();
        assert!(
            text.contains("reading back") && text.contains("b reads back differently from what was written"),
            "{text}"
        );
        let unnamed = out.with_file_name("out.partial");
        assert!(!out.exists() && unnamed.is_dir());
        fs::rename(&unnamed, &out).unwrap();
        fs::remove_file(out.join("a")).unwrap();
        // What an earlier run has left keeps its name, and no damaged bundle gets a good one because of it.
        fs::create_dir(&unnamed).unwrap();
        let text = read_back(&out, Digest::ZEROS, &events).unwrap_err().chain();
        assert!(text.contains("a reads back differently from what was written, and 1 more"), "{text}");
        let damaged = out.with_file_name("out.damaged.1");
        assert!(text.contains(&format!("whose name is now {}", damaged.display())), "{text}");
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
        // It checks every file itself.
        assert!(forget(&out, &layout).unwrap(), "it is still in memory");
    }

    #[test]
    fn what_no_sum_refers_to_is_proven_too() {
        let (_directory, out) = ground();
        let events: Events = Arc::new(Silent);
        fs::write(out.join(SIGNATURE), [7; 64]).unwrap();
        let layout = Layout::open(&out).unwrap();
        let written = Written::of(&layout, Digest::ZEROS).unwrap();
        read_again(&layout, &written, &events).unwrap();
        fs::write(out.join(SIGNATURE), [8; 64]).unwrap();
        let text = read_again(&layout, &written, &events).unwrap_err().chain();
        assert!(text.contains(&format!("{SIGNATURE} reads back differently")), "{text}");
        fs::write(out.join(SIGNATURE), [7; 64]).unwrap();
        // What is between the files of a tar; here, after those of the last one.
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
        read_back(&tar, Digest::ZEROS, &events).unwrap();
        let mut bytes = fs::read(&tar).unwrap();
        let place = bytes.len() - 2 * 512 - 1;
        bytes[place] ^= 1;
        fs::write(&tar, bytes).unwrap();
        let text = read_back(&tar, Digest::ZEROS, &events).unwrap_err().chain();
        assert!(text.contains("reads back differently from what was written: data is hidden"), "{text}");
    }

    #[test]
    fn it_is_said_where_there_is_no_medium() {
        let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
        let (ground, out) = ground();
        let copy = directory.path().join("out");
        assert!(Command::new("cp").arg("-r").arg(&out).arg(&copy).status().unwrap().success());
        assert!(!read_back(&copy, Digest::ZEROS, &(Arc::new(Silent) as Events)).unwrap());
        drop(ground);
    }
}
