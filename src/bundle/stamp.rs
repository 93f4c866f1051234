//! A mark on a bundle of this machine: every byte was proven here, and no file was touched since.
//!
//! An export that changes nothing would otherwise read the whole bundle to be sure of it. The mark is an extended attribute
//! beside the content, not part of it: it does not travel, a copy has none, and where there is none everything is hashed.
//! It holds a digest over name, size, inode and time of change of every file, so whatever writes to one of them voids it.
//! A medium that decays in silence is found by `verify`, which never looks here; nor does anything on the isolated side.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use walkdir::WalkDir;

use crate::oci::{Algorithm, Digest, Hasher};

const NAME: &str = "user.gapferry.proven";

/// Marks a bundle whose bytes have all been proven. Where the file system keeps no attributes, nothing is marked.
pub fn set(bundle: &Path) {
    let Some(state) = state(bundle) else { return };
    if let Err(error) = setxattr(bundle, NAME, state.to_string().as_bytes(), XattrFlags::empty()) {
        tracing::debug!("{} cannot be marked as proven: {error}", bundle.display());
    }
}

/// Whether the bundle was marked and is as it was then.
pub fn is_set(bundle: &Path) -> bool {
    let mut buffer = [0_u8; 128];
    let Ok(length) = getxattr(bundle, NAME, &mut buffer) else { return false };
    state(bundle).is_some_and(|state| buffer.get(..length) == Some(state.to_string().as_bytes()))
}

/// `None`: a file is gone, or not to be looked at.
fn state(bundle: &Path) -> Option<Digest> {
    let mut state = Hasher::new(Algorithm::Sha256);
    for entry in WalkDir::new(bundle).sort_by_file_name() {
        let entry = entry.ok()?;
        let file = entry.metadata().ok()?;
        if file.is_dir() {
            continue;
        }
        let name = entry.path().strip_prefix(bundle).ok()?;
        let (size, inode, device) = (file.size(), file.ino(), file.dev());
        let line = format!("{name:?} {size} {device} {inode} {}.{:09}\n", file.mtime(), file.mtime_nsec());
        state.update(line.as_bytes());
    }
    Some(state.finish())
}
