//! A file as declared by a bundle.

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative to the root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// For a blob the digest in its name, otherwise the SHA-256.
    pub digest: Digest,
}
