//! A file that is written as a whole, not fetched.

use super::FileEntry;
use crate::oci::Digest;

/// The largest `manifest.json` that is read, in bytes: room for 100,000 images.
pub const MAX_DOCKER_JSON: u64 = 64 * 1024 * 1024;
/// The most values in it: 25,000 images of thirty layers. More take more memory than a stranger is given.
pub const MOST_DOCKER_VALUES: usize = 1_000_000;

/// See the module documentation.
#[derive(Clone, Debug)]
pub struct Metadata {
    pub path: String,
    pub bytes: Vec<u8>,
}

impl Metadata {
    pub fn new(path: &str, bytes: Vec<u8>) -> Metadata {
        Metadata { path: path.to_owned(), bytes }
    }

    /// As `bundle.json` declares it.
    pub fn entry(&self) -> FileEntry {
        FileEntry { path: self.path.clone(), size: self.bytes.len() as u64, digest: Digest::sha256(&self.bytes) }
    }
}
