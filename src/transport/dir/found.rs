//! What is there already where an image is to go.

use std::collections::HashMap;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{At, MANIFEST, Parts, VERSION, VERSION_START, VERSION_TEXT, manifest_name};
use crate::error::{Error, Kind, Result};
use crate::oci::Manifest;

/// The longest `version` that is read, in bytes.
const MAX_VERSION: u64 = 100;

pub enum Found {
    /// The same image.
    Finished,
    /// Nothing but parts of it, by their names.
    Unfinished(Vec<String>),
}

/// What a file of the image should be.
enum Part<'a> {
    Manifest(&'a Manifest),
    Blob(u64),
}

/// # Errors
/// Something else is there, or it cannot be read.
pub fn look(at: &At<'_>, image: &Parts<'_>) -> Result<Found> {
    let mut parts: HashMap<String, Part> =
        image.blobs.iter().map(|blob| (blob.digest.hex(), Part::Blob(blob.size))).collect();
    parts.extend(image.manifests.iter().map(|manifest| (manifest_name(manifest), Part::Manifest(manifest))));
    parts.insert(MANIFEST.to_owned(), Part::Manifest(image.root));
    let (mut ours, mut foreign) = (Vec::new(), None);
    for name in names(at).map_err(|e| at.fail("reading", "", e))? {
        match name.as_str() == VERSION || parts.contains_key(&name) {
            true => ours.push(name),
            false => foreign = Some(name),
        }
    }
    let version = read(at, VERSION, MAX_VERSION)?;
    let manifest = read(at, MANIFEST, image.root.size())?;
    let is_same = manifest.as_deref() == Some(&image.root.bytes()[..]);
    let is_finished = version.as_deref().is_some_and(|version| version.starts_with(VERSION_START.as_bytes()));
    // A power cut may leave a file without its bytes.
    let is_empty = |bytes: &Option<Vec<u8>>| bytes.as_ref().is_none_or(Vec::is_empty);
    if is_finished && !is_same && !is_empty(&manifest) {
        return Err(refuse(at, "another image is there already"));
    }
    if !is_finished && !is_empty(&version) {
        return Err(refuse(at, &format!("what is there is no image of skopeo's: its {VERSION} is another")));
    }
    if is_finished && is_same && parts.iter().all(|(name, part)| is_there(at, name, part)) {
        return Ok(Found::Finished);
    }
    match foreign {
        Some(name) => Err(refuse(at, &format!("something else is there already: {name:?}"))),
        None => Ok(Found::Unfinished(ours)),
    }
}

fn refuse(at: &At<'_>, what: &str) -> Error {
    Error::new(Kind::Disk, format!("{}: {what}; move it away, or write elsewhere", at.path("").display()))
}

fn names(at: &At<'_>) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(&at.directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn is_there(at: &At<'_>, name: &str, part: &Part) -> bool {
    match part {
        Part::Blob(size) => {
            let stat = rustix::fs::statat(&at.directory, name, AtFlags::SYMLINK_NOFOLLOW);
            stat.is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && u64::try_from(stat.st_size) == Ok(*size)
            })
        }
        Part::Manifest(manifest) => {
            read(at, name, manifest.size()).is_ok_and(|found| found.as_deref() == Some(&manifest.bytes()[..]))
        }
    }
}

/// A plain file's bytes, at most one more than `limit`; `None` when there is none.
fn read(at: &At<'_>, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&at.directory, name, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(at.fail("opening", name, errno)),
    };
    if !file.metadata().map_err(|e| at.fail("reading", name, e))?.is_file() {
        return Err(refuse(at, &format!("{name:?} is there and no file")));
    }
    let mut bytes = Vec::with_capacity(VERSION_TEXT.len());
    let limited = std::io::Read::take(file, limit.saturating_add(1));
    std::io::Read::read_to_end(&mut { limited }, &mut bytes).map_err(|e| at.fail("reading", name, e))?;
    Ok(Some(bytes))
}
