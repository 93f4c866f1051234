//! The files of a layout in a directory. Links are recorded and never followed.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::OFlags;

use super::FoundFiles;
use super::found::MAX_DEPTH;
use crate::archive::tar::{Entries, Place};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Dir};

/// Finds every regular file below `root`.
pub fn scan(root: &Path, found: &mut FoundFiles) -> Result<()> {
    for entry in walkdir::WalkDir::new(root).min_depth(1).max_depth(MAX_DEPTH).follow_links(false) {
        let entry = entry.map_err(|e| {
            let path = e.path().unwrap_or(root).to_owned();
            let cause = e.into_io_error();
            Error::disk("reading", &path, cause.unwrap_or_else(|| std::io::Error::other("a loop of links")))
        })?;
        let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let name = relative.as_os_str().as_encoded_bytes();
        let kind = entry.file_type();
        if kind.is_file() {
            let size = entry.metadata().map_err(|e| Error::disk("reading", entry.path(), e.into()))?.len();
            found.file(name, Place { offset: 0, size });
        } else if kind.is_symlink() {
            found.fault(name, "it is a symbolic link");
        } else if !kind.is_dir() {
            found.fault(name, "it is neither a file nor a directory");
        } else if entry.depth() == MAX_DEPTH {
            found.fault(name, "directories nest deeper than in any layout; its content is not read");
        }
        found.count(root)?;
    }
    found.faults.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(())
}

/// Opens a file found by the scan of `root`. A link that has replaced a component since is not followed.
pub fn open(root: &Dir, path: &str) -> Result<File> {
    // A pipe in its place must not make the program wait.
    let open = |flags| root.open_below(path, flags).map(File::from).map_err(io::Error::from);
    let is_plain = || Ok(open(OFlags::PATH)?.metadata()?.is_file());
    let file = fsops::without_waiting(open, is_plain).and_then(fsops::plain);
    file.map_err(|e| Error::disk("opening", &root.path_of(path), e))
}

/// Whether a directory has this name.
pub fn is_directory(root: &Dir, path: &str) -> bool {
    root.open_below(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::Layout;

    /// A layout with one blob, and a directory with the same names and other bytes that must not be read.
    struct Fixture {
        work: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Fixture {
            let fixture = Fixture { work: tempfile::tempdir().unwrap() };
            for (name, text) in [("layout", "ours"), ("elsewhere", "secret")] {
                let blobs = fixture.path(name).join("blobs/sha256");
                std::fs::create_dir_all(&blobs).unwrap();
                std::fs::write(blobs.join("x"), text).unwrap();
                std::fs::write(fixture.path(name).join("index.json"), text).unwrap();
            }
            fixture
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.work.path().join(name)
        }
    }

    /// Otherwise a user who can write to a directory on a shared disk could choose what is read, and make the program read
    /// files that only its own user may read.
    #[test]
    fn no_link_is_followed_that_has_taken_a_name_since_the_layout_was_opened() {
        for (path, replaced) in [
            ("blobs/sha256/x", "blobs"),
            ("blobs/sha256/x", "blobs/sha256"),
            ("blobs/sha256/x", "blobs/sha256/x"),
            ("index.json", "index.json"),
        ] {
            let fixture = Fixture::new();
            let layout = Layout::open(&fixture.path("layout")).unwrap();
            assert_eq!(layout.read(path, 10).unwrap().unwrap(), "ours");
            let name = fixture.path("layout").join(replaced);
            if name.is_dir() { std::fs::remove_dir_all(&name) } else { std::fs::remove_file(&name) }.unwrap();
            symlink(fixture.path("elsewhere").join(replaced), &name).unwrap();
            assert!(layout.read(path, 10).is_err(), "{path} was read through the link {replaced}");
            assert!(layout.linkable(path).is_err(), "{path} was found through the link {replaced}");
            if path.starts_with(replaced) && path != replaced {
                assert!(!layout.is_directory(replaced), "{replaced} is a link");
            }
        }
    }

    /// Links to the directory itself belong to the user. What was opened stays what is read.
    #[test]
    fn a_link_to_the_directory_itself_is_followed_once() {
        let fixture = Fixture::new();
        symlink(fixture.path("layout"), fixture.path("link")).unwrap();
        let layout = Layout::open(&fixture.path("link")).unwrap();
        std::fs::remove_file(fixture.path("link")).unwrap();
        symlink(fixture.path("elsewhere"), fixture.path("link")).unwrap();
        assert_eq!(layout.read("blobs/sha256/x", 10).unwrap().unwrap(), "ours");
        assert!(layout.is_directory("blobs"));
    }
}
