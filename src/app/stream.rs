//! A bundle that is read once, from its first byte to its last.

use std::io::{BufReader, Cursor, Read};
use std::path::PathBuf;

use crate::archive::{seekable, tar};
use crate::base::error::{Error, Result};

/// How much is read at a time, in bytes: a tape gives one record, whatever its length.
const BUFFER: usize = 1 << 20;

/// Bytes that can be read once.
pub type StreamReader = Box<dyn Read + Send>;

/// A stream that begins like a tar, decompressed if it has to be.
pub struct BundleStream {
    /// What errors call it.
    pub name: PathBuf,
    pub bytes: StreamReader,
}

impl BundleStream {
    /// Reads its first block.
    ///
    /// # Errors
    /// It is no tar, or cannot be read.
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

/// The first block, and what follows.
fn begin(mut bytes: StreamReader) -> std::io::Result<(Vec<u8>, StreamReader)> {
    let mut start = Vec::with_capacity(512);
    bytes.by_ref().take(512).read_to_end(&mut start)?;
    Ok((start, bytes))
}
