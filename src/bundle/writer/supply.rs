//! Where the blobs of a bundle can come from, besides its own place and a registry: another bundle, or a repair file.

use crate::base::error::Result;
use crate::base::fsops::Linkable;
use crate::base::progress::Phase;
use crate::bundle::output::WantedBlob;
use crate::bundle::writer::links::Links;
use crate::content::Slice;
use crate::files::Layout;
use crate::oci::Digest;

/// Something that may have some of the blobs. It is not trusted.
#[derive(Clone, Copy)]
pub struct Supply<'a> {
    pub blobs: &'a dyn Blobs,
    /// How its blobs are placed without copying.
    pub links: &'a Links,
    /// The phase to report.
    pub phase: Phase,
}

/// Blobs that can be read by position.
pub trait Blobs: Sync {
    /// Whether it claims to have the blob with this size.
    fn has(&self, blob: &WantedBlob) -> bool;
    /// Opens the blob. Returns `None` if it is missing. There may be more blobs than open files are allowed.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, digest: &Digest) -> Result<Option<Slice>>;
    /// The file of the blob, to hard-link it; `None` if it is part of a file.
    ///
    /// # Errors
    /// It cannot be opened.
    ///
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
