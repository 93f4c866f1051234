//! Examines what exists already in the place of an image.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{At, MANIFEST, Parts, VERSION, VERSION_START, manifest_name, place};
use crate::base::error::{Error, Kind, Result};
use crate::content::{Files, Slice};
use crate::oci::{Descriptor, Manifest};

/// Maximum size of `version` in bytes.
const MAX_VERSION: u64 = 100;

pub enum ExistingImage {
    /// The same image, finished.
    Finished,
    /// Only parts of the image, by name.
    Unfinished(Vec<String>),
}

/// What a file of the image should be.
enum Part<'a> {
    Manifest(&'a Manifest),
    Blob(&'a Descriptor),
}

/// Examines the directory of an image.
///
/// # Errors
/// Something else is there, or it cannot be read.
pub fn look(at: &At<'_>, image: &Parts<'_>, files: &dyn Files) -> Result<ExistingImage> {
    let mut parts: HashMap<String, Part> =
        image.blobs.iter().map(|blob| (blob.digest.hex(), Part::Blob(blob))).collect();
    parts.extend(image.manifests.iter().map(|manifest| (manifest_name(manifest), Part::Manifest(manifest))));
    parts.insert(MANIFEST.to_owned(), Part::Manifest(image.root));
    let (mut ours, mut foreign) = (Vec::new(), None);
    // Links to the intended files need no further check.
    let mut proven = HashSet::new();
    at.directory.each_name(|name, inode, kind| {
        let name = name.to_string_lossy().into_owned();
        match parts.get(&name) {
            None if name != VERSION => foreign = Some(name),
            Some(Part::Blob(blob)) if kind == FileType::RegularFile && is_link(at, blob, inode, image, files) => {
                ours.push(name.clone());
                proven.insert(name);
            }
            _ => ours.push(name),
        }
        ControlFlow::Continue(())
    })?;
    let version = read(at, VERSION, MAX_VERSION)?;
    let manifest = read(at, MANIFEST, image.root.size())?;
    let is_same = manifest.as_deref() == Some(&image.root.bytes()?[..]);
    let is_finished = version.as_deref().is_some_and(|version| version.starts_with(VERSION_START.as_bytes()));
    // A power failure may leave a file without its bytes.
    let is_empty = |bytes: &Option<Vec<u8>>| bytes.as_ref().is_none_or(Vec::is_empty);
    if is_finished && !is_same && !is_empty(&manifest) {
        return Err(refuse(at, "another image exists there"));
    }
    if !is_finished && !is_empty(&version) {
        return Err(refuse(at, &format!("it is not an image as skopeo writes it: its {VERSION} is different")));
    }
    parts.retain(|name, _| !proven.contains(name));
    // It was read just now.
    if is_same {
        parts.remove(MANIFEST);
    }
    if is_finished && is_same && parts.iter().all(|(name, part)| is_there(at, name, part)) {
        return Ok(ExistingImage::Finished);
    }
    match foreign {
        Some(name) => Err(refuse(at, &format!("something else exists there: {name:?}"))),
        None => Ok(ExistingImage::Unfinished(ours)),
    }
}

fn refuse(at: &At<'_>, what: &str) -> Error {
    Error::new(Kind::Disk, format!("{}: {what}; move it away, or write elsewhere", at.path("").display()))
}

fn is_link(at: &At<'_>, blob: &Descriptor, inode: u64, image: &Parts<'_>, files: &dyn Files) -> bool {
    at.may_link()
        && place::known(at, blob, image.repository, files)
            .is_ok_and(|file| file.is_some_and(|file| file.identity.is_listed(at.identity, inode)))
}

fn is_there(at: &At<'_>, name: &str, part: &Part) -> bool {
    match part {
        Part::Blob(blob) => {
            matches!(at.directory.stat(name), Ok(Some(stat))
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && u64::try_from(stat.st_size) == Ok(blob.size))
        }
        Part::Manifest(manifest) => {
            let found = read(at, name, manifest.size()).ok().flatten();
            found.is_some_and(|found| manifest.bytes().is_ok_and(|bytes| bytes == found))
        }
    }
}

/// The bytes of a regular file, at most one more than `limit`; `None` if the file does not exist.
fn read(at: &At<'_>, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&at.directory, name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(at.fail("opening", name, errno)),
    };
    let metadata = file.metadata().map_err(|e| at.fail("reading", name, e))?;
    if !metadata.is_file() {
        return Err(refuse(at, &format!("{name:?} exists and is not a file")));
    }
    let slice = Slice::new(Arc::new(file), at.path(name), 0, metadata.len().min(limit.saturating_add(1)));
    slice.read_all(u64::MAX).map(|bytes| Some(bytes.into()))
}
