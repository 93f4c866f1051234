//! A second storage tree with chosen images of a first: blobs as links or copies, everything else made anew.
//!
//! Layout as in [`super`]; what stands there is whole at any moment but for a tag's `current/link`, which comes last, so that a
//! run that was interrupted leaves nothing a registry could serve in part.
//!
//! # Threats
//! Names are made below the open root, and no link is followed there. Only an empty directory, or one that an earlier run
//! has marked, is written to; what is there already is kept when it is what is wanted, and is never written into: it may be a
//! link to the first storage.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Storage, data_path, links};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events};
use crate::content::{Files, LinkMode, Linked, Reasons, Slice, keep, why_not_linked};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Tag};

/// Where the tree begins.
const ROOT: &str = "docker/registry/v2";
/// Marks a directory as one of ours, and holds what is not whole yet.
const MARK: &str = ".gapferry-migrate";

/// The tree while it is made.
pub struct Replica {
    root: OwnedFd,
    /// For messages.
    path: PathBuf,
    mode: LinkMode,
    /// Where nothing can be shared either.
    may_copy: bool,
    owner: Option<(u32, u32)>,
    reasons: Reasons,
    linked: AtomicU64,
    copied: AtomicU64,
}

/// An image under one name of a repository.
pub struct Member<'a> {
    pub repository: &'a Repository,
    /// What its tags mean: those of its companions, and last its own.
    pub tags: Vec<(&'a Tag, Digest)>,
    /// All of them.
    pub manifests: &'a [Manifest],
    pub blobs: &'a [Descriptor],
}

impl Replica {
    /// Makes the directory, or opens one that is empty or was made by an earlier run. Files that are to belong to `owner`
    /// (user and group) cannot be hard links, since those belong to whoever has the first storage.
    ///
    /// # Errors
    /// Something else is there, another run has it, or it cannot be made; hard links with an owner.
    pub fn create(path: &Path, mode: LinkMode, owner: Option<(u32, u32)>, events: Events) -> Result<Replica> {
        let may_copy = matches!(mode, LinkMode::Auto | LinkMode::Copy);
        let mode = match (mode, owner) {
            (LinkMode::Hard, Some(_)) => {
                let text =
                    "--chown and --link hard exclude each other: a hard link has the owner of the storage's own file";
                return Err(Error::input(text));
            }
            (LinkMode::Auto, Some(_)) => {
                let text =
                    "blobs are not hard-linked, so that --chown does not change the owner of the storage's own files";
                events.report(Event::Notice(text.to_owned()));
                LinkMode::Reflink
            }
            (mode, _) => mode,
        };
        std::fs::create_dir_all(path).map_err(|e| Error::disk("creating", path, e))?;
        let mut names = std::fs::read_dir(path).map_err(|e| Error::disk("reading", path, e))?;
        let is_ours = path.join(MARK).symlink_metadata().is_ok_and(|mark| mark.is_dir());
        if !is_ours && names.next().is_some() {
            let text = "it is neither empty nor the work of an earlier run; nothing is written there";
            return Err(Error::input(format!("writing {}: {text}", path.display())));
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::disk("opening", path, e.into()))?;
        keep(&root, path)?;
        let replica = Replica {
            root,
            path: path.to_owned(),
            mode,
            may_copy,
            owner,
            reasons: Reasons::new(events),
            linked: AtomicU64::new(0),
            copied: AtomicU64::new(0),
        };
        replica.directory(MARK)?;
        Ok(replica)
    }

    /// Blobs that are links now, or share their bytes.
    pub fn linked(&self) -> u64 {
        self.linked.load(Ordering::Relaxed)
    }

    /// Bytes that were copied.
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// Brings a blob that `repository` of the first storage has; whether it was missing. Each blob by one thread only.
    ///
    /// # Errors
    /// It is not there or has other bytes, or the disk refuses.
    pub fn blob(&self, storage: &Storage, repository: &Repository, blob: &Descriptor) -> Result<bool> {
        let stored = storage.stored_as(repository.path(), &blob.digest).map_err(|fault| storage.error(&fault))?;
        let brought = self.bring(storage, repository, blob, &stored);
        if brought.is_err() {
            // A place without a blob would be a fault; one that has something is not removed by this.
            let _ = rustix::fs::unlinkat(&self.root, directory_of(&stored), AtFlags::REMOVEDIR);
        }
        brought
    }

    fn bring(&self, storage: &Storage, repository: &Repository, blob: &Descriptor, stored: &Digest) -> Result<bool> {
        let at = self.place(stored)?;
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

    /// Stores the bytes of a manifest; whether they were missing. Each by one thread only.
    ///
    /// # Errors
    /// The disk's.
    pub fn manifest(&self, manifest: &Manifest) -> Result<bool> {
        let at = self.place(&manifest.digest())?;
        if self.is_there(&at, manifest.size())? {
            return Ok(false);
        }
        let (mut file, partial) = self.begin(&manifest.digest())?;
        file.write_all(&manifest.bytes()?).map_err(|e| self.fail("writing", &partial, e))?;
        self.end(&partial, &at).map(|()| true)
    }

    /// Enters an image whose manifests and blobs are there into its repository, the tag last; whether anything of that was
    /// missing. Each repository by one thread only.
    ///
    /// # Errors
    /// The tag means another image there, or the disk refuses.
    pub fn enter(&self, storage: &Storage, image: &Member<'_>) -> Result<bool> {
        let name = image.repository.path();
        let mut is_new = false;
        for blob in image.blobs {
            let stored = storage.stored_as(name, &blob.digest).map_err(|fault| storage.error(&fault))?;
            is_new |= self.enter_link(&links::of_layer(name, &stored), &stored)?;
            if stored != blob.digest {
                is_new |= self.enter_link(&links::of_layer(name, &blob.digest), &stored)?;
            }
        }
        // distribution 2 knows a repository by this.
        self.directory(&format!("{ROOT}/repositories/{name}/_layers"))?;
        for manifest in image.manifests {
            is_new |= self.enter_link(&links::of_revision(name, &manifest.digest()), &manifest.digest())?;
        }
        for (tag, digest) in &image.tags {
            is_new |= self.enter_link(&links::of_tag_index(name, tag.as_str(), digest), digest)?;
            is_new |= self.enter_link(&links::of_tag(name, tag.as_str()), digest)?;
        }
        Ok(is_new)
    }

    /// Removes what is not whole, gives everything its owner, and brings it to the medium. What is a hard link from a run
    /// without an owner keeps the one it has; gives their number.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(&self) -> Result<u64> {
        let mark = self.path.join(MARK);
        for entry in std::fs::read_dir(&mark).map_err(|e| Error::disk("reading", &mark, e))? {
            let path = entry.map_err(|e| Error::disk("reading", &mark, e))?.path();
            std::fs::remove_file(&path).map_err(|e| Error::disk("removing", &path, e))?;
        }
        let mut kept = 0;
        if let Some((user, group)) = self.owner {
            for entry in walkdir::WalkDir::new(&self.path) {
                let entry = entry.map_err(|e| Error::disk("reading", &self.path, e.into()))?;
                let file = entry.metadata().map_err(|e| Error::disk("reading", entry.path(), e.into()))?;
                if file.is_file() && std::os::unix::fs::MetadataExt::nlink(&file) > 1 {
                    kept += 1;
                    continue;
                }
                std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))
                    .map_err(|e| Error::disk("changing the owner of", entry.path(), e))?;
            }
        }
        rustix::fs::syncfs(&self.root).map_err(|e| Error::disk("writing", &self.path, e.into()))?;
        Ok(kept)
    }

    /// The directory that holds `data` of a digest.
    fn place(&self, digest: &Digest) -> Result<At> {
        let path = directory_of(digest);
        Ok(At { directory: self.directory(&path)?, path: self.path.join(path).join("data") })
    }

    /// Whether `data` of that size is there. What is there with another size was cut short, and goes; so does a link where
    /// the owner is to change.
    fn is_there(&self, at: &At, size: u64) -> Result<bool> {
        let stat = match rustix::fs::statat(&at.directory, "data", AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Error::disk("reading", &at.path, errno.into())),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::input(format!("writing {}: something else is there", at.path.display())));
        }
        if u64::try_from(stat.st_size) == Ok(size) && (self.owner.is_none() || stat.st_nlink == 1) {
            return Ok(true);
        }
        rustix::fs::unlinkat(&at.directory, "data", AtFlags::empty())
            .map_err(|e| Error::disk("removing", &at.path, e.into()))?;
        Ok(false)
    }

    fn link(&self, storage: &Storage, repository: &Repository, blob: &Descriptor, at: &At) -> Result<bool> {
        let Some(file) = storage.linkable(repository, &blob.digest)? else {
            return if self.mode == LinkMode::Hard { Err(cannot(at, "it is in a tar")) } else { Ok(false) };
        };
        match file.link_at(&at.directory, "data").map_err(|e| Error::disk("linking", &at.path, e.into()))? {
            Linked::Done => {
                self.linked.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Linked::Refused(errno) if self.mode == LinkMode::Hard => Err(cannot(at, why_not_linked(errno))),
            Linked::Refused(errno) => {
                self.reasons.tell(why_not_linked(errno), "these are copied");
                Ok(false)
            }
            Linked::Changed => Err(file.changed()),
        }
    }

    fn reflink(&self, slice: &Slice, at: &At, digest: &Digest) -> Result<bool> {
        let (file, partial) = self.begin(digest)?;
        match slice.reflink(&file) {
            Ok(()) => {
                self.linked.fetch_add(1, Ordering::Relaxed);
                self.end(&partial, at).map(|()| true)
            }
            Err(_) if self.may_copy => Ok(false),
            Err(error) => Err(Error::disk("reflinking", &at.path, error)),
        }
    }

    fn copy(&self, slice: &Slice, at: &At, digest: &Digest) -> Result<()> {
        let (mut file, partial) = self.begin(digest)?;
        let found = slice.copy_to(&mut file, digest.algorithm(), |e| self.fail("writing", &partial, e))?;
        self.copied.fetch_add(slice.size(), Ordering::Relaxed);
        if found == *digest { self.end(&partial, at) } else { Err(slice.wrong(found)) }
    }

    /// A new file that has its place when it is whole.
    fn begin(&self, digest: &Digest) -> Result<(File, String)> {
        let partial = format!("{MARK}/{}", digest.hex());
        match rustix::fs::unlinkat(&self.root, &partial, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.fail("removing", &partial, errno.into())),
        }
        Ok((self.create_new(&self.root, &partial, &partial)?, partial))
    }

    fn end(&self, partial: &str, at: &At) -> Result<()> {
        rustix::fs::renameat(&self.root, partial, &at.directory, "data")
            .map_err(|e| Error::disk("naming", &at.path, e.into()))
    }

    fn create_new(&self, directory: impl AsFd, name: &str, path: &str) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let created = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644));
        created.map(File::from).map_err(|e| self.fail("creating", path, e.into()))
    }

    /// A link that is there and says the same is kept; one that was cut short is made again. Whether it had to be made.
    fn enter_link(&self, path: &str, digest: &Digest) -> Result<bool> {
        let path = format!("{ROOT}/{path}");
        let directory = self.directory(path.trim_end_matches("/link"))?;
        let text = digest.to_string();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(&directory, "link", flags, Mode::empty()) {
            Ok(file) => {
                let mut held = Vec::new();
                let read = File::from(file).take(text.len() as u64 + 1).read_to_end(&mut held);
                read.map_err(|e| self.fail("reading", &path, e))?;
                if held == text.as_bytes() {
                    return Ok(false);
                }
                if !text.as_bytes().starts_with(&held) {
                    let text = format!("{}: it says something else already", self.path.join(&path).display());
                    return Err(Error::input(text));
                }
                rustix::fs::unlinkat(&directory, "link", AtFlags::empty())
                    .map_err(|e| self.fail("removing", &path, e.into()))?;
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(self.fail("opening", &path, errno.into())),
        }
        let mut file = self.create_new(&directory, "link", &path)?;
        file.write_all(text.as_bytes()).map_err(|e| self.fail("writing", &path, e)).map(|()| true)
    }

    /// Opens a directory below the root, making what is not there.
    fn directory(&self, path: &str) -> Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let fail = |errno: Errno| self.fail("creating", path, errno.into());
        let mut at: Option<OwnedFd> = None;
        for part in path.split('/') {
            let from = at.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd);
            let opened = match rustix::fs::openat(from, part, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(from, part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(fail(errno)),
                    }
                    rustix::fs::openat(from, part, flags, Mode::empty())
                }
                opened => opened,
            };
            at = Some(opened.map_err(fail)?);
        }
        at.ok_or_else(|| fail(Errno::NOENT))
    }

    fn fail(&self, verb: &str, path: &str, error: std::io::Error) -> Error {
        Error::disk(verb, &self.path.join(path), error)
    }
}

fn directory_of(digest: &Digest) -> String {
    format!("{ROOT}/{}", data_path(digest).trim_end_matches("/data"))
}

/// Where `data` of a digest is.
struct At {
    directory: OwnedFd,
    /// For messages.
    path: PathBuf,
}

fn cannot(at: &At, why: &str) -> Error {
    Error::new(Kind::Disk, format!("linking {}: {why}", at.path.display()))
}
