//! A tar that is written by position in any order, according to its plan.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::tar_plan::{BLOCK, END, PlannedFile};
use super::tools::Tool;
use crate::base::error::{Error, Result};
use crate::spool::Kept;

/// See the module documentation.
#[derive(Clone, Copy)]
pub struct PlannedTar<'a> {
    pub file: &'a File,
    /// For messages.
    pub path: &'a Path,
    /// Time of each entry, in seconds since 1970.
    pub mtime: u64,
}

impl PlannedTar<'_> {
    /// Writes bytes.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write(&self, bytes: &[u8], at: u64) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| Error::disk("writing", self.path, e))
    }

    /// Writes the header of a file, and zeros up to the next block, because earlier content may have been longer.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_frame(&self, file: &PlannedFile) -> Result<()> {
        self.write(&file.header_blocks(self.mtime), file.header)?;
        let end = file.data + file.size;
        let padding = end.next_multiple_of(BLOCK) - end;
        self.write(&vec![0; usize::try_from(padding).unwrap_or_default()], end)
    }

    /// Writes a small file with header and padding at once, so that a kill leaves either the old file or the new one.
    ///
    /// # Errors
    /// The disk fails.
    pub fn write_small(&self, file: &PlannedFile, bytes: &[u8]) -> Result<()> {
        let mut blocks = file.header_blocks(self.mtime);
        blocks.extend_from_slice(bytes);
        blocks.resize(blocks.len().next_multiple_of(BLOCK as usize), 0);
        self.write(&blocks, file.header)
    }

    /// Ends the tar at this `length` with two empty blocks and nothing after them. The file may have had another layout.
    ///
    /// # Errors
    /// The disk fails.
    pub fn end(&self, length: u64) -> Result<()> {
        self.write(&[0; END as usize], length.saturating_sub(END))?;
        self.file.set_len(length).map_err(|e| Error::disk("ending", self.path, e))
    }

    /// Writes spooled bytes.
    ///
    /// # Errors
    /// The disk fails, or the bytes cannot be read back.
    pub fn write_kept(&self, bytes: &Kept, mut at: u64) -> Result<()> {
        let copied = bytes.read(&mut |piece| {
            self.file.write_all_at(piece, at)?;
            at += piece.len() as u64;
            Ok(())
        });
        copied.map_err(|e| Error::disk("writing", self.path, e))
    }

    /// Writes a tool.
    ///
    /// # Errors
    /// As for [`Tool::copy`].
    pub fn write_tool(&self, tool: &Tool, base: u64) -> Result<()> {
        tool.copy(&mut |piece, at| self.write(piece, base + at))
    }
}
