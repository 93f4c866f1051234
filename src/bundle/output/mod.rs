//! What a directory, a tar and volumes have in common while a bundle is written to them, or while one that is there is repaired.

pub mod directory;
pub mod existing_directory;
pub mod existing_tar;
pub mod tar;
pub mod tar_survey;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Linkable, Linked};
use crate::base::progress::units::bytes;
use crate::base::progress::{Event, Events};
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::journal::Journal;
use crate::content::Slice;
use crate::content::chunks::Chunks;
use crate::oci::Digest;

/// How much of a blob is handed to the medium at once, in bytes: the head of a disk moves seldom.
const STRETCH: u64 = 8 * 1024 * 1024;

/// One form of a bundle that is written, or repaired in its place: where each blob goes, and how all of it is brought to the medium.
pub(super) trait Placement: Send + Sync {
    /// Opens the place of a blob of `size` bytes for writing.
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot>;
    /// What was written there of the blob is void.
    fn restarted(&self, digest: &Digest, slot: &Slot) -> Result<()>;
    /// All of it is there, and proven.
    fn completed(&self, digest: &Digest) -> Result<()>;
    /// How blobs come here without being copied; `None`: they are parts of files, which only takes copies.
    fn linking(&self) -> Option<&dyn Linking>;
    /// What an interrupted run has left here; `None`: such a run leaves nothing that this one can use.
    fn resuming(&self) -> Option<&dyn Resuming>;
    /// Writes everything else, brings it to the medium and gives a new bundle its name. `trailer` stands behind the blobs;
    /// `chunks` are those of every blob that is in this place as a whole.
    fn seal(&self, files: &FileSet, trailer: &[KnownFile], chunks: &HashMap<Digest, Chunks>) -> Result<()>;
}

/// A place that keeps what was brought until it is complete, however many runs that takes.
pub(super) trait Resuming: Send + Sync {
    /// What earlier runs have left of the `wanted` blobs, unproven.
    fn claims(&self, wanted: &HashMap<Digest, u64>) -> Result<Vec<ClaimedBlob<'_>>>;
    /// Where it is noted how much of each blob is there; `None`: its file says so.
    fn journal(&self) -> Option<&Journal>;
    /// A claim of this place itself was found wrong.
    fn refute(&self, digest: &Digest) -> Result<()>;
    /// All claims were looked at: nothing that is kept beside the place for their sake is needed any more.
    fn adopted(&self, present: &HashMap<Digest, Chunks>, events: &Events);
}

/// A place where each blob is a file of its own.
pub(super) trait Linking: Send + Sync {
    /// Gives the blob as another name of `file`, unproven.
    fn link(&self, digest: &Digest, file: &Linkable) -> Result<Linked>;
    /// The same with a file that shares the bytes; `false`: not possible.
    fn reflink(&self, digest: &Digest, bytes: &Slice) -> Result<bool>;
    /// Hashes what was linked; what is wrong is removed.
    fn prove_linked(&self, blob: WantedBlob, progress: &dyn Fn(u64)) -> Result<Chunks>;
}

/// A blob that has to be brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// A blob that is said to be somewhere.
pub(super) struct ClaimedBlob<'a> {
    pub blob: WantedBlob,
    /// It is where it belongs; else it has to be copied there.
    pub in_place: bool,
    /// Opens it. There may be more blobs than files can be open.
    pub open: Box<dyn Fn() -> Result<Slice> + Send + Sync + 'a>,
}

/// An open place of a blob.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// In the order of the blob. Bytes that none of them has room for are not written: they are in another volume, or right already.
    extents: Arc<[Extent]>,
    /// Bytes that an earlier run has left there, not proven.
    pub present: u64,
}

/// A region of a file: a blob's bytes from `first` on go to `base` and after.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub file: Arc<File>,
    /// For messages.
    pub path: Arc<Path>,
    pub base: u64,
    pub first: u64,
    /// In bytes.
    pub size: u64,
    /// It is right already, and stays as it is.
    pub is_whole: bool,
}

impl Slot {
    /// All of a blob of `size` bytes in one file.
    pub fn new(file: Arc<File>, path: &Path, base: u64, size: u64, present: u64) -> Slot {
        let only = Extent { file, path: path.into(), base, first: 0, size, is_whole: false };
        Slot::of([only].into(), present)
    }

    /// In several files.
    pub fn of(extents: Arc<[Extent]>, present: u64) -> Slot {
        Slot { extents, present }
    }

    /// The files that it is in.
    fn files(&self) -> impl Iterator<Item = (&File, &Path)> {
        self.extents.iter().map(|extent| (&*extent.file, &*extent.path))
    }

    /// Takes all bytes out of its files, which are of this blob alone.
    ///
    /// # Errors
    /// The disk's.
    pub fn empty(&self) -> Result<()> {
        let empty = |(file, path): (&File, &Path)| file.set_len(0).map_err(|e| Error::disk("truncating", path, e));
        self.files().try_for_each(empty)
    }

    /// The first `length` bytes; `None` where not all of them have a place.
    pub fn slice(&self, length: u64) -> Option<Slice> {
        let mut at = 0;
        let mut pieces = Vec::new();
        for Extent { file, path, base, first, size, .. } in self.extents.iter() {
            if *first != at {
                break;
            }
            at += size;
            pieces.push(Slice::new(file.clone(), &**path, *base, *size));
        }
        Slice::joined(pieces).filter(|slice| slice.size() >= length).map(|slice| slice.until(length))
    }

    /// Writes the bytes of the blob that begin at `at`.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.each(at, bytes.len() as u64, &mut |extent, from, length| {
            let (begin, length) = (usize::try_from(from - at), usize::try_from(length));
            let piece = begin.ok().zip(length.ok()).and_then(|(begin, length)| bytes.get(begin..begin + length));
            let written = extent.file.write_all_at(piece.unwrap_or_default(), extent.base + (from - extent.first));
            written.map_err(|e| Error::disk("writing", &extent.path, e))
        })
    }

    /// Bytes up to `to` of a blob of `size` bytes are written. The medium need not wait for the end of the export: each stretch
    /// that `from..to` completes is its business from now on, while the next bytes arrive.
    pub fn write_out(&self, from: u64, to: u64, size: u64) {
        let begin = from - from % STRETCH;
        if to - begin >= STRETCH || to == size {
            self.begin_writing_out(begin, to - begin);
        }
    }

    fn begin_writing_out(&self, from: u64, length: u64) {
        // It never fails.
        let _ = self.each(from, length, &mut |extent, from, length| {
            fsops::begin_writing_out(&extent.file, extent.base + (from - extent.first), length);
            Ok(())
        });
    }

    /// Calls `act` for the part of each extent that is among `length` bytes from `at` on: where it begins in the blob, and
    /// its length.
    fn each(&self, at: u64, length: u64, act: &mut dyn FnMut(&Extent, u64, u64) -> Result<()>) -> Result<()> {
        for extent in self.extents.iter().filter(|extent| !extent.is_whole) {
            let (from, to) = (at.max(extent.first), (at + length).min(extent.first + extent.size));
            if from < to {
                act(extent, from, to - from)?;
            }
        }
        Ok(())
    }
}

/// Says what is not there any more of what an unfinished run had fetched, so that it is no riddle why it is fetched again.
pub(super) fn report_lost(out: &Path, lost: u64, events: &Events) {
    if lost > 0 {
        let text = format!(
            "{}: {} that an unfinished export of other images had fetched were removed",
            out.display(),
            bytes(lost)
        );
        events.report(Event::Notice(text));
    }
}
