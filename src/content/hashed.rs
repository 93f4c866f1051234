//! The comparison of computed with expected digests, on which every proof of a bundle's files rests. Documents in memory are
//! compared by [`Digest::prove`].

use std::fmt;

use super::chunks::Chunks;
use crate::oci::{Digest, Hasher};

/// The bytes have a different digest than expected.
#[derive(Debug)]
pub struct Wrong {
    pub found: Digest,
    /// The chunks of the bytes, if requested.
    pub chunks: Option<Chunks>,
}

/// Bytes that have passed and of which only the digest may be left.
#[derive(Clone, Debug)]
pub struct Hashed {
    found: Digest,
    /// Boxed because few have them and many values are kept.
    chunks: Option<Box<Chunks>>,
}

impl Hashed {
    /// The bytes that `hasher` has processed.
    pub fn of(hasher: Hasher) -> Hashed {
        Hashed { found: hasher.finish(), chunks: None }
    }

    /// Adds the chunks, for the case that the bytes are wrong.
    pub fn consisting_of(self, chunks: Chunks) -> Hashed {
        Hashed { chunks: Some(Box::new(chunks)), ..self }
    }

    /// Compares with the expected digest.
    ///
    /// # Errors
    /// The bytes have another digest.
    pub fn prove(&self, digest: &Digest) -> Result<(), Wrong> {
        match self.found == *digest {
            true => Ok(()),
            false => Err(Wrong { found: self.found, chunks: self.chunks.as_deref().cloned() }),
        }
    }
}

impl fmt::Display for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    /// After a blob from a pipe, nothing else can locate its damage.
    #[test]
    fn streamed_bytes_are_proven_by_their_digest_alone_and_keep_their_chunk_values() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"bytes");
        let hashed = Hashed::of(hasher).consisting_of(Chunks::of(b"bytes"));
        hashed.prove(&Digest::sha256(b"bytes")).unwrap();
        for other in [Digest::sha256(b"others"), Digest::of(Algorithm::Sha512, b"bytes")] {
            let Wrong { found, chunks } = hashed.prove(&other).unwrap_err();
            assert_eq!((found, chunks), (Digest::sha256(b"bytes"), Some(Chunks::of(b"bytes"))));
        }
    }
}
