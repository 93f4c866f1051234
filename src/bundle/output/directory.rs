//! Writes the directory form: `OUT.partial/`, renamed to `OUT` when it is complete.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ClaimedBlob, Linking, Placement, Resuming, Slot, WantedBlob, report_lost};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Dir, Entry, Linkable, Linked, Occupant, Open, replace_directory};
use crate::base::progress::Events;
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::format::{TOOLS, is_metadata, is_tool, mode_of};
use crate::bundle::journal::Journal;
use crate::bundle::tools::Tool;
use crate::content::Slice;
use crate::content::chunks::Chunks;
use crate::content::proof::{Unproven, prove_chunks};
use crate::oci::{Algorithm, Digest, Manifest};
use crate::spool::Kept;

/// Suffix of an unfinished blob, whose length is its progress.
const UNFINISHED: &str = ".partial";
/// Mode of directories.
const MODE: u32 = 0o777;

/// See the module documentation.
pub struct DirectoryOutput {
    out: Entry,
    /// What had the name at the start; nothing else is replaced.
    former: Occupant,
    partial: Entry,
    root: Dir,
    /// The directory for the blobs of each algorithm.
    sha256: Dir,
    sha512: Dir,
}

impl DirectoryOutput {
    /// Continues the unfinished directory, or starts one for `files`. Other content in it is removed.
    ///
    /// # Errors
    /// Something else is in its place, or the disk fails.
    pub fn create(out: &Entry, files: &FileSet, events: &Events) -> Result<DirectoryOutput> {
        let former = out.occupant();
        refuse_foreign(out.path())?;
        let partial = out.beside(".partial");
        let root = out.dir().make(partial.name(), MODE)?.dir;
        let blobs = root.make("blobs", MODE)?.dir;
        let (sha256, sha512) = (blobs.make("sha256", MODE)?.dir, blobs.make("sha512", MODE)?.dir);
        let directory = DirectoryOutput { out: out.clone(), former, partial, root, sha256, sha512 };
        directory.remove_unwanted(files, events)?;
        Ok(directory)
    }

    /// A complete blob.
    pub fn blob(&self, digest: &Digest) -> Entry {
        let dir = match digest.algorithm() {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        };
        Entry::in_dir(dir, digest.hex())
    }

    fn unfinished(&self, digest: &Digest) -> Entry {
        self.blob(digest).beside(UNFINISHED)
    }

    /// Removes what an earlier run has left and `files` do not contain.
    fn remove_unwanted(&self, files: &FileSet, events: &Events) -> Result<()> {
        let wanted: HashSet<Digest> = files.blobs.iter().map(|blob| blob.digest).collect();
        // Manifests are written again when the bundle is sealed.
        let own: HashSet<Digest> = files.manifests.iter().map(Manifest::digest).collect();
        let mut lost: u64 = 0;
        self.root.each_file(&mut |file| {
            let name = file.name().to_string_lossy();
            let hex = name.strip_suffix(UNFINISHED).unwrap_or(&name);
            let algorithm = file.dir().path().file_name().unwrap_or_default().to_string_lossy();
            let digest = format!("{algorithm}:{hex}").parse::<Digest>().ok().filter(|_| file.is_file());
            if digest.as_ref().is_some_and(|digest| wanted.contains(digest)) {
                return Ok(());
            }
            if digest.is_some_and(|digest| !own.contains(&digest)) {
                let size = file.stat().and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or_default();
                lost = lost.saturating_add(size);
            }
            file.remove()
        })?;
        report_lost(self.out.path(), lost, events);
        Ok(())
    }

    fn pack(&self, tool: &Tool) -> Result<()> {
        let entry = self.root.make_parents(&tool.path(), MODE)?;
        let file = new_file(&entry, mode_of(&tool.path()))?;
        tool.copy(&mut |piece, at| file.write_all_at(piece, at).map_err(|e| Error::disk("writing", entry.path(), e)))
    }
}

/// Creates a new file, because the name may be a link to another user's file.
pub fn new_file(entry: &Entry, mode: u32) -> Result<File> {
    entry.remove()?;
    entry.create_new(mode)
}

/// Creates a new file with these bytes.
pub fn write(entry: &Entry, bytes: &Kept) -> Result<File> {
    let mut file = new_file(entry, 0o666)?;
    let written = bytes.read(&mut |piece| file.write_all(piece));
    written.map_err(|e| Error::disk("writing", entry.path(), e))?;
    Ok(file)
}

/// Whether the path is that of an unfinished file left by a killed run.
pub fn is_left(path: &str) -> bool {
    let base = path.strip_suffix(UNFINISHED);
    base.is_some_and(|base| is_metadata(base) || is_tool(base) || Digest::of_blob_path(base).is_some())
}

/// Removes an unfinished bundle.
pub fn abandon(out: &Entry) -> Result<()> {
    refuse_foreign_in(out.path(), out.beside(".partial").path())?;
    out.beside(".partial").remove_tree()
}

/// Rejects foreign content in the place of an unfinished directory.
///
/// # Errors
/// Something else has its place.
pub fn refuse_foreign(out: &Path) -> Result<()> {
    // The second is what a killed run has set aside; it is removed.
    [".partial", ".partial.old"].into_iter().try_for_each(|suffix| refuse_foreign_in(out, &fsops::beside(out, suffix)))
}

fn refuse_foreign_in(out: &Path, root: &Path) -> Result<()> {
    let own = ["blobs", "blobs/sha256", "blobs/sha512", "tools"].map(|name| root.join(name));
    let directories = std::iter::once(root).chain(own.iter().map(PathBuf::as_path));
    directories.into_iter().try_for_each(fsops::refuse_other_than_directory)?;
    let is_foreign = |name: &String| !matches!(&**name, "blobs" | "tools") && !is_metadata(name) && !is_left(name);
    let names = std::fs::read_dir(root).into_iter().flatten().flatten();
    let foreign = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(is_foreign);
    match foreign {
        None => Ok(()),
        Some(name) => {
            let text = "which no export has written, and which would be removed; move it away";
            Err(Error::input(format!("writing {}: {} has {name}, {text}", out.display(), root.display())))
        }
    }
}

impl Placement for DirectoryOutput {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let entry = self.unfinished(digest);
        let file = entry.open(Open::Keep)?;
        let present = file.metadata().map_err(|e| Error::disk("reading", entry.path(), e))?.len();
        Ok(Slot::new(Arc::new(file), entry.path(), 0, size.max(present), present))
    }

    fn restarted(&self, _: &Digest, slot: &Slot) -> Result<()> {
        slot.empty()
    }

    fn completed(&self, digest: &Digest) -> Result<()> {
        self.unfinished(digest).rename(&self.blob(digest))
    }

    fn linking(&self) -> Option<&dyn Linking> {
        Some(self)
    }

    fn resuming(&self) -> Option<&dyn Resuming> {
        Some(self)
    }

    fn seal(&self, files: &FileSet, trailer: &[KnownFile], _: &HashMap<Digest, Chunks>) -> Result<()> {
        // A blob that was started may have arrived complete from elsewhere.
        for blob in &files.blobs {
            self.unfinished(&blob.digest).remove()?;
        }
        for manifest in &files.manifests {
            write(&self.blob(&manifest.digest()), manifest.kept())?;
        }
        for tool in &files.tools {
            self.pack(tool)?;
        }
        // Fails if it is in use.
        let _ = self.root.dir("blobs").and_then(|blobs| blobs.remove_dir("sha512"));
        let _ = self.root.remove_dir(TOOLS);
        // The sums come last: without them, the directory is not a bundle.
        let is_last = |file: &&KnownFile| file.path == crate::bundle::SUMS;
        for file in files.head.iter().chain(trailer).filter(|file| !is_last(file)) {
            write(&Entry::in_dir(&self.root, &file.path), &file.bytes)?;
        }
        self.root.sync_file_system()?;
        // Another sync of everything would wait for what other programs have written meanwhile.
        for file in files.head.iter().filter(is_last) {
            let entry = Entry::in_dir(&self.root, &file.path);
            let written = write(&entry, &file.bytes)?.sync_all();
            written.map_err(|e| Error::disk("syncing", entry.path(), e))?;
        }
        self.root.sync()?;
        replace_directory(&self.partial, &self.out, self.former)
    }
}

impl Resuming for DirectoryOutput {
    fn claims(&self, wanted: &HashMap<Digest, u64>) -> Result<Vec<ClaimedBlob<'_>>> {
        let claim = |(digest, size): (&Digest, &u64)| {
            let (blob, entry) = (WantedBlob { digest: *digest, size: *size }, self.blob(digest));
            let is_there = entry.is_file_of(blob.size);
            let open = move || Ok(Slice::new(Arc::new(entry.open(Open::Read)?), entry.path(), 0, blob.size));
            is_there.then(|| ClaimedBlob { blob, in_place: true, open: Box::new(open) })
        };
        Ok(wanted.iter().filter_map(claim).collect())
    }

    fn journal(&self) -> Option<&Journal> {
        None
    }

    fn refute(&self, digest: &Digest) -> Result<()> {
        self.blob(digest).remove()
    }

    fn adopted(&self, _: &HashMap<Digest, Chunks>, _: &Events) {}
}

impl Linking for DirectoryOutput {
    // Linked under its final name right away, because a later run would write into an unfinished file.
    fn link(&self, digest: &Digest, file: &Linkable) -> Result<Linked> {
        let to = self.blob(digest);
        to.remove()?;
        file.link_at(to.dir(), &digest.hex()).map_err(|e| Error::disk("linking", to.path(), e.into()))
    }

    fn reflink(&self, digest: &Digest, bytes: &Slice) -> Result<bool> {
        let to = self.blob(digest);
        match bytes.reflink(&new_file(&to, 0o666)?) {
            Ok(()) => Ok(true),
            Err(_) => to.remove().map(|()| false),
        }
    }

    fn prove_linked(&self, blob: WantedBlob, progress: &dyn Fn(u64)) -> Result<Chunks> {
        let entry = self.blob(&blob.digest);
        let (file, path) = (entry.open(Open::Read)?, entry.path());
        let size = file.metadata().map_err(|e| Error::disk("reading", path, e))?.len();
        let wrong = |text: String| {
            entry.remove()?;
            Err(Error::damaged(format!("reading blob {}: {text}", blob.digest)))
        };
        if size != blob.size {
            return wrong(format!("it has {size} bytes instead of {}", blob.size));
        }
        let slice = Slice::new(Arc::new(file), path, 0, size);
        match prove_chunks(&slice, &blob.digest, progress) {
            Ok(chunks) => Ok(chunks),
            Err(Unproven::Unreadable(error)) => {
                entry.remove()?;
                Err(Error::disk("reading", path, error))
            }
            Err(unproven) => wrong(format!("wrong digest: {unproven}")),
        }
    }
}
