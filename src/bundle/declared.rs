//! What follows from `bundle.json` alone: every file of a bundle but signatures and `chunks.b3`.

use super::chunks;
use super::format::{BUNDLE_JSON, BundleJson, FileEntry, OCI_LAYOUT, SUMS, is_tool};
use crate::oci::Digest;

/// `bundle.json` and its bytes.
#[derive(Clone, Copy)]
pub struct Declared<'a> {
    pub json: &'a BundleJson,
    pub bytes: &'a [u8],
}

impl Declared<'_> {
    /// The identity of the bundle.
    pub fn identity(&self) -> Digest {
        Digest::sha256(self.bytes)
    }

    /// All files, `bundle.json` and the sums included, in the order of the tar.
    pub fn files(&self) -> Vec<FileEntry> {
        let own = |path: &str, bytes: &[u8]| FileEntry {
            path: path.to_owned(),
            size: bytes.len() as u64,
            digest: Digest::sha256(bytes),
        };
        let sums = self.json.sha256sums(self.identity());
        let is_metadata = |file: &&FileEntry| !is_tool(&file.path) && !file.path.starts_with("blobs/");
        let mut files = Vec::with_capacity(self.json.files.len() + 2);
        for file in self.json.files.iter().take_while(is_metadata) {
            files.push(file.clone());
            if file.path == OCI_LAYOUT {
                files.push(own(BUNDLE_JSON, self.bytes));
            }
        }
        files.push(own(SUMS, sums.as_bytes()));
        files.extend(self.json.files.iter().skip_while(is_metadata).cloned());
        files
    }

    /// The length of `chunks.b3`, in bytes.
    pub fn chunks_length(&self) -> u64 {
        chunks::length(self.json.blobs().map(|(_, size)| size))
    }
}
