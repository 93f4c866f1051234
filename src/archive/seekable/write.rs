//! Writes frames.

use std::io::{self, Write};

use super::{FOOTER, MAGIC, SEEKABLE_MAGIC, TABLE_MAGIC};

/// Decompressed bytes per frame: what must be decompressed to read any of them.
const FRAME: usize = 1 << 20;
/// Maximum size of a block in a frame (RFC 8878, section 3.1.1.2.4).
const BLOCK: usize = 128 * 1024;
/// Compression level; higher levels take much longer and gain little.
const LEVEL: i32 = 6;

/// How to store bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Compress them if that makes them shorter.
    Compress,
    /// Store them, because they are compressed already.
    Store,
}

/// Writes its input as frames, followed by the table.
pub struct Frames<W> {
    out: W,
    packing: Packing,
    open: Vec<u8>,
    /// Compressed and decompressed size of each frame, in bytes.
    table: Vec<(u32, u32)>,
}

impl<W: Write> Frames<W> {
    pub fn new(out: W) -> Frames<W> {
        Frames { out, packing: Packing::Compress, open: Vec::with_capacity(FRAME), table: Vec::new() }
    }

    /// Starts a new frame for what follows, unless it is stored in the same way as what came before.
    ///
    /// # Errors
    /// The writer failed.
    pub fn begin(&mut self, packing: Packing) -> io::Result<()> {
        if packing == self.packing {
            return Ok(());
        }
        self.close()?;
        self.packing = packing;
        Ok(())
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// The writer failed.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(FRAME - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == FRAME {
                self.close()?;
            }
        }
        Ok(())
    }

    /// Ends the last frame and writes the table.
    ///
    /// # Errors
    /// The writer failed, or there are more frames than a table can list.
    pub fn finish(mut self) -> io::Result<W> {
        self.close()?;
        let too_many = || io::Error::other("there are more frames than the table can list");
        let length = u32::try_from(self.table.len() as u64 * 8 + FOOTER).map_err(|_| too_many())?;
        let frames = u32::try_from(self.table.len()).map_err(|_| too_many())?;
        let mut bytes = [TABLE_MAGIC.to_le_bytes(), length.to_le_bytes()].concat();
        for (packed, size) in &self.table {
            bytes.extend_from_slice(&packed.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        bytes.extend_from_slice(&frames.to_le_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&SEEKABLE_MAGIC.to_le_bytes());
        self.out.write_all(&bytes)?;
        Ok(self.out)
    }

    fn close(&mut self) -> io::Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let compressed = match self.packing {
            Packing::Compress => Some(zstd::bulk::compress(&self.open, LEVEL)?),
            Packing::Store => None,
        };
        let frame = compressed.filter(|frame| frame.len() < self.open.len()).unwrap_or_else(|| stored(&self.open));
        self.out.write_all(&frame)?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
        self.table.push((length(&frame)?, length(&self.open)?));
        self.open.clear();
        Ok(())
    }
}

/// A frame of raw blocks: a single segment with a four-byte size and no checksum.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + bytes.len() / BLOCK * 3 + 16);
    frame.extend_from_slice(&MAGIC);
    frame.push(0b1010_0000);
    frame.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_le_bytes());
    let blocks = bytes.len().div_ceil(BLOCK);
    for (at, block) in bytes.chunks(BLOCK).enumerate() {
        let header = (block.len() as u32) << 3 | u32::from(at + 1 == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}
