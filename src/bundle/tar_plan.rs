//! The position of every file of a bundle in a tar, known before the first byte is fetched.

use super::format::{is_signature, is_tool};
pub use crate::archive::tar::BLOCK;
use crate::base::error::{Error, Result};
use crate::oci::Digest;

/// The two empty blocks at the end of a tar.
pub const END: u64 = 2 * BLOCK;
/// Maximum length of a name in the header itself.
const SHORT_NAME: usize = 100;

/// A file in the tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Position of its header.
    pub header: u64,
    /// Position of its bytes.
    pub data: u64,
}

/// The whole tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarPlan {
    pub files: Vec<PlannedFile>,
    /// Size of the file in bytes.
    pub length: u64,
}

impl TarPlan {
    /// Lays out `files` (path and size) in their order.
    ///
    /// # Errors
    /// The sizes overflow.
    pub fn new(files: impl IntoIterator<Item = (String, u64)>) -> Result<TarPlan> {
        let too_large =
            || Error::damaged("planning the tar: the sizes in the manifests add up to more than a file can hold");
        let mut at: u64 = 0;
        let mut laid = Vec::new();
        for (path, size) in files {
            let data = at.checked_add(header_length(&path)).ok_or_else(too_large)?;
            let end = size.checked_next_multiple_of(BLOCK).and_then(|padded| data.checked_add(padded));
            let end = end.filter(|end| *end < i64::MAX as u64).ok_or_else(too_large)?;
            laid.push(PlannedFile { path, size, header: at, data });
            at = end;
        }
        Ok(TarPlan { files: laid, length: at + END })
    }

    /// Equal for equal layouts: tells whether an unfinished file was started for this plan. A new ECDSA signature may have
    /// another length but takes the same space.
    pub fn fingerprint(&self) -> Digest {
        let mut text = String::new();
        for PlannedFile { path, size, data, .. } in &self.files {
            let size = if is_signature(path) { size.next_multiple_of(BLOCK) } else { *size };
            text.push_str(&format!("{path} {size} {data}\n"));
        }
        Digest::sha256(text.as_bytes())
    }
}

impl PlannedFile {
    /// Header blocks: ustar fields as GNU tar writes them, numbers from 8 GiB in base 256, and a long name in an entry of its
    /// own before. Owner 0:0, mode 0644 (0755 for tools), `mtime` in seconds since 1970.
    pub fn header_blocks(&self, mtime: u64) -> Vec<u8> {
        let mut blocks = Vec::new();
        if self.path.len() > SHORT_NAME {
            let mut name = self.path.clone().into_bytes();
            name.push(0);
            let (length, kind) = (name.len() as u64, tar::EntryType::GNULongName);
            blocks.extend_from_slice(&header(b"././@LongLink", length, 0o644, mtime, kind));
            name.resize(name.len().next_multiple_of(BLOCK as usize), 0);
            blocks.extend_from_slice(&name);
        }
        let short = &self.path.as_bytes()[..self.path.len().min(SHORT_NAME)];
        let mode = if is_tool(&self.path) { 0o755 } else { 0o644 };
        blocks.extend_from_slice(&header(short, self.size, mode, mtime, tar::EntryType::Regular));
        blocks
    }
}

fn header(name: &[u8], size: u64, mode: u32, mtime: u64, kind: tar::EntryType) -> [u8; 512] {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    header.set_entry_type(kind);
    header.set_cksum();
    *header.as_bytes()
}

/// Bytes before the data of a file with this path.
pub fn header_length(path: &str) -> u64 {
    if path.len() <= SHORT_NAME {
        return BLOCK;
    }
    BLOCK + (path.len() as u64 + 1).next_multiple_of(BLOCK) + BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_length_that_was_planned_for_them() {
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        let plan = TarPlan::new([("a".to_owned(), 0), (long, 1), ("b".to_owned(), 513)]).unwrap();
        for file in &plan.files {
            assert_eq!(file.header_blocks(0).len() as u64, file.data - file.header, "{}", file.path);
        }
        assert_eq!(plan.files[1].header, 512);
        assert_eq!(plan.length, plan.files[2].data + 1024 + 1024);
    }

    #[test]
    fn sizes_that_overflow_are_an_error() {
        assert!(TarPlan::new([("a".to_owned(), u64::MAX)]).is_err());
        assert!(TarPlan::new([("a".to_owned(), u64::MAX / 2), ("b".to_owned(), u64::MAX / 2)]).is_err());
    }
}
