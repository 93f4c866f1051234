//! Bytes that are there, held against the digest that they should have: what proves a [`Slice`]. Bytes that pass are proven by
//! [`Prover`](super::Prover).

use std::fmt;
use std::io::{self, Write};

use super::Slice;
use super::chunks::{ChunkHasher, Chunks};
use crate::base::error::Error;
use crate::oci::{Algorithm, Digest, Hasher};

/// Why bytes are not what they should be.
#[derive(Debug)]
pub enum Unproven {
    Unreadable(io::Error),
    /// They have another digest.
    Wrong {
        found: Digest,
        /// What they consist of; only if that was asked for.
        chunks: Option<Chunks>,
    },
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unproven::Unreadable(error) => error.fmt(f),
            Unproven::Wrong { found, .. } => write!(f, "its bytes have {found}"),
        }
    }
}

/// Proves all of `slice` by `digest`; `progress` hears of every piece, in bytes.
///
/// # Errors
/// They cannot be read, or are others.
pub fn prove(slice: &Slice, digest: &Digest, progress: &dyn Fn(u64)) -> Result<(), Unproven> {
    match slice.hash(digest.algorithm(), progress).map_err(Unproven::Unreadable)? {
        found if found == *digest => Ok(()),
        found => Err(Unproven::Wrong { found, chunks: None }),
    }
}

/// The same; gives what the bytes consist of, from the same pass.
///
/// # Errors
/// As [`prove`].
pub fn prove_chunks(slice: &Slice, digest: &Digest, progress: &dyn Fn(u64)) -> Result<Chunks, Unproven> {
    let hashing = Hashing::of_prefix(digest.algorithm(), slice, slice.size(), progress);
    hashing.map_err(Unproven::Unreadable)?.finish(digest)
}

/// Copies all of `slice` to `target`, and proves by `digest` what was copied; `failed` puts into words what the disk says against
/// writing.
///
/// # Errors
/// Not readable to its end, not writable, or other bytes (`Damaged`).
pub fn copy(
    slice: &Slice,
    target: &mut impl Write,
    digest: &Digest,
    failed: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    match slice.copy_to(target, digest.algorithm(), failed)? {
        found if found == *digest => Ok(()),
        found => Err(slice.wrong(found)),
    }
}

/// Bytes that become a file: proven by their digest in the end, and known by their chunks from then on.
#[derive(Clone, Debug)]
pub struct Hashing {
    pub digest: Hasher,
    pub chunks: ChunkHasher,
}

impl Hashing {
    pub fn new(algorithm: Algorithm) -> Hashing {
        Hashing { digest: Hasher::new(algorithm), chunks: ChunkHasher::new() }
    }

    /// The state after the first `length` bytes; `progress` hears of every piece, in bytes.
    ///
    /// # Errors
    /// Not readable up to there.
    pub fn of_prefix(algorithm: Algorithm, slice: &Slice, length: u64, progress: &dyn Fn(u64)) -> io::Result<Hashing> {
        let mut hashing = Hashing::new(algorithm);
        slice.read_prefix(length, &mut |piece| {
            hashing.update(piece);
            progress(piece.len() as u64);
        })?;
        Ok(hashing)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.chunks.update(bytes);
    }

    /// The chunks, if the bytes have this digest.
    ///
    /// # Errors
    /// They have another one.
    pub fn finish(self, digest: &Digest) -> Result<Chunks, Unproven> {
        let chunks = self.chunks.finish();
        match self.digest.finish() {
            found if found == *digest => Ok(chunks),
            found => Err(Unproven::Wrong { found, chunks: Some(chunks) }),
        }
    }
}
