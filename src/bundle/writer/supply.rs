//! Where the blobs of a bundle may come from, besides its own place and a registry: another bundle, or what repairs one.

use crate::base::error::Result;
use crate::base::fsops::Linkable;
use crate::base::progress::Phase;
use crate::bundle::output::WantedBlob;
use crate::bundle::writer::links::Links;
use crate::content::Slice;
use crate::files::Layout;
use crate::oci::Digest;

/// What may have some of the blobs; it is not believed.
#[derive(Clone, Copy)]
pub struct Supply<'a> {
    pub blobs: &'a dyn Blobs,
    /// How its blobs come without being copied.
    pub links: &'a Links,
    /// What is reported while they are brought.
    pub phase: Phase,
}

/// Blobs that can be read by position.
pub trait Blobs: Sync {
    /// Whether it says to have the blob, of this size.
    fn has(&self, blob: &WantedBlob) -> bool;
    /// Opens the blob; `None`: it is not there. There may be more blobs than files can be open.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, digest: &Digest) -> Result<Option<Slice>>;
    /// The file of the blob, for giving it another name; `None`: it is a part of a file.
    ///
    /// # Errors
    /// It cannot be opened.
    fn linkable(&self, digest: &Digest) -> Result<Option<Linkable>>;
}

impl Blobs for Layout {
    fn has(&self, blob: &WantedBlob) -> bool {
        self.size_of(&blob.digest.blob_path()) == Some(blob.size)
    }

    fn open(&self, digest: &Digest) -> Result<Option<Slice>> {
        self.slice(&digest.blob_path())
    }

    fn linkable(&self, digest: &Digest) -> Result<Option<Linkable>> {
        Layout::linkable(self, &digest.blob_path())
    }
}
