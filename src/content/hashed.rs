//! What bytes hash to, held against the digest that they should have: the one comparison on which every proof of a bundle's
//! files rests. Documents in memory are compared by [`Digest::prove`].

use std::fmt;

use super::chunks::Chunks;
use crate::oci::{Digest, Hasher};

/// Bytes have another digest than they should.
#[derive(Debug)]
pub struct Wrong {
    pub found: Digest,
    /// What they consist of; only if that was asked for.
    pub chunks: Option<Chunks>,
}

/// Bytes that have passed, of which nothing but their digest may be left.
#[derive(Clone, Debug)]
pub struct Hashed {
    found: Digest,
    /// Few have them, and many are kept.
    chunks: Option<Box<Chunks>>,
}

impl Hashed {
    /// What this has seen.
    pub fn of(hasher: Hasher) -> Hashed {
        Hashed { found: hasher.finish(), chunks: None }
    }

    /// The same, with what the bytes consist of: for the one that finds them wrong.
    pub fn consisting_of(self, chunks: Chunks) -> Hashed {
        Hashed { chunks: Some(Box::new(chunks)), ..self }
    }

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

    /// Of a blob out of a pipe nothing else is left to say where it is damaged.
    #[test]
    fn what_has_passed_is_proven_by_its_digest_alone_and_tells_what_it_consists_of() {
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
