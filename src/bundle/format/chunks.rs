//! `chunks.b3`, which locates damage in blobs. It has two lines, then for each blob in order its BLAKE3 and, if it has several
//! mebibytes, the chaining value of each.
//!
//! # Threats
//! It is derived and may be forged; where it disagrees with a blob, the digest of the blob decides. Its first lines say what
//! it is and of which bundle, so that no other signed file can pass for it. Values are used only if they give their root.

use std::collections::HashMap;

use bytes::Bytes;

use crate::content::chunks::{CHAINED, Chained, Chunks, values_of};
use crate::oci::Digest;

/// The first line.
const FIRST: &str = "gapferry chunks.b3 1\n";
/// Maximum size in bytes: enough for 8 TiB. The blobs of a larger bundle are proven by digest.
pub const MAX_CHUNKS: u64 = 256 * 1024 * 1024;

fn header(identity: Digest) -> String {
    format!("{FIRST}{identity}\n")
}

/// Size in bytes of the `chunks.b3` for blobs of these sizes.
pub fn length(sizes: impl IntoIterator<Item = u64>) -> u64 {
    let header = header(Digest::ZEROS).len() as u64;
    sizes.into_iter().map(length_of).fold(header, u64::saturating_add)
}

fn length_of(size: u64) -> u64 {
    values_of(size).saturating_add(1).saturating_mul(CHAINED as u64)
}

/// Writes the file, blob by blob in the order of the bundle.
pub struct ChunksWriter(Vec<u8>);

impl ChunksWriter {
    pub fn new(identity: Digest) -> ChunksWriter {
        ChunksWriter(header(identity).into_bytes())
    }

    /// Adds a blob whose bytes were proven by its digest in the same pass.
    pub fn add(&mut self, chunks: &Chunks) {
        self.0.extend(chunks.root());
        self.0.extend(chunks.values().iter().flatten());
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.shrink_to_fit();
        self.0
    }
}

/// A `chunks.b3` that fits its bundle.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes,
    places: HashMap<Digest, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Position of the root.
    at: usize,
    /// Number of values after it.
    values: usize,
}

/// Why a `chunks.b3` does not belong to its bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    Length {
        expected: u64,
        found: u64,
    },
    /// It does not start like such a file.
    Header,
    /// It belongs to another bundle.
    Identity,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Misfit::Length { expected, found } => write!(f, "it has {found} bytes instead of {expected}"),
            Misfit::Header => f.write_str("it does not start like a chunks.b3"),
            Misfit::Identity => f.write_str("it belongs to another bundle"),
        }
    }
}

impl Reader {
    /// Parses `bytes` for the bundle with this identity and these blobs, with their sizes in bytes.
    ///
    /// # Errors
    /// The file belongs to another bundle or is not a `chunks.b3`.
    pub fn new(
        bytes: Bytes,
        identity: Digest,
        blobs: impl IntoIterator<Item = (Digest, u64)>,
    ) -> std::result::Result<Reader, Misfit> {
        let header = header(identity);
        let (mut at, mut places) = (header.len() as u64, HashMap::new());
        for (digest, size) in blobs {
            let place = usize::try_from(at).ok().zip(usize::try_from(values_of(size)).ok());
            if let Some((at, values)) = place {
                places.insert(digest, Place { at, values });
            }
            at = at.saturating_add(length_of(size));
        }
        let found = bytes.len() as u64;
        if found != at {
            return Err(Misfit::Length { expected: at, found });
        }
        if !bytes.starts_with(FIRST.as_bytes()) {
            return Err(Misfit::Header);
        }
        if !bytes.starts_with(header.as_bytes()) {
            return Err(Misfit::Identity);
        }
        Ok(Reader { bytes, places })
    }

    /// The bytes that were read, on which a required signature is checked.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The BLAKE3 of a blob.
    pub fn root(&self, blob: &Digest) -> Option<Chained> {
        self.value(self.places.get(blob)?.at)
    }

    /// The values of a blob, if it has several and they give its BLAKE3.
    pub fn values(&self, blob: &Digest) -> Option<Chunks> {
        let Place { at, values } = *self.places.get(blob)?;
        let all = (1..=values).map(|number| self.value(at + number * CHAINED)).collect::<Option<Vec<Chained>>>()?;
        Chunks::proven(self.value(at)?, all)
    }

    /// Whether it agrees with what was computed for a blob.
    pub fn says(&self, blob: &Digest, found: &Chunks) -> bool {
        let Some(Place { at, values }) = self.places.get(blob).copied() else { return false };
        let is_value = |(number, value): (usize, &Chained)| self.value(at + (number + 1) * CHAINED) == Some(*value);
        self.value(at) == Some(*found.root())
            && values == found.values().len()
            && found.values().iter().enumerate().all(is_value)
    }

    fn value(&self, at: usize) -> Option<Chained> {
        self.bytes.get(at..at.checked_add(CHAINED)?)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::chunks::CHUNK;

    #[test]
    fn it_is_read_as_it_is_written_and_that_of_another_bundle_is_refused() {
        let blobs = [vec![1_u8; 10], vec![2; 3 * CHUNK as usize + 1], Vec::new()];
        let all: Vec<(Digest, u64)> = blobs.iter().map(|blob| (Digest::sha256(blob), blob.len() as u64)).collect();
        let identity = Digest::sha256(b"bundle.json");
        let mut writer = ChunksWriter::new(identity);
        blobs.iter().for_each(|blob| writer.add(&Chunks::of(blob)));
        let bytes = writer.finish();
        assert_eq!(bytes.len() as u64, length(all.iter().map(|(_, size)| *size)));
        assert_eq!(bytes.len(), 21 + 72 + 32 * (1 + 1 + 4 + 1));
        let read = Reader::new(bytes.clone().into(), identity, all.clone()).unwrap();
        for (blob, (digest, _)) in blobs.iter().zip(&all) {
            assert_eq!(read.root(digest), Some(*blake3::hash(blob).as_bytes()));
            assert!(read.says(digest, &Chunks::of(blob)) && !read.says(digest, &Chunks::of(b"other")));
        }
        assert_eq!(read.values(&all[1].0), Some(Chunks::of(&blobs[1])));
        let misfit = |bytes: Vec<u8>, identity| Reader::new(bytes.into(), identity, all.clone()).unwrap_err();
        assert_eq!(misfit(bytes.clone(), Digest::sha256(b"other")), Misfit::Identity);
        assert_eq!(misfit(bytes[1..].to_vec(), identity), Misfit::Length { expected: 317, found: 316 });
        let mut other = bytes.clone();
        other[0] = b'G';
        assert_eq!(misfit(other, identity), Misfit::Header);
        let mut torn = bytes;
        torn[21 + 72 + 64] ^= 1;
        let torn = Reader::new(torn.into(), identity, all.clone()).unwrap();
        assert_eq!(torn.values(&all[1].0), None, "values that do not give their root locate nothing");
    }
}
