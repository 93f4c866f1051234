//! A file as a bundle declares it.

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative to the root, with `/`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of a blob the digest in its name, of any other file its sha256.
    pub digest: Digest,
}
