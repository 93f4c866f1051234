//! The list of files that follows from `bundle.json` alone: everything except signatures and `chunks.b3`.

use crate::bundle::chunks;
use crate::bundle::format::{BUNDLE_JSON, BundleJson, FileEntry, OCI_LAYOUT, SUMS, is_metadata};
use crate::oci::Digest;

/// See the module documentation.
#[derive(Clone, Copy)]
pub struct FileList<'a> {
    pub json: &'a BundleJson,
    /// The identity of the bundle: SHA-256 of `bundle.json`.
    pub identity: Digest,
    /// Size of `bundle.json` in bytes.
    pub size: u64,
}

impl FileList<'_> {
    /// All files in tar order, including `bundle.json` and the sums.
    pub fn files(&self) -> Vec<FileEntry> {
        let metadata = self.metadata();
        let rest = self.json.files.iter().skip_while(|file| is_metadata(&file.path)).cloned();
        metadata.into_iter().chain(rest).collect()
    }

    /// The files before tools and blobs.
    pub fn metadata(&self) -> Vec<FileEntry> {
        let mut files = Vec::new();
        for file in self.json.files.iter().take_while(|file| is_metadata(&file.path)) {
            files.push(file.clone());
            if file.path == OCI_LAYOUT {
                files.push(FileEntry { path: BUNDLE_JSON.to_owned(), size: self.size, digest: self.identity });
            }
        }
        let sums = self.json.sha256sums(self.identity);
        let (size, digest) = (sums.len() as u64, Digest::sha256(sums.as_bytes()));
        files.push(FileEntry { path: SUMS.to_owned(), size, digest });
        files
    }

    /// Length of `chunks.b3` in bytes.
    pub fn chunks_length(&self) -> u64 {
        chunks::length(self.json.blobs().map(|(_, size)| size))
    }
}
