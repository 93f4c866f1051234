//! Bytes that become a blob of a bundle: proven by their digest, and known by their chunks from then on.

use std::io;

use crate::content::Slice;
use crate::content::chunks::{ChunkHasher, Chunks};
use crate::oci::{Algorithm, Digest, Hasher};

/// Both at once.
#[derive(Clone, Debug)]
pub struct Hashers {
    pub digest: Hasher,
    pub chunks: ChunkHasher,
}

impl Hashers {
    pub fn new(algorithm: Algorithm) -> Hashers {
        Hashers { digest: Hasher::new(algorithm), chunks: ChunkHasher::new() }
    }

    /// The state after the first `length` bytes; `progress` hears of every piece, in bytes.
    ///
    /// # Errors
    /// Not readable up to there.
    pub fn of_prefix(algorithm: Algorithm, slice: &Slice, length: u64, progress: &dyn Fn(u64)) -> io::Result<Hashers> {
        let mut hashers = Hashers::new(algorithm);
        slice.read_prefix(length, &mut |piece| {
            hashers.update(piece);
            progress(piece.len() as u64);
        })?;
        Ok(hashers)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.chunks.update(bytes);
    }

    /// The chunks, if the bytes have this digest.
    pub fn finish(self, digest: &Digest) -> Result<Chunks, Digest> {
        match self.digest.finish() {
            found if found == *digest => Ok(self.chunks.finish()),
            found => Err(found),
        }
    }
}
