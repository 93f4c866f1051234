//! Compressed files that can be read by position: zstd's seekable format (zstd, `contrib/seekable_format`, version 0.1.0).
//!
//! The file is a sequence of zstd frames that can be decompressed separately, followed by a table of their sizes. The table is
//! a frame that every decompressor skips, so `zstd -d` reads such a file too.
//!
//! # Threats
//! The table may be wrong. Its sizes must add up to the size of the file, and each frame must decompress to exactly the stated
//! number of bytes, which is bounded. The caller verifies the content, as for any file.

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

/// Start of a zstd frame (RFC 8878, section 3.1.1).
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Start of the skippable frame that contains the table.
const TABLE_MAGIC: u32 = 0x184d_2a5e;
/// End of the file.
const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;
/// Number of frames, a byte of flags, the magic number.
const FOOTER: u64 = 9;
/// Magic number and length of the table's frame.
const TABLE_HEADER: u64 = 8;
/// Flag: each entry of the table also has a checksum.
const HAS_CHECKSUMS: u8 = 0x80;
/// More frames than any bundle has.
const MOST_FRAMES: u64 = 16_000_000;
/// Maximum decompressed size of a frame in bytes; gapferry writes one mebibyte.
const MAX_FRAME: u64 = 32 << 20;
/// Maximum distance of a back-reference, as a power of two. A pipe keeps this much in memory.
const MAX_WINDOW: u32 = 25;
/// Bytes of decompressed frames to keep for sequential readers.
const KEPT: usize = 24 << 20;

/// A file in the seekable format.
#[derive(Debug)]
pub struct Seekable {
    file: File,
    /// Start of each frame, compressed and decompressed, and the end of the last one.
    frames: Vec<(u64, u64)>,
    /// The most recently read frames, newest last.
    recent: Mutex<Vec<(usize, Arc<Vec<u8>>)>>,
}

impl Seekable {
    /// Opens a file. Returns `None` if there is no table at its end.
    ///
    /// # Errors
    /// The file cannot be read, or the table is inconsistent.
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
            return Err(wrong("of an unknown kind"));
        }
        let table = frames * width;
        let begin = length.checked_sub(TABLE_HEADER + table + FOOTER).ok_or_else(|| wrong("longer than the file"))?;
        let mut bytes = vec![0; usize::try_from(TABLE_HEADER + table).unwrap_or_default()];
        FileExt::read_exact_at(&file, &mut bytes, begin).map_err(fail)?;
        if number(&bytes) != TABLE_MAGIC || u64::from(number(&bytes[4..])) != table + FOOTER {
            return Err(wrong("it does not start where it should"));
        }
        let (mut at, mut list) = ((0_u64, 0_u64), Vec::with_capacity(usize::try_from(frames).unwrap_or_default() + 1));
        for entry in bytes[TABLE_HEADER as usize..].chunks_exact(usize::try_from(width).unwrap_or(8)) {
            let size = u64::from(number(&entry[4..]));
            if size > MAX_FRAME {
                return Err(wrong("a frame is larger than gapferry reads"));
            }
            // Readers by offset would never see it, but a full decompression would: two programs would read two tars.
            if size == 0 && number(entry) > 0 {
                return Err(wrong("it lists an empty frame"));
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

    /// Decompressed length in bytes.
    pub fn length(&self) -> u64 {
        self.frames.last().map_or(0, |end| end.1)
    }

    /// Time of the last modification.
    pub fn modified(&self) -> Option<std::time::SystemTime> {
        self.file.metadata().and_then(|metadata| metadata.modified()).ok()
    }

    /// Reads up to `buffer.len()` decompressed bytes from `offset`; returns 0 at the end.
    ///
    /// # Errors
    /// The file cannot be read, or a frame is invalid.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.length() || buffer.is_empty() {
            return Ok(0);
        }
        // Of several frames that begin there, the last one: the others are empty.
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
        // A frame never needs more, because data that does not compress is stored.
        let packed = usize::try_from(end - begin).ok().filter(|packed| *packed <= size + size / 64 + 1024);
        let mut packed = vec![0; packed.ok_or_else(|| wrong("is longer than what it contains"))?];
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

/// Decompresses a stream of zstd frames and skips the table. A stream that is cut off or invalid fails with
/// [`InvalidData`](io::ErrorKind::InvalidData).
///
/// # Errors
/// Memory allocation failed.
pub fn decompressed(input: impl Read + Send + 'static) -> io::Result<impl Read + Send> {
    Ok(Decompressed(zio::Reader::new(BufReader::new(input), Frame::new()?)))
}

/// A decompressor that reports zstd's error codes instead of its messages.
struct Frame(DCtx<'static>);

/// What zstd rejects about its input.
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

/// Reports what the decompressor rejects in words of our own.
struct Decompressed<R>(R);

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let fault = |error: &io::Error| error.get_ref()?.downcast_ref::<ZstdFault>().copied();
        self.0.read(buffer).map_err(|error| match error.kind() {
            // An error of the input itself.
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
    io::Error::new(io::ErrorKind::InvalidData, format!("its compressed data {why}"))
}

/// Little-endian, like everything in the format.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests;
