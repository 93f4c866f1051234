//! The directory form while it is written: `OUT.partial/`, which becomes `OUT` when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::Metadata;
use super::hashers::Hashers;
use super::place::{Place, Sealing, Slot};
use super::{Tool, medium};
use crate::base::error::{Error, Result};
use crate::content::chunks::Chunks;
use crate::content::{Linkable, Linked, Slice};
use crate::oci::{Descriptor, Digest};

/// How an unfinished blob is called: its length says how far it has come.
const UNFINISHED: &str = ".partial";

pub struct Directory {
    out: PathBuf,
    root: PathBuf,
}

impl Directory {
    pub fn create(out: &Path) -> Result<Directory> {
        refuse_foreign(out)?;
        let root = medium::beside(out, ".partial");
        for algorithm in ["sha256", "sha512"] {
            let path = root.join("blobs").join(algorithm);
            fs::create_dir_all(&path).map_err(|e| Error::disk("creating", &path, e))?;
        }
        Ok(Directory { out: out.to_owned(), root })
    }

    /// Where a finished blob is.
    pub fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.blob_path())
    }

    fn unfinished(&self, digest: &Digest) -> PathBuf {
        medium::beside(&self.path_of(digest), UNFINISHED)
    }

    /// Puts a proven file of another bundle in place, without a copy; `false` where the file system cannot.
    pub fn link(&self, from: &Path, digest: &Digest) -> bool {
        let to = self.path_of(digest);
        fs::hard_link(from, &to).is_ok()
    }

    /// Removes what an earlier run has left and nobody wants any more; gives the blobs among it, with their bytes.
    pub fn remove_unwanted(&self, wanted: impl Fn(&Digest) -> bool) -> Result<Vec<(Digest, u64)>> {
        let mut removed = Vec::new();
        for entry in walkdir::WalkDir::new(&self.root).min_depth(1).contents_first(true) {
            let entry = entry.map_err(|e| Error::disk("reading", &self.root, e.into()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let hex = name.strip_suffix(UNFINISHED).unwrap_or(&name);
            let algorithm = entry.path().parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
            let digest = format!("{algorithm}:{hex}").parse::<Digest>().ok().filter(|_| entry.file_type().is_file());
            if entry.file_type().is_dir() || digest.as_ref().is_some_and(&wanted) {
                continue;
            }
            let size = entry.metadata().map_or(0, |metadata| metadata.len());
            removed.extend(digest.map(|digest| (digest, size)));
            fs::remove_file(entry.path()).map_err(|e| Error::disk("removing", entry.path(), e))?;
        }
        Ok(removed)
    }

    /// A new file: what had the name may be a link to a file of somebody else.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        remove(path)?;
        let mut file = File::create_new(path).map_err(|e| Error::disk("creating", path, e))?;
        file.write_all(bytes).map_err(|e| Error::disk("writing", path, e))
    }

    fn pack(&self, tool: &Tool) -> Result<()> {
        let path = self.root.join(tool.path());
        let parent = medium::parent(&path);
        fs::create_dir_all(parent).map_err(|e| Error::disk("creating", parent, e))?;
        remove(&path)?;
        let file = Arc::new(medium::create_new(&path, &tool.path())?);
        tool.write_to(&Slot::new(file, &path, 0, tool.size(), 0))
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk("removing", path, error)),
        _ => Ok(()),
    }
}

/// Removes an unfinished bundle.
pub fn abandon(out: &Path) -> Result<()> {
    refuse_foreign(out)?;
    let root = medium::beside(out, ".partial");
    match fs::remove_dir_all(&root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::disk("removing", &root, error)),
        _ => Ok(()),
    }
}

/// Something else may have the place of an unfinished directory.
///
/// # Errors
/// It has.
pub fn refuse_foreign(out: &Path) -> Result<()> {
    let root = medium::beside(out, ".partial");
    let own = ["blobs", "blobs/sha256", "blobs/sha512", "tools"].map(|name| root.join(name));
    std::iter::once(&root).chain(&own).try_for_each(|path| medium::refuse_other_than_directory(path))
}

impl Place for Directory {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let path = self.unfinished(digest);
        let file = medium::open_own(&path, OpenOptions::new().create(true).truncate(false).read(true).write(true))?;
        let present = file.metadata().map_err(|e| Error::disk("reading", &path, e))?.len();
        Ok(Slot::new(Arc::new(file), &path, 0, size.max(present), present))
    }

    fn restarted(&self, slot: &Slot) -> Result<()> {
        let truncate = |(file, path): (&File, &Path)| file.set_len(0).map_err(|e| Error::disk("truncating", path, e));
        slot.files().try_for_each(truncate)
    }

    fn advanced(&self, _: &Digest, _: u64) -> Result<()> {
        Ok(())
    }

    fn completed(&self, digest: &Digest) -> Result<()> {
        let to = self.path_of(digest);
        fs::rename(self.unfinished(digest), &to).map_err(|e| Error::disk("naming", &to, e))
    }

    // Under its own name from the start: the unfinished one is written to by whoever finds it.
    fn link(&self, digest: &Digest, file: &Linkable) -> Result<Linked> {
        let to = self.path_of(digest);
        remove(&to)?;
        let directory = medium::parent(&to);
        let opened = File::open(directory).map_err(|e| Error::disk("opening", directory, e))?;
        file.link_at(opened, &digest.hex()).map_err(|e| Error::disk("linking", &to, e.into()))
    }

    fn reflink(&self, digest: &Digest, bytes: &Slice) -> Result<bool> {
        let to = self.path_of(digest);
        remove(&to)?;
        let file = File::create_new(&to).map_err(|e| Error::disk("creating", &to, e))?;
        match bytes.reflink(&file) {
            Ok(()) => Ok(true),
            Err(_) => remove(&to).map(|()| false),
        }
    }

    fn prove(&self, blob: &Descriptor, progress: &dyn Fn(u64)) -> Result<Chunks> {
        let path = self.path_of(&blob.digest);
        let file = medium::open_own(&path, OpenOptions::new().read(true))?;
        let size = file.metadata().map_err(|e| Error::disk("reading", &path, e))?.len();
        let wrong = |text: String| {
            remove(&path)?;
            Err(Error::damaged(format!("reading blob {}: {text}", blob.digest)))
        };
        if size != blob.size {
            return wrong(format!("it has {size} bytes instead of {}", blob.size));
        }
        let slice = Slice::new(Arc::new(file), &path, 0, size);
        let hashed = Hashers::of_prefix(blob.digest.algorithm(), &slice, size, progress);
        let hashed = hashed.map_err(|e| Error::disk("reading", &path, e))?;
        hashed.finish(&blob.digest).or_else(|found| wrong(format!("wrong digest: its bytes have {found}")))
    }

    fn seal(&self, sealing: &Sealing<'_>) -> Result<()> {
        let metadata = sealing.metadata;
        for manifest in sealing.manifests {
            self.write(&self.path_of(&manifest.digest()), &manifest.bytes()?)?;
        }
        for tool in sealing.tools {
            self.pack(tool)?;
        }
        for unused in ["blobs/sha512", "tools"] {
            // Refused when it is in use.
            let _ = fs::remove_dir(self.root.join(unused));
        }
        // The sums last: without them, it is no bundle.
        let is_last = |file: &&Metadata| file.path == super::SUMS;
        for file in metadata.iter().filter(|file| !is_last(file)) {
            self.write(&self.root.join(&file.path), &file.bytes)?;
        }
        medium::sync_all(&self.root)?;
        // Syncing all once more would wait for whatever others have written meanwhile.
        for file in metadata.iter().filter(is_last) {
            let path = self.root.join(&file.path);
            self.write(&path, &file.bytes)?;
            medium::sync_file(&path)?;
        }
        medium::sync_directory(&self.root)?;
        medium::replace_directory(&self.root, &self.out)?;
        medium::sync_directory(medium::parent(&self.out))
    }
}

/// Opens a finished blob of an unfinished directory, to prove it.
pub fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| Error::disk("opening", path, e))
}
