//! Compressed files that are still read by position: zstd's seekable format (zstd, `contrib/seekable_format`, version 0.1.0).
//!
//! The file is a row of zstd frames, each of which is decompressed by itself, and a table at the end that says how long each
//! is: as a frame that every decompressor skips, so `zstd -d` reads such a file as well.
//!
//! # Threats
//! The table may lie. What it says has to add up to the file; a frame has to give exactly the bytes it says, and no more than
//! a bounded number of them. Whatever comes out is proven by whoever reads it, as of any file.

mod write;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use zstd::bulk::Decompressor;
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer, WriteBuf};
use zstd::stream::zio;
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{DCtx, ErrorCode, ResetDirective};

use super::tar::ReadAt;
use crate::base::error::{Error, Result};
pub use write::{Frames, Packing};

/// Begins a zstd frame (RFC 8878, section 3.1.1).
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Begins the skippable frame that holds the table.
const TABLE_MAGIC: u32 = 0x184d_2a5e;
/// Ends the file.
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;
/// Number of frames, a byte of flags, the magic number.
const FOOTER: u64 = 9;
/// Magic number and length of the frame that holds the table.
const TABLE_HEADER: u64 = 8;
/// Each entry of the table has a checksum, too.
const HAS_CHECKSUMS: u8 = 0x80;
/// More frames than any bundle has.
const MOST_FRAMES: u64 = 16_000_000;
/// The largest frame that is read, in bytes, decompressed; ours have a mebibyte.
const MAX_FRAME: u64 = 32 << 20;
/// How far back compressed bytes may refer, as a power of two: what has to be kept in memory of a pipe.
const MAX_WINDOW: u32 = 25;
/// How many bytes of frames are kept for whoever reads on.
const KEPT: usize = 24 << 20;

/// A file in the seekable format.
#[derive(Debug)]
pub struct Seekable {
    file: File,
    /// Where each frame begins, in the file and decompressed; and the end of the last one.
    frames: Vec<(u64, u64)>,
    /// The frames that were read last, the newest at the end.
    recent: Mutex<Vec<(usize, Arc<Vec<u8>>)>>,
}

impl Seekable {
    /// `None`: it has no table at its end.
    ///
    /// # Errors
    /// Not readable, or a table that cannot be true.
    pub fn open(path: &Path, file: File, length: u64) -> Result<Option<Seekable>> {
        let fail = |e| Error::disk("reading", path, e);
        let mut footer = [0; FOOTER as usize];
        let Some(at) = length.checked_sub(FOOTER) else { return Ok(None) };
        FileExt::read_exact_at(&file, &mut footer, at).map_err(fail)?;
        if number(&footer[5..]) != SEEKABLE_MAGIC {
            return Ok(None);
        }
        let wrong = |why: &str| Error::damaged(format!("{}: its table of frames is wrong: {why}", path.display()));
        let (frames, flags) = (u64::from(number(&footer)), footer[4]);
        let width: u64 = if flags & HAS_CHECKSUMS == 0 { 8 } else { 12 };
        if flags & 0x7c != 0 || frames > MOST_FRAMES {
            return Err(wrong("of a kind that is not known here"));
        }
        let table = frames * width;
        let begin = length.checked_sub(TABLE_HEADER + table + FOOTER).ok_or_else(|| wrong("longer than the file"))?;
        let mut bytes = vec![0; usize::try_from(TABLE_HEADER + table).unwrap_or_default()];
        FileExt::read_exact_at(&file, &mut bytes, begin).map_err(fail)?;
        if number(&bytes) != TABLE_MAGIC || u64::from(number(&bytes[4..])) != table + FOOTER {
            return Err(wrong("it does not begin where it should"));
        }
        let (mut at, mut list) = ((0_u64, 0_u64), Vec::with_capacity(usize::try_from(frames).unwrap_or_default() + 1));
        for entry in bytes[TABLE_HEADER as usize..].chunks_exact(usize::try_from(width).unwrap_or(8)) {
            let size = u64::from(number(&entry[4..]));
            if size > MAX_FRAME {
                return Err(wrong("a frame is larger than any that is read here"));
            }
            // It would never be read by offset, but by whoever decompresses all: as two programs would, two tars.
            if size == 0 && number(entry) > 0 {
                return Err(wrong("a frame is there that holds nothing"));
            }
            list.push(at);
            at = (at.0 + u64::from(number(entry)), at.1 + size);
        }
        list.push(at);
        if at.0 != begin {
            return Err(wrong("it does not add up to the file"));
        }
        Ok(Some(Seekable { file, frames: list, recent: Mutex::default() }))
    }

    /// In bytes, decompressed.
    pub fn length(&self) -> u64 {
        self.frames.last().map_or(0, |end| end.1)
    }

    /// When the file was last written to.
    pub fn modified(&self) -> Option<std::time::SystemTime> {
        self.file.metadata().and_then(|metadata| metadata.modified()).ok()
    }

    /// At most `buffer.len()` bytes from `offset` on, decompressed; 0 at the end.
    ///
    /// # Errors
    /// Not readable, or no such frame is there.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.length() || buffer.is_empty() {
            return Ok(0);
        }
        // Of those that begin there the last one, as others are empty.
        let at = self.frames.partition_point(|frame| frame.1 <= offset).saturating_sub(1);
        let frame = self.frame(at)?;
        let from = usize::try_from(offset - self.frames[at].1).unwrap_or(usize::MAX);
        let rest = frame.get(from..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn frame(&self, at: usize) -> io::Result<Arc<Vec<u8>>> {
        let lock = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = lock().iter().find(|(number, _)| *number == at) {
            return Ok(frame.clone());
        }
        let frame = Arc::new(self.decompress(at)?);
        let mut recent = lock();
        recent.push((at, frame.clone()));
        while recent.len() > 1 && recent.iter().map(|(_, frame)| frame.len()).sum::<usize>() > KEPT {
            recent.remove(0);
        }
        Ok(frame)
    }

    fn decompress(&self, at: usize) -> io::Result<Vec<u8>> {
        let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("frame {at} of the file {why}"));
        let ((begin, first), (end, last)) = match self.frames.get(at..at + 2) {
            Some([this, next]) => (*this, *next),
            _ => return Err(wrong("is not there")),
        };
        let size = usize::try_from(last - first).unwrap_or_default();
        // A frame never needs more: what does not compress is stored.
        let packed = usize::try_from(end - begin).ok().filter(|packed| *packed <= size + size / 64 + 1024);
        let mut packed = vec![0; packed.ok_or_else(|| wrong("is longer than what it holds"))?];
        FileExt::read_exact_at(&self.file, &mut packed, begin)?;
        let mut bytes = vec![0; size];
        let read = Decompressor::new()?.decompress_to_buffer(&packed, &mut bytes);
        match read.map_err(|e| wrong(&format!("cannot be decompressed: {e}")))? {
            read if read == size => Ok(bytes),
            read => Err(wrong(&format!("has {read} bytes instead of {size}"))),
        }
    }
}

impl ReadAt for Seekable {
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let read = self.read_at(buffer, offset)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[read..];
            offset += read as u64;
        }
        Ok(())
    }
}

/// The same out of a pipe, and whatever else zstd compresses: frames one after the other, the table skipped. What is cut short
/// or cannot be decompressed is [`InvalidData`](io::ErrorKind::InvalidData).
///
/// # Errors
/// No memory for it.
pub fn decompressed(input: impl Read + Send + 'static) -> io::Result<impl Read + Send> {
    Ok(Decompressed(zio::Reader::new(BufReader::new(input), Frame::new()?)))
}

/// A decompressor whose errors are zstd's numbers, not its words.
struct Frame(DCtx<'static>);

/// What zstd has against its input.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum ZstdFault {
    #[error("it is compressed with a window of more than 32 MiB: decompress it first (zstd -dc --long=31)")]
    WindowTooLarge,
    #[error("{}", zstd::zstd_safe::get_error_name(*.0))]
    Other(ErrorCode),
}

impl ZstdFault {
    fn of(code: ErrorCode) -> io::Error {
        let is_window = code == (ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge as usize).wrapping_neg();
        io::Error::other(if is_window { ZstdFault::WindowTooLarge } else { ZstdFault::Other(code) })
    }
}

impl Frame {
    fn new() -> io::Result<Frame> {
        let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
        context.init().map_err(ZstdFault::of)?;
        context.set_parameter(DParameter::WindowLogMax(MAX_WINDOW)).map_err(ZstdFault::of)?;
        Ok(Frame(context))
    }
}

impl Operation for Frame {
    fn run<C: WriteBuf + ?Sized>(
        &mut self,
        input: &mut InBuffer<'_>,
        output: &mut OutBuffer<'_, C>,
    ) -> io::Result<usize> {
        self.0.decompress_stream(output, input).map_err(ZstdFault::of)
    }

    fn reinit(&mut self) -> io::Result<()> {
        self.0.reset(ResetDirective::SessionOnly).map(drop).map_err(ZstdFault::of)
    }

    fn finish<C: WriteBuf + ?Sized>(&mut self, _: &mut OutBuffer<'_, C>, finished: bool) -> io::Result<usize> {
        if finished { Ok(0) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Says in its own words what the decompressor has against its input.
struct Decompressed<R>(R);

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let fault = |error: &io::Error| error.get_ref()?.downcast_ref::<ZstdFault>().copied();
        self.0.read(buffer).map_err(|error| match error.kind() {
            // What the input itself fails with.
            _ if error.raw_os_error().is_some() => error,
            io::ErrorKind::Interrupted => error,
            io::ErrorKind::UnexpectedEof => wrong("ends within a frame: it is cut short"),
            _ if let Some(ZstdFault::WindowTooLarge) = fault(&error) => {
                io::Error::new(io::ErrorKind::Unsupported, ZstdFault::WindowTooLarge)
            }
            _ => wrong(&format!("cannot be decompressed: {error}")),
        })
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what is compressed {why}"))
}

/// Little-endian, as everything in the format.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
