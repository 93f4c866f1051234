//! What the two forms of a bundle have in common while they are written.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::Metadata;
use crate::content::chunks::Chunks;
use crate::content::{Linkable, Linked, Slice};
use crate::error::{Error, Result};
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
    /// Writes everything else, brings it to the medium and gives the bundle its name.
    fn seal(&self, metadata: &[Metadata], manifests: &[Manifest], mtime: u64) -> Result<()>;
}

/// An open place: bytes go to `base` and after.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub base: u64,
    /// Bytes that an earlier run has left there, not proven.
    pub present: u64,
}
