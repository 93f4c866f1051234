//! A mark on a bundle of this machine: every byte was proven here, and no file was touched since.
//!
//! An export that changes nothing would otherwise read the whole bundle to be sure of it. The mark is an extended attribute
//! beside the content, not part of it: it does not travel, a copy has none, and where there is none everything is hashed.
//! It holds a digest over name, size, inode and time of change of every file, so whatever writes to one of them voids it.
//! A medium that decays in silence is found by `verify`, which never looks here; nor does anything on the isolated side.

use std::fmt::Write;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::open::Bundle;
use crate::oci::Digest;

const NAME: &str = "user.gapferry.proven";

/// Marks a bundle whose bytes have all been proven. Where the file system keeps no attributes, nothing is marked.
pub fn set(bundle: &Bundle) {
    let path = bundle.layout().path();
    let Some(state) = state(bundle) else { return };
    if let Err(error) = setxattr(path, NAME, state.to_string().as_bytes(), XattrFlags::empty()) {
        tracing::debug!("{} cannot be marked as proven: {error}", path.display());
    }
}

/// Whether the bundle was marked and is as it was then.
pub fn is_set(bundle: &Bundle) -> bool {
    let mut buffer = [0_u8; 128];
    let Ok(length) = getxattr(bundle.layout().path(), NAME, &mut buffer) else { return false };
    state(bundle).is_some_and(|state| buffer.get(..length) == Some(state.to_string().as_bytes()))
}

/// `None`: a file is gone, or not to be looked at.
fn state(bundle: &Bundle) -> Option<Digest> {
    let layout = bundle.layout();
    let mut listing = String::new();
    if layout.is_tar() {
        describe(&mut listing, "", &layout.path().metadata().ok()?);
    } else {
        for (path, _) in layout.entries() {
            describe(&mut listing, path, &Path::new(layout.path()).join(path).symlink_metadata().ok()?);
        }
    }
    Some(Digest::sha256(listing.as_bytes()))
}

fn describe(listing: &mut String, path: &str, file: &Metadata) {
    let (size, inode, device) = (file.size(), file.ino(), file.dev());
    // Writing to a String cannot fail.
    let _ = writeln!(listing, "{path:?} {size} {device} {inode} {}.{:09}", file.mtime(), file.mtime_nsec());
}
