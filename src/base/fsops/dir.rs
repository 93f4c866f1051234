//! An open directory.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::identity::{Identity, Stat};
use crate::base::error::{Error, Result};

/// How to open a file. [`Open::Keep`], [`Open::Empty`] and [`Open::Append`] create a missing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// For reading.
    Read,
    /// For reading and writing.
    Change,
    /// For reading and writing; keeps the content.
    Keep,
    /// For reading and writing; empties the file.
    Empty,
    /// For appending.
    Append,
}

impl Open {
    fn flags(self) -> OFlags {
        match self {
            Open::Read => OFlags::RDONLY,
            Open::Change => OFlags::RDWR,
            // Truncation comes later, so that only a regular file is emptied.
            Open::Keep | Open::Empty => OFlags::RDWR | OFlags::CREATE,
            Open::Append => OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND,
        }
    }
}

/// Bytes of directory entries to read at a time: about fifty names.
const LISTED_AT_ONCE: usize = 4096;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

/// An open directory. It stays the same directory even if its path later leads elsewhere. Clones share it.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    /// For messages.
    path: Arc<Path>,
}

/// A directory that was opened or created.
#[derive(Debug)]
pub struct Made {
    pub dir: Dir,
    pub is_new: bool,
}

impl Dir {
    /// Opens the directory at `path`, which the user gave: links in it are followed.
    ///
    /// # Errors
    /// There is no directory at `path`, or the system refuses.
    pub fn open(path: &Path) -> Result<Dir> {
        Dir::try_open(path).map_err(|e| Error::disk("opening", path, e.into()))
    }

    pub(super) fn try_open(path: &Path) -> Result<Dir, Errno> {
        Dir::open_at(rustix::fs::CWD, path, OFlags::empty(), path)
    }

    /// Opens the directory at `path`, and creates it and its parents if they are missing.
    ///
    /// # Errors
    /// Something other than a directory exists there, or the system refuses.
    pub fn create(path: &Path) -> Result<Dir> {
        fs::create_dir_all(path).map_err(|e| Error::disk("creating", path, e))?;
        Dir::open(path)
    }

    fn open_at(at: BorrowedFd<'_>, name: &Path, flags: OFlags, shown: &Path) -> Result<Dir, Errno> {
        let fd = match rustix::fs::openat(at, name, DIRECTORY | flags, Mode::empty()) {
            // A directory that is writable but not readable: names in it can still be used.
            Err(Errno::ACCESS) => rustix::fs::openat(at, name, DIRECTORY | flags | OFlags::PATH, Mode::empty())?,
            opened => opened?,
        };
        Ok(Dir { fd: Arc::new(fd), path: shown.into() })
    }

    /// The path by which it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in it, for messages.
    pub fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let name = Path::new(name.as_ref());
        if *self.path == *Path::new(".") { name.to_owned() } else { self.path.join(name) }
    }

    pub(super) fn fail(&self, verb: &str, name: &OsStr, error: impl Into<io::Error>) -> Error {
        Error::disk(verb, &self.path_of(name), error.into())
    }

    /// Opens a subdirectory.
    ///
    /// # Errors
    /// Nothing, or something other than a directory, has the name, or the system refuses.
    pub fn dir(&self, name: impl AsRef<OsStr>) -> Result<Dir> {
        let name = name.as_ref();
        self.try_dir(name).map_err(|e| self.fail("opening", name, e))
    }

    pub(super) fn try_dir(&self, name: &OsStr) -> Result<Dir, Errno> {
        Dir::open_at(self.as_fd(), Path::new(one(name)?), OFlags::NOFOLLOW, &self.path_of(name))
    }

    /// Opens a subdirectory, and creates it with `mode` if it is missing.
    ///
    /// # Errors
    /// Something other than a directory has the name, or the system refuses.
    pub fn make(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<Made> {
        let name = name.as_ref();
        let made = || -> Result<Made, Errno> {
            let is_new = match rustix::fs::mkdirat(self, one(name)?, Mode::from_raw_mode(mode)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(errno) => return Err(errno),
            };
            Ok(Made { dir: self.try_dir(name)?, is_new })
        };
        made().map_err(|e| self.fail("creating", name, e))
    }

    /// Opens the directory at `path` below this one, and creates missing components with `mode`.
    ///
    /// # Errors
    /// A component is not a directory, or the system refuses.
    pub fn make_all(&self, path: &str, mode: u32) -> Result<Dir> {
        path.split('/').try_fold(self.clone(), |dir, part| Ok(dir.make(part, mode)?.dir))
    }

    /// Creates a new file.
    ///
    /// # Errors
    /// The name is taken, or the system refuses.
    pub fn create_new(&self, name: impl AsRef<OsStr>, mode: u32) -> Result<File> {
        let name = name.as_ref();
        self.try_create(name, mode).map_err(|e| self.fail("creating", name, e))
    }

    pub(super) fn try_create(&self, name: &OsStr, mode: u32) -> Result<File, Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::openat(self, one(name)?, flags, Mode::from_raw_mode(mode)).map(File::from)
    }

    /// Opens a regular file without following a link, and without waiting if it is a pipe.
    ///
    /// # Errors
    /// It is not a regular file; it is opened to keep, empty or append to and has other hard links; or the system refuses.
    pub fn open_file(&self, name: impl AsRef<OsStr>, how: Open) -> Result<File> {
        let name = name.as_ref();
        let fail = |e: io::Error| self.fail("opening", name, e);
        let flags = how.flags() | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = one(name).and_then(|name| rustix::fs::openat(self, name, flags, Mode::from_raw_mode(0o666)));
        let file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(self.not_ours(name, "file")),
            Err(errno) => return Err(fail(errno.into())),
        };
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(self.not_ours(name, "file"));
        }
        // Another user may have linked this name to a file that they cannot write themselves.
        if matches!(how, Open::Keep | Open::Empty | Open::Append) && metadata.nlink() > 1 {
            let path = self.path_of(name);
            let text = "the file is a hard link and has another name; both would be changed; remove this one";
            return Err(Error::input(format!("opening {}: {text}", path.display())));
        }
        if how == Open::Empty {
            file.set_len(0).map_err(fail)?;
        }
        Ok(file)
    }

    pub(super) fn not_ours(&self, name: &OsStr, wanted: &str) -> Error {
        let path = self.path_of(name);
        Error::input(format!(
            "opening {}: it is not a regular {wanted}, so gapferry did not create it; remove it",
            path.display()
        ))
    }

    /// Returns the status of a name without following a link, or `None` if nothing has the name.
    ///
    /// # Errors
    /// The system refuses.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> Result<Option<Stat>> {
        let name = name.as_ref();
        match one(name).and_then(|name| rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.fail("reading", name, errno)),
        }
    }

    /// Whether a directory has this name.
    pub fn is_dir(&self, name: impl AsRef<OsStr>) -> bool {
        self.is_of_type(name.as_ref(), FileType::Directory)
    }

    pub(super) fn is_of_type(&self, name: &OsStr, kind: FileType) -> bool {
        matches!(self.stat(name), Ok(Some(stat)) if FileType::from_raw_mode(stat.st_mode) == kind)
    }

    /// The identity of the directory.
    ///
    /// # Errors
    /// The system refuses.
    pub fn identity(&self) -> Result<Identity> {
        let stat = rustix::fs::fstat(self).map_err(|e| Error::disk("reading", &self.path, e.into()))?;
        Ok(Identity::of(&stat))
    }

    /// Calls `each` for every name, with the inode and type according to the directory, until it breaks.
    ///
    /// # Errors
    /// The system refuses.
    pub fn each_name(&self, mut each: impl FnMut(&CStr, u64, FileType) -> ControlFlow<()>) -> Result<()> {
        self.try_each(&mut each).map_err(|e| Error::disk("reading", &self.path, e.into()))
    }

    fn try_each(&self, each: &mut dyn FnMut(&CStr, u64, FileType) -> ControlFlow<()>) -> Result<(), Errno> {
        // Opened again because clones share one position.
        let own = rustix::fs::openat(self, c".", DIRECTORY, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); LISTED_AT_ONCE];
        let mut names = RawDir::new(own, &mut buffer);
        while let Some(entry) = names.next() {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") && each(name, entry.ino(), entry.file_type()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Every name in it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn names(&self) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.each_name(|name, _, _| {
            names.push(OsStr::from_bytes(name.to_bytes()).to_owned());
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    /// Syncs the names in the directory to the medium.
    ///
    /// # Errors
    /// The medium refuses.
    pub fn sync(&self) -> Result<()> {
        match rustix::fs::fsync(self) {
            // Not every file system can sync a directory, and a directory that is not readable is not open for it.
            Ok(()) | Err(Errno::INVAL | Errno::BADF) => Ok(()),
            Err(errno) => Err(Error::disk("syncing", &self.path, errno.into())),
        }
    }

    /// Syncs the whole file system of the directory to the medium.
    ///
    /// # Errors
    /// The medium refuses.
    pub fn sync_file_system(&self) -> Result<()> {
        rustix::fs::syncfs(self).map_err(|e| Error::disk("syncing", &self.path, e.into()))
    }

    /// Opens `path`, which may have several components, without following a link anywhere below the directory.
    ///
    /// # Errors
    /// Those of the system; `LOOP` or `XDEV` if a link is on the path or `path` leads out.
    pub fn open_below(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(self, path, flags, Mode::empty(), resolve) {
            // Linux before 5.6, or a sandbox that does not support the call.
            Err(Errno::NOSYS | Errno::PERM) => self.open_step_by_step(path, flags),
            other => other,
        }
    }

    pub(super) fn open_step_by_step(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut at: Option<OwnedFd> = None;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            if matches!(part, "" | "." | "..") {
                return Err(Errno::XDEV);
            }
            let from = at.as_ref().map_or(self.as_fd(), OwnedFd::as_fd);
            let flags = if parts.peek().is_none() { flags } else { DIRECTORY | OFlags::NOFOLLOW };
            let opened = rustix::fs::openat(from, part, flags, Mode::empty());
            at = Some(match opened {
                // With O_DIRECTORY, the system reports a link as not a directory.
                Err(Errno::NOTDIR) => match rustix::fs::statat(from, part, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => return Err(Errno::LOOP),
                    _ => return Err(Errno::NOTDIR),
                },
                other => other?,
            });
        }
        at.ok_or(Errno::NOENT)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Requires a single component; links between several would be followed.
pub(super) fn one(name: &OsStr) -> Result<&OsStr, Errno> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
        _ => Ok(name),
    }
}
