//! A storage in a directory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{FoundFile, Kind, ROOTS, Seen};
use crate::base::error::{Error, Result};
use crate::base::fsops::{Dir, Identity, Linkable};
use crate::content::Slice;

/// Its open root: whatever happens to the names above it, the same tree is read.
#[derive(Debug)]
pub struct Directory(Dir);

impl Directory {
    /// Finds the tree at or below `path`, which itself may be a link.
    pub fn open(path: &Path) -> Result<Option<(PathBuf, Directory)>> {
        for below in ROOTS {
            let root = if below.is_empty() { path.to_owned() } else { path.join(below) };
            let dir = match Dir::open(&root) {
                Ok(dir) => dir,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(error),
            };
            let repositories = dir.stat("repositories")?;
            if repositories.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
                return Ok(Some((root, Directory(dir))));
            }
        }
        Ok(None)
    }

    pub fn list(&self, directory: &str) -> io::Result<Vec<(String, Kind)>> {
        let opened = match self.0.open_below(directory, OFlags::DIRECTORY) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        let (mut names, mut directory) = (Vec::new(), rustix::fs::Dir::new(opened)?);
        while let Some(entry) = directory.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                // Not every file system says.
                FileType::Unknown => match rustix::fs::statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    // It has disappeared; the registry may be running.
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e.into()),
                },
                known => known,
            };
            names.push(match (name.to_str(), kind) {
                (Ok(name), FileType::RegularFile) => (name.to_owned(), Kind::File),
                (Ok(name), FileType::Directory) => (name.to_owned(), Kind::Directory),
                (Ok(name), _) => (name.to_owned(), Kind::Other),
                (Err(_), _) => (name.to_bytes().escape_ascii().to_string(), Kind::Other),
            });
        }
        names.sort_unstable();
        Ok(names)
    }

    pub fn file(&self, path: &str, shown: PathBuf) -> io::Result<FoundFile> {
        // A pipe must not block.
        let opened = match self.0.open_below(path, OFlags::NONBLOCK) {
            Ok(opened) => File::from(opened),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(FoundFile::Nothing),
            Err(Errno::LOOP | Errno::XDEV) => {
                return Ok(FoundFile::Odd("it is a symbolic link, or its path contains one"));
            }
            Err(Errno::NXIO | Errno::NODEV) => return Ok(FoundFile::Odd("it is neither a file nor a directory")),
            Err(e) => return Err(e.into()),
        };
        let metadata = opened.metadata()?;
        Ok(match (metadata.is_file(), metadata.is_dir()) {
            (true, _) => FoundFile::File(Slice::new(Arc::new(opened), shown, 0, metadata.len())),
            (_, true) => FoundFile::Odd("it is a directory"),
            _ => FoundFile::Odd("it is neither a file nor a directory"),
        })
    }

    /// The file that was opened at `path`, to link it.
    pub fn linkable(&self, path: &str) -> io::Result<Option<Linkable>> {
        let opened = self.0.open_below(path, OFlags::NONBLOCK)?;
        let stat = rustix::fs::fstat(&opened)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(is_file.then(|| self.linkable_as(path, Identity::of(&stat))))
    }

    pub fn linkable_as(&self, path: &str, identity: Identity) -> Linkable {
        Linkable { directory: self.0.clone(), path: path.to_owned(), identity }
    }

    /// Examines the regular file at `path` without opening it; `None` if only opening can decide.
    pub fn look(&self, path: &str) -> io::Result<Option<FoundFile<Seen>>> {
        let opened = match self.0.open_below(path, OFlags::PATH) {
            Ok(opened) => opened,
            Err(_) => return Ok(None),
        };
        let stat = rustix::fs::fstat(&opened)?;
        let (kind, mode) = (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode));
        if kind != FileType::RegularFile || !mode.contains(Mode::RUSR | Mode::RGRP | Mode::ROTH) {
            return Ok(None);
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Ok(Some(FoundFile::File(Seen { size, identity: Some(Identity::of(&stat)) })))
    }

    pub fn device(&self) -> Option<u64> {
        // Its type differs between platforms.
        #[allow(clippy::unnecessary_cast)]
        rustix::fs::fstat(&self.0).ok().map(|stat| stat.st_dev as u64)
    }
}

/// Whether nothing can be opened because a directory does not exist.
fn is_absent(error: &Error) -> bool {
    let errno = error.os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_below_a_storage_is_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        std::fs::create_dir_all(root.join("repositories/real/below")).unwrap();
        std::fs::write(root.join("repositories/real/file"), "content").unwrap();
        for (link, target) in [("out", outside.path()), ("repositories/file", &outside.path().join("secret"))] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let (shown, tree) = Directory::open(root).unwrap().unwrap();
        assert_eq!(shown, root);
        assert!(matches!(tree.file("out/secret", "x".into()).unwrap(), FoundFile::Odd(_)));
        assert!(matches!(
            tree.file("repositories/real/below", "x".into()).unwrap(),
            FoundFile::Odd("it is a directory")
        ));
        assert!(matches!(tree.file("repositories/none/file", "x".into()).unwrap(), FoundFile::Nothing));
        assert_eq!(
            tree.list("repositories").unwrap(),
            [("file".into(), Kind::Other), ("real".into(), Kind::Directory)]
        );
        assert_eq!(tree.list("out").unwrap(), []);
    }
}
