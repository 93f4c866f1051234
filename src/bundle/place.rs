//! What a directory, a tar and volumes have in common while a bundle is written to them.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::Tool;
use super::format::Metadata;
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Linkable, Linked};
use crate::content::Slice;
use crate::content::chunks::Chunks;
use crate::oci::{Descriptor, Digest, Manifest};

/// One form of an unfinished bundle: where each blob goes, and how all of it is published.
pub(super) trait Place: Send + Sync {
    /// Opens the place of a blob of `size` bytes for writing.
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot>;
    /// What was written there is void.
    fn restarted(&self, slot: &Slot) -> Result<()>;
    /// The first `written` bytes are there.
    fn advanced(&self, digest: &Digest, written: u64) -> Result<()>;
    /// All of it is there, and proven.
    fn completed(&self, digest: &Digest) -> Result<()>;
    /// Gives the blob as another name of `file`, unproven. A place that is a part of a file takes none.
    fn link(&self, _digest: &Digest, _file: &Linkable) -> Result<Linked> {
        Ok(Linked::Refused(rustix::io::Errno::OPNOTSUPP))
    }
    /// The same with a file that shares the bytes; `false`: not possible.
    fn reflink(&self, _digest: &Digest, _bytes: &Slice) -> Result<bool> {
        Ok(false)
    }
    /// Hashes what was linked; what is wrong is removed.
    fn prove(&self, blob: &Descriptor, _progress: &dyn Fn(u64)) -> Result<Chunks> {
        Err(Error::input(format!("blob {} was not linked", blob.digest)))
    }
    /// What an earlier run says is finished there, to be proven.
    fn claimed(&self) -> Vec<(Digest, Slice)> {
        Vec::new()
    }
    /// Writes everything else, brings it to the medium and gives the bundle its name.
    fn seal(&self, sealing: &Sealing<'_>) -> Result<()>;
}

/// What is known when all blobs are in place.
pub(super) struct Sealing<'a> {
    /// Metadata and signatures, what stands behind the blobs included.
    pub metadata: &'a [Metadata],
    pub tools: &'a [Tool],
    pub manifests: &'a [Manifest],
    /// In seconds since 1970.
    pub mtime: u64,
    /// Of every blob.
    pub chunks: &'a HashMap<Digest, Chunks>,
}

/// An open place of a blob.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// In the order of the blob. Bytes that none of them has room for go to nobody: they are in a volume that is not written.
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
}

impl Slot {
    /// All of a blob of `size` bytes in one file.
    pub fn new(file: Arc<File>, path: &Path, base: u64, size: u64, present: u64) -> Slot {
        let only = Extent { file, path: path.into(), base, first: 0, size };
        Slot::of([only].into(), present)
    }

    /// In several files.
    pub fn of(extents: Arc<[Extent]>, present: u64) -> Slot {
        Slot { extents, present }
    }

    /// The files that it is in.
    pub fn files(&self) -> impl Iterator<Item = (&File, &Path)> {
        self.extents.iter().map(|extent| (&*extent.file, &*extent.path))
    }

    /// The first `length` bytes; `None` where not all of them have a place.
    pub fn slice(&self, length: u64) -> Option<Slice> {
        let mut at = 0;
        let mut pieces = Vec::new();
        for Extent { file, path, base, first, size } in self.extents.iter() {
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

    /// The medium may have these bytes of the blob from now on.
    pub fn begin_writing_out(&self, from: u64, length: u64) {
        // It never fails.
        let _ = self.each(from, length, &mut |extent, from, length| {
            fsops::begin_writing_out(&extent.file, extent.base + (from - extent.first), length);
            Ok(())
        });
    }

    /// Calls `act` for the part of each extent that is among `length` bytes from `at` on: where it begins in the blob, and
    /// its length.
    fn each(&self, at: u64, length: u64, act: &mut dyn FnMut(&Extent, u64, u64) -> Result<()>) -> Result<()> {
        for extent in self.extents.iter() {
            let (from, to) = (at.max(extent.first), (at + length).min(extent.first + extent.size));
            if from < to {
                act(extent, from, to - from)?;
            }
        }
        Ok(())
    }
}
