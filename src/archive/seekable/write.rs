//! The frames while they are written.

use std::io::{self, Write};

use super::{FOOTER, MAGIC, SEEKABLE_MAGIC, TABLE_MAGIC};

/// How many bytes a frame holds: what has to be decompressed to read one of them.
const FRAME: usize = 1 << 20;
/// The largest block of a frame (RFC 8878, section 3.1.1.2.4).
const BLOCK: usize = 128 * 1024;
/// Of zstd; more takes much longer for little.
const LEVEL: i32 = 6;

/// What is to be done with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// They are compressed where that makes them shorter.
    Compress,
    /// They are compressed already.
    Store,
}

/// Writes what it is given as frames, and the table behind them.
pub struct Frames<W> {
    out: W,
    packing: Packing,
    open: Vec<u8>,
    /// Of each frame its length in the file and what it holds, in bytes.
    table: Vec<(u32, u32)>,
}

impl<W: Write> Frames<W> {
    pub fn new(out: W) -> Frames<W> {
        Frames { out, packing: Packing::Compress, open: Vec::with_capacity(FRAME), table: Vec::new() }
    }

    /// What follows begins a frame of its own, unless it is to be treated like what came before.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn begin(&mut self, packing: Packing) -> io::Result<()> {
        if packing == self.packing {
            return Ok(());
        }
        self.close()?;
        self.packing = packing;
        Ok(())
    }

    /// # Errors
    /// Those of the writer.
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

    /// Ends the last frame, and writes the table.
    ///
    /// # Errors
    /// Those of the writer; more frames than a table can have.
    pub fn finish(mut self) -> io::Result<W> {
        self.close()?;
        let too_many = || io::Error::other("more frames than a table can have");
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

/// A frame of raw blocks: a single segment, whose length stands in four bytes, without checksum.
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
