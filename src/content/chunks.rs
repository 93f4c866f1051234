//! Locates damage within a blob with the BLAKE3 value of every mebibyte.
//!
//! BLAKE3 is a tree over pieces of 1,024 bytes (BLAKE3 paper, section 2.1). The nodes over whole mebibytes are kept as
//! *chaining values*. Together they give the digest of the whole, so the digest verifies them, and each of them verifies one
//! mebibyte. The digest equals the output of `b3sum`.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes per chunk; the last chunk of a blob may be shorter.
pub const CHUNK: u64 = 1 << 20;

/// Length of a chaining value or a digest in bytes.
pub const CHAINED: usize = 32;

/// A node of the tree.
pub type Chained = [u8; CHAINED];

/// The BLAKE3 digest of some bytes, with their chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    root: Chained,
    /// One value per chunk; empty if there is only one, which the digest itself covers.
    values: Vec<Chained>,
}

impl Chunks {
    /// Hashes bytes in memory.
    pub fn of(bytes: &[u8]) -> Chunks {
        let mut hasher = ChunkHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Accepts chaining values from elsewhere. Returns `None` if they do not give `root`.
    pub fn proven(root: Chained, values: Vec<Chained>) -> Option<Chunks> {
        (root_of(&values)? == root).then_some(Chunks { root, values })
    }

    pub fn root(&self) -> &Chained {
        &self.root
    }

    pub fn values(&self) -> &[Chained] {
        &self.values
    }
}

/// Number of chaining values for this many bytes.
pub fn values_of(size: u64) -> u64 {
    if size <= CHUNK { 0 } else { size.div_ceil(CHUNK) }
}

/// Hashes a single chunk. The bytes come in order, in pieces of any length.
#[derive(Clone, Debug)]
pub struct OneChunk {
    hasher: blake3::Hasher,
    is_only: bool,
}

impl OneChunk {
    /// The chunk with this number, from 0, of a blob of `size` bytes.
    pub fn new(number: u64, size: u64) -> OneChunk {
        OneChunk { hasher: at(number), is_only: size <= CHUNK }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Returns its chaining value, or the digest of the blob if it is the only chunk.
    pub fn finish(self) -> Chained {
        if self.is_only { *self.hasher.finalize().as_bytes() } else { self.hasher.finalize_non_root() }
    }
}

fn at(number: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(number.saturating_mul(CHUNK));
    hasher
}

/// Returns `None` for fewer than two values: the digest is then not a node over nodes.
fn root_of(values: &[Chained]) -> Option<Chained> {
    let (left, right) = halves(values)?;
    Some(*merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).as_bytes())
}

fn merged(values: &[Chained]) -> Chained {
    match halves(values) {
        Some((left, right)) => merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash),
        None => values.first().copied().unwrap_or_default(),
    }
}

/// The left part is the largest complete tree that leaves at least one value for the right part.
fn halves(values: &[Chained]) -> Option<(&[Chained], &[Chained])> {
    let last = values.len().checked_sub(1).filter(|last| *last > 0)?;
    Some(values.split_at(1 << last.ilog2()))
}

/// Hashes bytes in order, in pieces of any length.
#[derive(Clone, Debug)]
pub struct ChunkHasher {
    open: blake3::Hasher,
    /// Bytes in the open chunk.
    taken: u64,
    values: Vec<Chained>,
}

impl Default for ChunkHasher {
    fn default() -> ChunkHasher {
        ChunkHasher::new()
    }
}

impl ChunkHasher {
    pub fn new() -> ChunkHasher {
        ChunkHasher { open: blake3::Hasher::new(), taken: 0, values: Vec::new() }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // Only if more follows: a last chunk ends differently if it is the only one.
            if self.taken == CHUNK {
                self.values.push(self.open.finalize_non_root());
                self.open = at(self.values.len() as u64);
                self.taken = 0;
            }
            let room = usize::try_from(CHUNK - self.taken).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.open.update(now);
            self.taken += now.len() as u64;
            bytes = later;
        }
    }

    pub fn finish(mut self) -> Chunks {
        if !self.values.is_empty() {
            self.values.push(self.open.finalize_non_root());
        }
        self.values.shrink_to_fit();
        let root = root_of(&self.values).unwrap_or_else(|| *self.open.finalize().as_bytes());
        Chunks { root, values: self.values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 + at % 251) as u8).collect()
    }

    #[test]
    fn the_root_matches_b3sum_and_each_value_proves_its_chunk_in_any_pieces() {
        let chunk = CHUNK as usize;
        let lengths =
            [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk, 5 * chunk + 17, 8 * chunk, 9 * chunk - 1];
        for length in lengths {
            let bytes = bytes(length);
            for piece in [1_000_003, chunk, chunk + 1, usize::MAX] {
                let mut hasher = ChunkHasher::new();
                bytes.chunks(piece.min(length.max(1))).for_each(|piece| hasher.update(piece));
                let chunks = hasher.finish();
                assert_eq!(chunks.root(), blake3::hash(&bytes).as_bytes(), "{length} in {piece}");
                assert_eq!(chunks.values().len() as u64, values_of(length as u64));
                for (at, part) in bytes.chunks(chunk).enumerate() {
                    let mut one = OneChunk::new(at as u64, length as u64);
                    part.chunks(piece).for_each(|piece| one.update(piece));
                    let expected = chunks.values().get(at).unwrap_or(chunks.root());
                    assert_eq!(*expected, one.finish(), "{length}, chunk {at}");
                }
            }
        }
    }

    #[test]
    fn values_that_do_not_give_the_root_are_rejected() {
        let good = Chunks::of(&bytes(3 * CHUNK as usize));
        let values = good.values().to_vec();
        assert_eq!(Chunks::proven(*good.root(), values.clone()), Some(good.clone()));
        for wrong in
            [vec![], values[..2].to_vec(), [&values[..], &values[..1]].concat(), vec![values[1], values[0], values[2]]]
        {
            assert_eq!(Chunks::proven(*good.root(), wrong), None);
        }
    }
}
