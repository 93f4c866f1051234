//! Writes images for skopeo's `dir:` transport, one directory each (containers/image `directory/`): `manifest.json`,
//! `<hex>.manifest.json` for every manifest of an index, `<hex>` for every blob, and `version` last, which marks the image as
//! finished.
//!
//! Blobs are linked if possible. Manifests are written, because other programs rewrite them in place. A file that may be a
//! link is never written to; it is removed and created again.
//!
//! # Threats
//! Anyone may have put files into the destination. Names are created below its open root, no link is followed there, and what
//! is not known to be part of the same image is left alone. A source's path may lead to another file by the time it is linked,
//! so before the image is finished every link is compared with the intended file, and a wrong one is removed.

mod found;
mod place;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{Dir, Identity, Linkable, LockedDir, Made};
use crate::base::progress::Events;
use crate::content::{Files, LinkMode, Reasons};
use crate::oci::{Descriptor, Digest, Manifest, Repository};
use found::ExistingImage;

const MANIFEST: &str = "manifest.json";
const VERSION: &str = "version";
/// Prefix of the file in every version.
const VERSION_START: &str = "Directory Transport Version: ";
const VERSION_TEXT: &str = "Directory Transport Version: 1.1\n";

/// The file to link further names to, if any.
type LinkTo = Option<Arc<Linkable>>;

/// A directory of images.
pub struct ImageDirectory {
    root: LockedDir,
    /// With `Auto` each blob is copied at most once, and then linked.
    mode: LinkMode,
    reasons: Reasons,
    /// The directories of this run by identity: names that differ for us may be equal for the file system.
    taken: Mutex<HashMap<Identity, String>>,
    /// Blobs by the file they are linked to.
    known: Mutex<HashMap<Digest, LinkTo>>,
    /// Blobs that were copied, each with its own lock.
    copies: Mutex<HashMap<Digest, Arc<Mutex<LinkTo>>>>,
    /// The parent of the last image, with its path; its neighbours are often written next.
    parent: Mutex<(String, Dir)>,
    /// Whether links to the source are impossible.
    is_far: AtomicBool,
    linked: AtomicU64,
    copied: AtomicU64,
}

/// The parts of an image.
pub struct Parts<'a> {
    pub root: &'a Manifest,
    /// All other manifests, in any order.
    pub manifests: Vec<&'a Manifest>,
    /// Each blob once.
    pub blobs: &'a [Descriptor],
    /// The repository in which the blobs are found.
    pub repository: &'a Repository,
}

/// The outcome for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageWrite {
    New,
    /// The same image already existed, finished.
    Kept,
}

impl ImageDirectory {
    /// Creates the directory at `path` if it is missing. Only one run may use it: another would take an image that this one
    /// is just making for a left-over.
    ///
    /// # Errors
    /// It cannot be made or opened, or another run has it.
    pub fn create(path: &Path, mode: LinkMode, events: Events) -> Result<ImageDirectory> {
        let root = LockedDir::take(Dir::create(path)?, path)?;
        Ok(ImageDirectory {
            parent: Mutex::new((String::new(), root.dir().clone())),
            root,
            mode,
            reasons: Reasons::new(events),
            taken: Mutex::default(),
            known: Mutex::default(),
            copies: Mutex::default(),
            is_far: AtomicBool::new(false),
            linked: AtomicU64::new(0),
            copied: AtomicU64::new(0),
        })
    }

    /// Number of names that were given to existing files.
    pub fn linked(&self) -> u64 {
        self.linked.load(Ordering::Relaxed)
    }

    /// Bytes that were copied.
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// Writes an image into the directory `name`, which may have components separated by `/`.
    ///
    /// # Errors
    /// Something else is there, the source lacks content, or the file system refuses.
    pub fn write(&self, name: &str, image: &Parts<'_>, files: &dyn Files) -> Result<ImageWrite> {
        let Made { dir: directory, is_new } = self.open(name)?;
        let identity = self.take(name, &directory)?;
        let at = At { images: self, name, directory, identity };
        if !is_new {
            match found::look(&at, image, files)? {
                ExistingImage::Finished => return Ok(ImageWrite::Kept),
                ExistingImage::Unfinished(names) => {
                    // The file that marks it as finished goes first.
                    for name in names.iter().filter(|name| *name == VERSION).chain(&names) {
                        at.remove(name)?;
                    }
                }
            }
        }
        let mut links = Vec::with_capacity(image.blobs.len());
        for blob in image.blobs {
            links.extend(place::blob(&at, blob, image.repository, files)?);
        }
        place::check_links(&at, &links)?;
        for manifest in &image.manifests {
            at.create(&manifest_name(manifest), &manifest.bytes()?)?;
        }
        at.create(MANIFEST, &image.root.bytes()?)?;
        at.create(VERSION, VERSION_TEXT.as_bytes())?;
        Ok(ImageWrite::New)
    }

    /// Syncs everything that was written.
    ///
    /// # Errors
    /// The medium refuses.
    pub fn sync(&self) -> Result<()> {
        self.root.dir().sync_file_system()
    }

    /// Opens or creates the directory of an image, and reports whether it is new.
    fn open(&self, name: &str) -> Result<Made> {
        let make = |at: &Dir, part: &str| {
            at.make(part, 0o777).map_err(|error| match error.os_error().map(Errno::from_raw_os_error) {
                Some(Errno::LOOP | Errno::NOTDIR) => {
                    let path = self.root.dir().path_of(name);
                    let text = format!("creating {}: a part of its path is a link or a file", path.display());
                    Error::new(Kind::Disk, text)
                }
                _ => error,
            })
        };
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Error::input(format!("{name:?} cannot be the name of a directory")));
        }
        let (above, own) = name.rsplit_once('/').unwrap_or(("", name));
        let lock = || self.parent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = Some(lock()).filter(|parent| parent.0 == above).map(|parent| parent.1.clone());
        let parent = match known {
            Some(parent) => parent,
            None => {
                let mut at = self.root.dir().clone();
                for part in above.split('/').filter(|part| !part.is_empty()) {
                    at = make(&at, part)?.dir;
                }
                *lock() = (above.to_owned(), at.clone());
                at
            }
        };
        make(&parent, own)
    }

    /// Reserves a directory for one image.
    fn take(&self, name: &str, directory: &Dir) -> Result<Identity> {
        let identity = directory.identity()?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.insert(identity, name.to_owned()) {
            Some(other) => {
                let path = directory.path().display();
                let text = format!("{path}: the file system does not distinguish this name from {other}");
                Err(Error::new(Kind::Disk, text))
            }
            None => Ok(identity),
        }
    }
}

/// The directory of an image.
struct At<'a> {
    images: &'a ImageDirectory,
    name: &'a str,
    directory: Dir,
    /// The identity of the directory.
    identity: Identity,
}

impl At<'_> {
    fn path(&self, file: &str) -> PathBuf {
        self.directory.path_of(file)
    }

    fn fail(&self, verb: &str, file: &str, error: impl Into<std::io::Error>) -> Error {
        Error::disk(verb, &self.path(file), error.into())
    }

    fn remove(&self, file: &str) -> Result<()> {
        self.directory.remove(file)
    }

    /// Creates a new file.
    fn new_file(&self, file: &str) -> Result<File> {
        self.directory.create_new(file, 0o666)
    }

    fn create(&self, file: &str, bytes: &[u8]) -> Result<()> {
        self.new_file(file)?.write_all(bytes).map_err(|e| self.fail("writing", file, e))
    }
}

fn manifest_name(manifest: &Manifest) -> String {
    format!("{}.{MANIFEST}", manifest.digest().hex())
}
