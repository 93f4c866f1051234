//! Marks a bundle on this machine: every byte was proven here, and no file has been modified since.
//!
//! Without the mark, an export that changes nothing would read the whole bundle to make sure. The mark is an extended
//! attribute next to the content, not part of it: copies do not have it, and without it everything is hashed. It is a digest
//! over name, size, inode and times of every file, so any write to one of them voids it. The change time (ctime) is included,
//! which no program can set back. A tar carries the mark itself, which changes that time; it must be the time of marking. A
//! recovery volume has a second mark for the volumes that it was computed from; it is void when one of them is modified.
//! `verify` never uses the mark, so it finds a medium that decays silently; nor does anything on the isolated side.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{XattrFlags, getxattr, setxattr};
use walkdir::WalkDir;

use crate::oci::{Algorithm, Digest, Hasher};

const NAME: &str = "user.gapferry.proven";
/// The second mark, for the files that a recovery volume was computed from.
const ORIGINS: &str = "user.gapferry.origins";
/// Maximum difference in seconds between the file system's clock and ours.
const NEAR: i64 = 1;

/// The state of the files of a bundle at one moment.
pub struct FilesStamp(Digest);

impl FilesStamp {
    /// Returns `None` if a file is missing or inaccessible.
    pub fn of(bundle: &Path) -> Option<FilesStamp> {
        let mut state = Hasher::new(Algorithm::Sha256);
        FilesStamp::add(&mut state, bundle)?;
        Some(FilesStamp(state.finish()))
    }

    /// The state of several files.
    pub fn of_all(files: &[PathBuf]) -> Option<FilesStamp> {
        let mut state = Hasher::new(Algorithm::Sha256);
        files.iter().try_for_each(|file| FilesStamp::add(&mut state, file))?;
        Some(FilesStamp(state.finish()))
    }

    fn add(state: &mut Hasher, bundle: &Path) -> Option<()> {
        for entry in WalkDir::new(bundle).sort_by_file_name() {
            let entry = entry.ok()?;
            let file = entry.metadata().ok()?;
            if file.is_dir() {
                continue;
            }
            let name = entry.path().strip_prefix(bundle).ok()?;
            let (size, inode, device) = (file.size(), file.ino(), file.dev());
            let line = format!("{name:?} {size} {device} {inode} {}.{:09}", file.mtime(), file.mtime_nsec());
            state.update(line.as_bytes());
            if entry.depth() > 0 {
                state.update(format!(" {}.{:09}", file.ctime(), file.ctime_nsec()).as_bytes());
            }
            state.update(b"\n");
        }
        Some(())
    }

    /// Marks a bundle whose bytes were all proven in this state. On file systems without attributes nothing happens.
    pub fn mark(&self, bundle: &Path) {
        self.mark_as(NAME, bundle);
    }

    /// Marks a proven file that was computed from files in this state.
    pub fn mark_made(&self, made: &Path) {
        self.mark_as(ORIGINS, made);
        if let Some(state) = FilesStamp::of(made) {
            state.mark(made);
        }
    }

    fn mark_as(&self, name: &str, file: &Path) {
        let mark = format!("{} {}", self.0, now());
        if let Err(error) = setxattr(file, name, mark.as_bytes(), XattrFlags::empty()) {
            tracing::debug!("{} cannot be marked as proven: {error}", file.display());
        }
    }
}

/// Whether the bundle was marked and has not changed.
pub fn is_proven(bundle: &Path) -> bool {
    read(bundle, NAME).is_some_and(|(digest, marked)| {
        let as_marked = |file: std::fs::Metadata| file.is_dir() || (file.ctime() - marked).abs() <= NEAR;
        bundle.metadata().is_ok_and(as_marked) && FilesStamp::of(bundle).is_some_and(|state| state.0 == digest)
    })
}

/// Whether the file was marked as computed from these files, and none of them has been modified since.
pub fn is_made_of(made: &Path, origins: &[PathBuf]) -> bool {
    read(made, ORIGINS).is_some_and(|(digest, marked)| {
        let is_older = |origin: &PathBuf| origin.metadata().is_ok_and(|origin| origin.ctime() <= marked + NEAR);
        origins.iter().all(is_older) && FilesStamp::of_all(origins).is_some_and(|state| state.0 == digest)
    })
}

/// The state that was marked, and when, in seconds since 1970.
fn read(bundle: &Path, name: &str) -> Option<(Digest, i64)> {
    let mut buffer = [0_u8; 256];
    let length = getxattr(bundle, name, &mut buffer).ok()?;
    let (digest, marked) = std::str::from_utf8(buffer.get(..length)?).ok()?.split_once(' ')?;
    Some((digest.parse().ok()?, marked.parse().ok()?))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}
