//! Compares bytes with their expected digest: existing bytes ([`prove`]), copied bytes ([`copy`]), and bytes that have passed
//! ([`Hashed`]). A blob that is passed on while it is read is verified by [`Prover`](super::Prover).

use std::fmt;
use std::io;

use super::chunks::{ChunkHasher, Chunks};
pub use super::hashed::{Hashed, Wrong};
use super::{Slice, Take, Unreadable};
use crate::base::error::Error;
use crate::oci::{Algorithm, Digest, Hasher};

/// Why bytes could not be proven.
#[derive(Debug)]
pub enum Unproven {
    Unreadable(io::Error),
    Wrong(Wrong),
}

/// Why bytes were not copied, or must not be used.
#[derive(Debug)]
pub enum Uncopied {
    Unreadable(Unreadable),
    Wrong(Wrong),
    /// The error of the target.
    Unwritten(Error),
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unproven::Unreadable(error) => error.fmt(f),
            Unproven::Wrong(Wrong { found, .. }) => write!(f, "its bytes have {found}"),
        }
    }
}

impl From<Wrong> for Unproven {
    fn from(wrong: Wrong) -> Unproven {
        Unproven::Wrong(wrong)
    }
}

impl From<Unreadable> for Unproven {
    fn from(unreadable: Unreadable) -> Unproven {
        Unproven::Unreadable(unreadable.error)
    }
}

impl From<Wrong> for Uncopied {
    fn from(wrong: Wrong) -> Uncopied {
        Uncopied::Wrong(wrong)
    }
}

impl From<Unreadable> for Uncopied {
    fn from(unreadable: Unreadable) -> Uncopied {
        Uncopied::Unreadable(unreadable)
    }
}

impl Uncopied {
    /// The error about a copy of `slice`.
    pub fn of(self, slice: &Slice) -> Error {
        match self {
            Uncopied::Unreadable(unreadable) => slice.unreadable(unreadable),
            Uncopied::Wrong(Wrong { found, .. }) => slice.wrong(found),
            Uncopied::Unwritten(error) => error,
        }
    }
}

/// Proves all of `slice` by `digest`. `progress` receives the size of every piece in bytes.
///
/// # Errors
/// The bytes cannot be read, or are wrong.
pub fn prove(slice: &Slice, digest: &Digest, progress: &dyn Fn(u64)) -> Result<(), Unproven> {
    let hasher = slice.hash_prefix(digest.algorithm(), slice.size(), progress).map_err(Unproven::Unreadable)?;
    Ok(Hashed::of(hasher).prove(digest)?)
}

/// Does the same and returns the chunks from the same pass.
///
/// # Errors
/// As for [`prove`].
pub fn prove_chunks(slice: &Slice, digest: &Digest, progress: &dyn Fn(u64)) -> Result<Chunks, Unproven> {
    let hashing = Hashing::of_prefix(digest.algorithm(), slice, slice.size(), progress);
    Ok(hashing.map_err(Unproven::Unreadable)?.finish(digest)?)
}

/// Copies all of `slice` with `write`, piece by piece and in order, and proves what was copied by `digest`.
///
/// # Errors
/// The bytes cannot be read or written, or are wrong; wrong bytes have been written then.
pub fn copy(slice: &Slice, digest: &Digest, write: &mut Take<'_, Error>) -> Result<(), Uncopied> {
    let mut hasher = Hasher::new(digest.algorithm());
    slice.read_prefix(slice.size(), &mut |piece, at| {
        hasher.update(piece);
        write(piece, at).map_err(Uncopied::Unwritten)
    })?;
    Ok(Hashed::of(hasher).prove(digest)?)
}

/// Does the same and returns the chunks from the same pass.
///
/// # Errors
/// As for [`copy`].
pub fn copy_chunks(slice: &Slice, digest: &Digest, write: &mut Take<'_, Error>) -> Result<Chunks, Uncopied> {
    let mut hashing = Hashing::new(digest.algorithm());
    slice.read_prefix(slice.size(), &mut |piece, at| {
        hashing.update(piece);
        write(piece, at).map_err(Uncopied::Unwritten)
    })?;
    Ok(hashing.finish(digest)?)
}

/// Bytes that become a file: proven by their digest at the end, and located by their chunks from then on.
#[derive(Clone, Debug)]
pub struct Hashing {
    pub digest: Hasher,
    pub chunks: ChunkHasher,
}

impl Hashing {
    pub fn new(algorithm: Algorithm) -> Hashing {
        Hashing { digest: Hasher::new(algorithm), chunks: ChunkHasher::new() }
    }

    /// The state after the first `length` bytes. `progress` receives the size of every piece in bytes.
    ///
    /// # Errors
    /// The bytes cannot be read that far.
    pub fn of_prefix(algorithm: Algorithm, slice: &Slice, length: u64, progress: &dyn Fn(u64)) -> io::Result<Hashing> {
        let mut hashing = Hashing::new(algorithm);
        slice.read_prefix(length, &mut |piece, _| {
            hashing.update(piece);
            progress(piece.len() as u64);
            Ok::<(), Unreadable>(())
        })?;
        Ok(hashing)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.chunks.update(bytes);
    }

    /// Returns the chunks if the bytes have this digest.
    ///
    /// # Errors
    /// They have another digest.
    pub fn finish(self, digest: &Digest) -> Result<Chunks, Wrong> {
        let chunks = self.chunks.finish();
        match Hashed::of(self.digest).prove(digest) {
            Ok(()) => Ok(chunks),
            Err(wrong) => Err(Wrong { chunks: Some(chunks), ..wrong }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use super::*;

    /// An importer must not accept a wrong copy, nor blame a good copy for a full disk.
    #[test]
    fn a_copy_reports_which_side_failed_and_is_good_only_with_its_digest() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let slice = |size: usize| Slice::new(Arc::new(File::open(file.path()).unwrap()), file.path(), 0, size as u64);
        let (whole, digest) = (slice(bytes.len()), Digest::of(Algorithm::Sha512, &bytes));
        let mut copied = Vec::new();
        let mut write = |piece: &[u8], at| {
            assert_eq!(at, copied.len() as u64);
            copied.extend_from_slice(piece);
            Ok(())
        };
        assert_eq!(copy_chunks(&whole, &digest, &mut write).unwrap(), Chunks::of(&bytes));
        assert_eq!(copied, bytes);
        copy(&whole, &digest, &mut |_, _| Ok(())).unwrap();
        let other = Digest::sha256(b"other");
        let wrong = copy(&whole, &other, &mut |_, _| Ok(()));
        assert!(matches!(wrong, Err(Uncopied::Wrong(Wrong { found, .. })) if found == Digest::sha256(&bytes)));
        let full = copy(&whole, &digest, &mut |_, _| Err(Error::input("full")));
        assert!(matches!(full, Err(Uncopied::Unwritten(error)) if error.chain() == "full"));
        let cut = copy_chunks(&slice(bytes.len() + 1), &digest, &mut |_, _| Ok(()));
        assert!(
            matches!(cut, Err(Uncopied::Unreadable(Unreadable { position, .. })) if position == bytes.len() as u64)
        );
    }
}
