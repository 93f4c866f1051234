//! What a directory, a tar and volumes have in common while a bundle is written to them or repaired in place.

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

/// Bytes of a blob that are passed to the medium at once, so that a disk's head moves rarely.
const STRETCH: u64 = 8 * 1024 * 1024;

/// A form of a bundle that is written or repaired in place: where each blob goes, and how everything is synced.
pub(super) trait Placement: Send + Sync {
    /// Opens the place of a blob of `size` bytes for writing.
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot>;
    /// Discards what was written of the blob.
    fn restarted(&self, digest: &Digest, slot: &Slot) -> Result<()>;
    /// The blob is complete and proven.
    fn completed(&self, digest: &Digest) -> Result<()>;
    /// How blobs get here without being copied; `None` if they are parts of files, which are always copied.
    fn linking(&self) -> Option<&dyn Linking>;
    /// What an interrupted run has left here; `None` if it leaves nothing usable.
    fn resuming(&self) -> Option<&dyn Resuming>;
    /// Writes everything else, syncs it and gives a new bundle its name. `trailer` follows the blobs; `chunks` are those of
    /// every blob that is completely in this place.
    fn seal(&self, files: &FileSet, trailer: &[KnownFile], chunks: &HashMap<Digest, Chunks>) -> Result<()>;
}

/// A place that keeps its content until it is complete, over any number of runs.
pub(super) trait Resuming: Send + Sync {
    /// What earlier runs have left of the `wanted` blobs, not proven.
    fn claims(&self, wanted: &HashMap<Digest, u64>) -> Result<Vec<ClaimedBlob<'_>>>;
    /// Where the progress of each blob is recorded; `None` if its file shows it.
    fn journal(&self) -> Option<&Journal>;
    /// A claim of this place was found to be wrong.
    fn refute(&self, digest: &Digest) -> Result<()>;
    /// All claims were checked; what is kept next to their place is no longer needed.
    fn adopted(&self, present: &HashMap<Digest, Chunks>, events: &Events);
}

/// A place where each blob is a file of its own.
pub(super) trait Linking: Send + Sync {
    /// Adds the blob as another name of `file`, not proven.
    fn link(&self, digest: &Digest, file: &Linkable) -> Result<Linked>;
    /// Does the same with a file that shares the bytes; returns `false` if that is not possible.
    fn reflink(&self, digest: &Digest, bytes: &Slice) -> Result<bool>;
    /// Hashes what was linked, and removes what is wrong.
    fn prove_linked(&self, blob: WantedBlob, progress: &dyn Fn(u64)) -> Result<Chunks>;
}

/// A blob that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WantedBlob {
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// A blob that is said to exist somewhere.
pub(super) struct ClaimedBlob<'a> {
    pub blob: WantedBlob,
    /// Whether it is in its place; otherwise it must be copied there.
    pub in_place: bool,
    /// Opens it. There may be more blobs than open files are allowed.
    pub open: Box<dyn Fn() -> Result<Slice> + Send + Sync + 'a>,
}

/// The open place of a blob.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// In the order of the blob. Bytes without an extent are not written: they are in another volume, or right already.
    extents: Arc<[Extent]>,
    /// Bytes that an earlier run has left there, not proven.
    pub present: u64,
}

/// A region of a file: a blob's bytes from `first` go to `base` and after.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub file: Arc<File>,
    /// For messages.
    pub path: Arc<Path>,
    pub base: u64,
    pub first: u64,
    /// Size in bytes.
    pub size: u64,
    /// Whether it is right already and stays unchanged.
    pub is_whole: bool,
}

impl Slot {
    /// All of a blob of `size` bytes in one file.
    pub fn new(file: Arc<File>, path: &Path, base: u64, size: u64, present: u64) -> Slot {
        let only = Extent { file, path: path.into(), base, first: 0, size, is_whole: false };
        Slot::of([only].into(), present)
    }

    /// A blob in several files.
    pub fn of(extents: Arc<[Extent]>, present: u64) -> Slot {
        Slot { extents, present }
    }

    /// Its files.
    fn files(&self) -> impl Iterator<Item = (&File, &Path)> {
        self.extents.iter().map(|extent| (&*extent.file, &*extent.path))
    }

    /// Empties its files, which contain only this blob.
    ///
    /// # Errors
    /// The disk fails.
    pub fn empty(&self) -> Result<()> {
        let empty = |(file, path): (&File, &Path)| file.set_len(0).map_err(|e| Error::disk("truncating", path, e));
        self.files().try_for_each(empty)
    }

    /// The first `length` bytes; `None` if not all of them have a place.
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

    /// Writes the bytes of the blob that start at `at`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_all_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.each(at, bytes.len() as u64, &mut |extent, from, length| {
            let (begin, length) = (usize::try_from(from - at), usize::try_from(length));
            let piece = begin.ok().zip(length.ok()).and_then(|(begin, length)| bytes.get(begin..begin + length));
            let written = extent.file.write_all_at(piece.unwrap_or_default(), extent.base + (from - extent.first));
            written.map_err(|e| Error::disk("writing", &extent.path, e))
        })
    }

    /// Reports that the blob of `size` bytes is written up to `to`. The medium can start on each stretch that `from..to`
    /// completes while the next bytes arrive.
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

    /// Calls `act` for the part of each extent within `length` bytes from `at`, with its position in the blob and its length.
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

/// Reports what an unfinished run had fetched and is lost, so that it is clear why it is fetched again.
pub(super) fn report_lost(out: &Path, lost: u64, events: &Events) {
    if lost > 0 {
        let text =
            format!("{}: removed {} that an unfinished export of other images had fetched", out.display(), bytes(lost));
        events.report(Event::Notice(text));
    }
}
