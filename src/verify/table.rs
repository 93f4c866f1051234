//! Decides whether `chunks.b3` can be used, and what it proves.

use serde::Serialize;

use super::{Problem, ProblemKind};
use crate::bundle::chunks::{MAX_CHUNKS, Misfit, Reader};
use crate::bundle::{BundleJson, CHUNKS, Proven};
use crate::files::Layout;
use crate::oci::Digest;

/// What proved the blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlobProof {
    /// The digest of each.
    Digest,
    /// The BLAKE3 of each, which only guards against accidents.
    Blake3,
    /// The BLAKE3 of each, signed by an accepted key.
    Blake3Signed,
}

/// The `chunks.b3` of a bundle, if it fits the bundle.
#[derive(Default)]
pub struct Table {
    pub reader: Option<Reader>,
    /// What is wrong with the file.
    pub problem: Option<Problem>,
    /// Why there is no reader.
    pub why: Option<&'static str>,
}

impl Table {
    /// Reads the file once, so that every later check uses the same bytes.
    pub fn read(layout: &Layout, bundle: &BundleJson, identity: Digest) -> Table {
        let without = |why| Table { why: Some(why), ..Table::default() };
        let Some(size) = layout.size_of(CHUNKS) else {
            let is_set = !layout.parts().is_empty();
            return without(if is_set { "volumes contain no chunks.b3" } else { "there is no chunks.b3" });
        };
        let misfit =
            |problem: Problem| Table { problem: Some(problem), ..without("chunks.b3 does not match the bundle") };
        if size > MAX_CHUNKS {
            return without("chunks.b3 is too large");
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

    /// Returns how `chunks.b3` proves blobs, or why it does not. `proven` means that a signature is required.
    pub fn proof(&self, layout: &Layout, proven: Option<&Proven>) -> Result<BlobProof, &'static str> {
        let Some(reader) = &self.reader else { return Err(self.why.unwrap_or("there is no chunks.b3")) };
        match proven.map(|proven| proven.has_signed(layout, reader.bytes())) {
            None => Ok(BlobProof::Blake3),
            Some(Ok(true)) => Ok(BlobProof::Blake3Signed),
            Some(Ok(false) | Err(_)) => Err("no accepted key has signed chunks.b3"),
        }
    }
}
