//! Reads a bundle once, from the first byte to the last.

use std::io::{BufReader, Cursor, Read};
use std::path::PathBuf;

use crate::archive::{seekable, tar};
use crate::base::error::{Error, Result};

/// Bytes read at a time. A tape returns one record per read, whatever its length.
const BUFFER: usize = 1 << 20;

/// Bytes that can be read once.
pub type StreamReader = Box<dyn Read + Send>;

/// A stream that starts like a tar, decompressed if necessary.
pub struct BundleStream {
    /// The name in error messages.
    pub name: PathBuf,
    pub bytes: StreamReader,
}

impl BundleStream {
    /// Reads the first block.
    ///
    /// # Errors
    /// The stream is not a tar, or cannot be read.
    pub fn new(name: PathBuf, bytes: StreamReader) -> Result<BundleStream> {
        let reading = |e| Error::disk("reading", &name, e);
        let (mut start, mut rest) = begin(Box::new(BufReader::with_capacity(BUFFER, bytes))).map_err(reading)?;
        if start.starts_with(&seekable::MAGIC) {
            let packed = Cursor::new(start).chain(rest);
            (start, rest) = begin(Box::new(seekable::decompressed(packed).map_err(reading)?)).map_err(reading)?;
        }
        let mut block = [0; 512];
        block[..start.len()].copy_from_slice(&start);
        if !tar::looks_like_tar(&name, &block)? {
            let what = if start.is_empty() { "is empty" } else { "is not a tar" };
            return Err(Error::input(format!("{} {what}", name.display())));
        }
        Ok(BundleStream { name, bytes: Box::new(Cursor::new(start).chain(rest)) })
    }
}

/// Returns the first block, and the rest.
fn begin(mut bytes: StreamReader) -> std::io::Result<(Vec<u8>, StreamReader)> {
    let mut start = Vec::with_capacity(512);
    bytes.by_ref().take(512).read_to_end(&mut start)?;
    Ok((start, bytes))
}
