//! What is asked of the file system: room, durability, and names that change at once.

use std::fs::{self, File, OpenOptions};
use std::num::NonZeroU64;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, AtFlags, CWD, FallocateFlags, OFlags, RenameFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::tools::is_tool;
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops;
pub use crate::base::fsops::parent;

/// Opens what only an export makes beside its output. The medium may have been in other hands: a link there would lead the
/// writing elsewhere, and a pipe would never let go.
///
/// # Errors
/// The disk's, or it is anything but a plain file.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let opened = options.custom_flags(i32::from_ne_bytes(flags.to_ne_bytes())).open(path);
    let is_other = |errno: Errno| matches!(errno, Errno::LOOP | Errno::NXIO | Errno::ISDIR);
    match opened {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(file),
        Err(error) if !Errno::from_io_error(&error).is_some_and(is_other) => Err(Error::disk("opening", path, error)),
        _ => Err(not_ours(path, "file")),
    }
}

/// The same for a directory; there may be none.
///
/// # Errors
/// It is anything but a directory.
pub fn refuse_other_than_directory(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_dir() => Err(not_ours(path, "directory")),
        _ => Ok(()),
    }
}

/// The same for a file.
///
/// # Errors
/// It is anything but a plain file.
pub fn refuse_other_than_file(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_file() => Err(not_ours(path, "file")),
        _ => Ok(()),
    }
}

fn not_ours(path: &Path, wanted: &str) -> Error {
    Error::input(format!("opening {}: it is no plain {wanted}, so no export has made it; remove it", path.display()))
}

/// A new file of a bundle, which calls it `name`: a tool can be run.
///
/// # Errors
/// Something is there; the disk's.
pub fn create_new(path: &Path, name: &str) -> Result<File> {
    let mode = if is_tool(name) { 0o777 } else { 0o666 };
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    opened.map_err(|e| Error::disk("creating", path, e))
}

/// Bytes that may still be written below `directory` by this user.
pub fn free_space(directory: &Path) -> Result<u64> {
    let stat =
        rustix::fs::statvfs(directory).map_err(|e| Error::disk("asking for the free space of", directory, e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Reserves `length` bytes, so that a full disk is found out before anything is fetched. File systems that cannot reserve
/// get a file of that length.
pub fn reserve(file: &File, path: &Path, length: u64) -> Result<()> {
    let reserved = rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length);
    match reserved {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            file.set_len(length).map_err(|e| Error::disk("making room in", path, e))
        }
        Err(error) => Err(Error::disk("reserving room for", path, error.into())),
    }
}

/// The kernel begins to write these bytes out, where it would gather them for half a minute; nobody waits for it. Linux does
/// so when it hears that they are not needed in memory; what is still being written stays there.
pub fn begin_writing_out(file: &File, offset: u64, length: u64) {
    // Only advice: what cannot take it is synced at the end all the same.
    let _ = rustix::fs::fadvise(file, offset, NonZeroU64::new(length), Advice::DontNeed);
}

/// Everything of the file system that `directory` is on reaches the medium.
pub fn sync_all(directory: &Path) -> Result<()> {
    let file = File::open(directory).map_err(|e| Error::disk("opening", directory, e))?;
    rustix::fs::syncfs(&file).map_err(|e| Error::disk("syncing", directory, e.into()))
}

/// The bytes of one file reach the medium.
pub fn sync_file(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::disk("opening", path, e))?;
    file.sync_all().map_err(|e| Error::disk("syncing", path, e))
}

/// A name that was given, taken or changed in `directory` reaches the medium.
pub fn sync_directory(directory: &Path) -> Result<()> {
    fsops::sync_directory(directory).map_err(|e| Error::disk("syncing", directory, e))
}

/// `out` with a name of its own that can be given and taken: without `/` at its end, `.` written out, a link followed.
///
/// # Errors
/// A link that leads nowhere.
pub fn settle(out: &Path) -> Result<PathBuf> {
    let plain: PathBuf = out.components().collect();
    let is_link = plain.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
    if plain.file_name().is_some() && !is_link {
        return Ok(plain);
    }
    fs::canonicalize(&plain).map_err(|e| Error::disk("opening", &plain, e))
}

/// Whether another file system, or another part of one, begins here: its name cannot be given to something else.
pub fn is_mount_point(path: &Path) -> bool {
    let asked = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    asked.is_ok_and(|answer| answer.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// `path` gets what `new` is; what was there before is removed. Never is there a moment without one of the two, where
/// the file system can exchange names; else one that is short.
pub fn replace_directory(new: &Path, path: &Path) -> Result<()> {
    if !path.exists() {
        return fs::rename(new, path).map_err(|e| Error::disk("naming the finished bundle", path, e));
    }
    let exchanged = rustix::fs::renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE);
    if exchanged.is_ok() {
        // Or a power cut could find the former one in its place again, with files missing.
        sync_directory(parent(path))?;
        return fs::remove_dir_all(new).map_err(|e| Error::disk("removing the former bundle", new, e));
    }
    let aside = beside(path, ".partial.old");
    if aside.exists() {
        // A run that was killed between the two renames below, or just after.
        fs::remove_dir_all(&aside).map_err(|e| Error::disk("removing a former bundle", &aside, e))?;
    }
    fs::rename(path, &aside).map_err(|e| Error::disk("moving aside", path, e))?;
    if let Err(error) = fs::rename(new, path) {
        // Rather the former one than none; the error to tell is the first.
        let _ = fs::rename(&aside, path);
        return Err(Error::disk("naming the finished bundle", path, error));
    }
    sync_directory(parent(path))?;
    fs::remove_dir_all(&aside).map_err(|e| Error::disk("removing the former bundle", &aside, e))
}

/// `path` with `suffix` behind its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Held while a bundle is written; a second run on the same output is told so.
pub struct WriteLock {
    _file: File,
    path: PathBuf,
}

impl WriteLock {
    /// # Errors
    /// Another process holds it now, or something else has its name.
    pub fn check(out: &Path) -> Result<()> {
        let path = beside(out, ".partial.lock");
        refuse_other_than_file(&path)?;
        let file = open_own(&path, OpenOptions::new().read(true)).ok();
        match file.map(|file| file.try_lock_shared()) {
            Some(Err(fs::TryLockError::WouldBlock)) => Err(held(out)),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// Another process holds it, or the directory cannot be written.
    pub fn take(out: &Path) -> Result<WriteLock> {
        let path = beside(out, ".partial.lock");
        loop {
            let file = open_own(&path, OpenOptions::new().create(true).truncate(false).write(true))?;
            match file.try_lock() {
                Ok(()) if !is_still(&file, &path) => {} // its former owner has just removed it
                Ok(()) => return Ok(WriteLock { _file: file, path }),
                Err(fs::TryLockError::WouldBlock) => return Err(held(out)),
                // Some network file systems cannot lock; two runs at once are then the operator's to avoid.
                Err(fs::TryLockError::Error(error)) => {
                    tracing::debug!("{} cannot be locked: {error}", path.display());
                    return Ok(WriteLock { _file: file, path });
                }
            }
        }
    }
}

fn held(out: &Path) -> Error {
    Error::new(Kind::Input, format!("writing {}: another gapferry is writing it", out.display()))
}

/// Whether `path` still names the open file.
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: &fs::Metadata, b: &fs::Metadata| a.ino() == b.ino() && a.dev() == b.dev();
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if same(&a, &b))
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // Left behind, it would be harmless: only the lock on it counts.
        let _ = fs::remove_file(&self.path);
    }
}
