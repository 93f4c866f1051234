//! A file that is generated and written as a whole.

use super::FileEntry;
use crate::oci::Digest;

/// Maximum size of `manifest.json` in bytes: enough for 100,000 images.
pub const MAX_DOCKER_JSON: u64 = 64 * 1024 * 1024;
/// Maximum number of values in it: 25,000 images with thirty layers. More would take more memory than a stranger may use.
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

    /// Its entry in `bundle.json`.
    pub fn entry(&self) -> FileEntry {
        FileEntry { path: self.path.clone(), size: self.bytes.len() as u64, digest: Digest::sha256(&self.bytes) }
    }
}
