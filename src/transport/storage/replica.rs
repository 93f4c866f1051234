//! Writes a second storage with selected images of a first one: blobs as links or copies, everything else newly created.
//!
//! The layout is as in [`super`]. Everything except a tag's `current/link`, which comes last, is complete at any moment, so
//! that an interrupted run leaves nothing that a registry would serve partially.
//!
//! # Threats
//! Names are created below the open root, and no link is followed there. Only an empty directory, or one marked by an earlier
//! run, is written to. Existing files are kept if they are right, and never written into, because they may be links to the
//! first storage. An earlier run may have given the tree to another user, who changes names in it while root continues.
//! Directories are therefore opened once, and files change their owner with [`Dir::give_tree`].

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FileType;

use super::{Storage, data_path, links};
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{Dir, Entry, Linked, LockedDir, Open, Owner};
use crate::base::progress::{Event, Events};
use crate::content::{Files, LinkMode, Reasons, Slice, proof, why_not_linked};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag};

/// The root of the tree.
const ROOT: &str = "docker/registry/v2";
const TOP: &str = "docker";
/// The name of a blob or manifest in its directory.
const DATA: &str = "data";
/// Modes of directories and files.
const MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;
/// Marks a directory as ours, and contains incomplete files.
const MARK: &str = ".gapferry-migrate";

/// A storage that is being written.
pub struct Replica {
    root: LockedDir,
    /// The directory for incomplete files.
    mark: Dir,
    mode: LinkMode,
    /// Whether copies are allowed if nothing can be shared.
    may_copy: bool,
    owner: Option<Owner>,
    reasons: Reasons,
    linked: AtomicU64,
    copied: AtomicU64,
}

/// An image under one name of a repository.
pub struct Member<'a> {
    pub repository: &'a Repository,
    /// The tags to write: those of its companions, and its own last.
    pub tags: Vec<(&'a Tag, Digest)>,
    /// All its manifests.
    pub manifests: &'a [Manifest],
    pub blobs: &'a [Descriptor],
}

impl Replica {
    /// Creates the directory, or opens one that is empty or was created by an earlier run. Files for `owner` (user and group)
    /// cannot be hard links, because those keep the owner of the original storage.
    ///
    /// # Errors
    /// Something else is there, another run has it, it cannot be created, or hard links are requested with an owner.
    pub fn create(path: &Path, mode: LinkMode, owner: Option<Owner>, events: Events) -> Result<Replica> {
        let may_copy = matches!(mode, LinkMode::Auto | LinkMode::Copy);
        let mode = match (mode, owner) {
            (LinkMode::Hard, Some(_)) => {
                let text =
                    "--chown and --link hard exclude each other: a hard link has the owner of the storage's own file";
                return Err(Error::input(text));
            }
            (LinkMode::Auto, Some(_)) => {
                let text = "blobs are copied instead of hard-linked, because --chown would change the owner of the storage's \
                     own files";
                events.report(Event::Notice(text.to_owned()));
                LinkMode::Reflink
            }
            (mode, _) => mode,
        };
        let root = Dir::create(path)?;
        if !root.is_dir(MARK) && !root.names()?.is_empty() {
            let text = "it is neither empty nor from an earlier run; nothing is written there";
            return Err(Error::input(format!("writing {}: {text}", path.display())));
        }
        let root = LockedDir::take(root, path)?;
        Ok(Replica {
            mark: root.dir().make(MARK, MODE)?.dir,
            root,
            mode,
            may_copy,
            owner,
            reasons: Reasons::new(events),
            linked: AtomicU64::new(0),
            copied: AtomicU64::new(0),
        })
    }

    /// Number of blobs that are links or share their bytes.
    pub fn linked(&self) -> u64 {
        self.linked.load(Ordering::Relaxed)
    }

    /// Bytes that were copied.
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// Adds a blob of `repository` in the first storage, and returns whether it was missing. Only one thread may add the same
    /// blob.
    ///
    /// # Errors
    /// It does not exist or has wrong bytes, or the disk refuses.
    pub fn blob(&self, storage: &Storage, repository: &Repository, blob: &Descriptor) -> Result<bool> {
        let stored = storage.stored_as(repository.path(), &blob.digest).map_err(|problem| storage.error(&problem))?;
        let place = self.root.dir().make_parents(&directory_of(&stored), MODE)?;
        let brought = self.bring(storage, repository, blob, &stored, &place);
        if brought.is_err() {
            // A directory without a blob would be a problem; one that is not empty is not removed by this.
            let _ = place.dir().remove_dir(place.name());
        }
        brought
    }

    fn bring(
        &self,
        storage: &Storage,
        repository: &Repository,
        blob: &Descriptor,
        stored: &Digest,
        place: &Entry,
    ) -> Result<bool> {
        let at = data_in(place)?;
        if self.is_there(&at, blob.size)? {
            return Ok(false);
        }
        if matches!(self.mode, LinkMode::Auto | LinkMode::Hard) && self.link(storage, repository, blob, &at)? {
            return Ok(true);
        }
        let slice = storage.file(repository, &blob.digest)?;
        if self.mode != LinkMode::Copy && self.reflink(&slice, &at, stored)? {
            return Ok(true);
        }
        self.copy(&slice, &at, stored).map(|()| true)
    }

    /// Stores a manifest, and returns whether it was missing. Only one thread may store the same manifest.
    ///
    /// # Errors
    /// The disk fails.
    pub fn manifest(&self, manifest: &Manifest) -> Result<bool> {
        let at = data_in(&self.root.dir().make_parents(&directory_of(&manifest.digest()), MODE)?)?;
        if self.is_there(&at, manifest.size())? {
            return Ok(false);
        }
        let (mut file, partial) = self.begin(&manifest.digest())?;
        file.write_all(&manifest.bytes()?).map_err(|e| Error::disk("writing", partial.path(), e))?;
        partial.rename(&at).map(|()| true)
    }

    /// Adds an image whose manifests and blobs exist to its repository, the tag last, and returns whether anything was
    /// missing. Only one thread may work on a repository.
    ///
    /// # Errors
    /// The tag refers to another image there, or the disk refuses.
    pub fn enter(&self, storage: &Storage, image: &Member<'_>) -> Result<bool> {
        let name = image.repository.path();
        let mut is_new = false;
        for blob in image.blobs {
            let stored = storage.stored_as(name, &blob.digest).map_err(|problem| storage.error(&problem))?;
            is_new |= self.enter_link(&links::of_layer(name, &stored), &stored)?;
            if stored != blob.digest {
                is_new |= self.enter_link(&links::of_layer(name, &blob.digest), &stored)?;
            }
        }
        // distribution 2 recognizes a repository by this.
        self.root.dir().make_all(&format!("{ROOT}/repositories/{name}/_layers"), MODE)?;
        for manifest in image.manifests {
            is_new |= self.enter_link(&links::of_revision(name, &manifest.digest()), &manifest.digest())?;
        }
        for (tag, digest) in &image.tags {
            is_new |= self.enter_link(&links::of_tag_index(name, tag.as_str(), digest), digest)?;
            is_new |= self.enter_link(&links::of_tag(name, tag.as_str()), digest)?;
        }
        Ok(is_new)
    }

    /// Removes incomplete files, sets the owner of everything, and syncs. Hard links from a run without an owner keep theirs;
    /// returns their number.
    ///
    /// # Errors
    /// The disk fails.
    pub fn finish(&self) -> Result<u64> {
        for name in self.mark.names()? {
            self.mark.remove(name)?;
        }
        let kept = match self.owner {
            Some(owner) => {
                let kept = self.root.dir().give_tree(TOP, owner)?;
                self.mark.give(owner)?;
                self.root.dir().give(owner)?;
                kept
            }
            None => 0,
        };
        self.root.dir().sync_file_system()?;
        Ok(kept)
    }

    /// Whether `data` with that size exists. A file with another size was cut off and is removed, and so is a link if the
    /// owner changes.
    fn is_there(&self, at: &Entry, size: u64) -> Result<bool> {
        let Some(stat) = at.dir().stat(at.name())? else { return Ok(false) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::input(format!("writing {}: something else exists there", at.path().display())));
        }
        if u64::try_from(stat.st_size) == Ok(size) && (self.owner.is_none() || stat.st_nlink == 1) {
            return Ok(true);
        }
        at.remove().map(|()| false)
    }

    fn link(&self, storage: &Storage, repository: &Repository, blob: &Descriptor, at: &Entry) -> Result<bool> {
        let Some(file) = storage.linkable(repository, &blob.digest)? else {
            return if self.mode == LinkMode::Hard { Err(cannot(at, "it is in a tar")) } else { Ok(false) };
        };
        match file.link_at(at.dir(), DATA).map_err(|e| Error::disk("linking", at.path(), e.into()))? {
            Linked::Done => {
                self.linked.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Linked::Refused(errno) if self.mode == LinkMode::Hard => Err(cannot(at, why_not_linked(errno))),
            Linked::Refused(errno) => {
                self.reasons.report(why_not_linked(errno), "they are copied");
                Ok(false)
            }
            Linked::Changed => Err(file.changed()),
        }
    }

    fn reflink(&self, slice: &Slice, at: &Entry, digest: &Digest) -> Result<bool> {
        let (file, partial) = self.begin(digest)?;
        match slice.reflink(&file) {
            Ok(()) => {
                self.linked.fetch_add(1, Ordering::Relaxed);
                partial.rename(at).map(|()| true)
            }
            Err(_) if self.may_copy => Ok(false),
            Err(error) => Err(Error::disk("reflinking", at.path(), error)),
        }
    }

    fn copy(&self, slice: &Slice, at: &Entry, digest: &Digest) -> Result<()> {
        let (mut file, partial) = self.begin(digest)?;
        let fail = |e| Error::disk("writing", partial.path(), e);
        proof::copy(slice, digest, &mut |piece, _| file.write_all(piece).map_err(fail))
            .map_err(|uncopied| uncopied.of(slice))?;
        self.copied.fetch_add(slice.size(), Ordering::Relaxed);
        partial.rename(at)
    }

    /// Creates a file that is moved into place when it is complete.
    fn begin(&self, digest: &Digest) -> Result<(File, Entry)> {
        let partial = Entry::in_dir(&self.mark, digest.hex());
        partial.remove()?;
        Ok((self.create_new(&partial)?, partial))
    }

    fn create_new(&self, entry: &Entry) -> Result<File> {
        let file = entry.create_new(FILE_MODE)?;
        self.owner.map_or(Ok(()), |owner| owner.take(&file, entry.path()))?;
        Ok(file)
    }

    /// Keeps a link with the right content, and writes a missing or incomplete one. Returns whether it was written.
    fn enter_link(&self, path: &str, digest: &Digest) -> Result<bool> {
        let link = self.root.dir().make_parents(&format!("{ROOT}/{path}"), MODE)?;
        let text = digest.to_string();
        if link.exists() {
            let mut held = Vec::new();
            let read = link.open(Open::Read)?.take(text.len() as u64 + 1).read_to_end(&mut held);
            read.map_err(|e| Error::disk("reading", link.path(), e))?;
            if held == text.as_bytes() {
                return Ok(false);
            }
            if !text.as_bytes().starts_with(&held) {
                let text = format!("{}: it exists with other content", link.path().display());
                return Err(Error::input(text));
            }
            link.remove()?;
        }
        let mut file = self.create_new(&link)?;
        file.write_all(text.as_bytes()).map_err(|e| Error::disk("writing", link.path(), e)).map(|()| true)
    }
}

fn directory_of(digest: &Digest) -> String {
    format!("{ROOT}/{}", data_path(digest).trim_end_matches("/data"))
}

/// The data of a blob or manifest, in its directory.
fn data_in(place: &Entry) -> Result<Entry> {
    Ok(Entry::in_dir(&place.dir().make(place.name(), MODE)?.dir, DATA))
}

fn cannot(at: &Entry, why: &str) -> Error {
    Error::new(Kind::Disk, format!("linking {}: {why}", at.path().display()))
}
