//! Whether `chunks.b3` can be used, and for what.

use serde::Serialize;

use super::{Problem, ProblemKind};
use crate::bundle::chunks::{MAX_CHUNKS, Misfit, Reader};
use crate::bundle::{BundleJson, CHUNKS, Proven};
use crate::files::Layout;
use crate::oci::Digest;

/// What has proven the blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlobProof {
    /// The digest of each.
    Digest,
    /// The BLAKE3 of each, which guards against accidents only.
    Blake3,
    /// The BLAKE3 of each, as an accepted key has signed it.
    Blake3Signed,
}

/// The `chunks.b3` of a bundle, as far as it fits.
#[derive(Default)]
pub struct Table {
    pub reader: Option<Reader>,
    /// What is wrong with it.
    pub problem: Option<Problem>,
    /// Why there is no reader.
    pub why: Option<&'static str>,
}

impl Table {
    /// Reads it once: whatever is proven with it is proven with these bytes.
    pub fn read(layout: &Layout, bundle: &BundleJson, identity: Digest) -> Table {
        let without = |why| Table { why: Some(why), ..Table::default() };
        let Some(size) = layout.size_of(CHUNKS) else {
            let is_set = !layout.parts().is_empty();
            return without(if is_set { "volumes hold no chunks.b3" } else { "there is no chunks.b3" });
        };
        let misfit =
            |problem: Problem| Table { problem: Some(problem), ..without("chunks.b3 does not fit the bundle") };
        if size > MAX_CHUNKS {
            return without("chunks.b3 is too large to be read");
        }
        let bytes = match layout.read(CHUNKS, MAX_CHUNKS) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return misfit(Problem::new(CHUNKS, ProblemKind::Unreadable).found(error.chain())),
        };
        match Reader::new(bytes, identity, bundle.blobs()) {
            Ok(reader) => Table { reader: Some(reader), ..Table::default() },
            Err(Misfit::Length { expected, found }) => {
                let problem = Problem::new(CHUNKS, ProblemKind::WrongSize).expected(format!("{expected} bytes"));
                misfit(problem.found(format!("{found} bytes")))
            }
            Err(other) => misfit(Problem::new(CHUNKS, ProblemKind::Malformed).found(other)),
        }
    }

    /// How it proves blobs, where `proven` says that a signature is demanded; else why it does not.
    pub fn proof(&self, layout: &Layout, proven: Option<&Proven>) -> Result<BlobProof, &'static str> {
        let Some(reader) = &self.reader else { return Err(self.why.unwrap_or("there is no chunks.b3")) };
        match proven.map(|proven| proven.has_signed(layout, reader.bytes())) {
            None => Ok(BlobProof::Blake3),
            Some(Ok(true)) => Ok(BlobProof::Blake3Signed),
            Some(Ok(false) | Err(_)) => Err("no accepted key has signed chunks.b3"),
        }
    }
}
