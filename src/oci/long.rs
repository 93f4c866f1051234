//! The bytes of sha512 digests, each once, for the lifetime of the program.
//!
//! sha512 is rare. Its 64 bytes in every [`Digest`](super::Digest) would double the size of all others. Nothing leaves the
//! table, so the number of digests that strangers can add is bounded.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

/// Maximum number of different digests in references, manifests and requests.
const MOST_NAMED: usize = 250_000;
/// Maximum number in total, including hashes of content that nothing refers to; such content is wrong anyway.
const MOST: usize = 2 * MOST_NAMED;
/// Why another one is rejected.
pub const TOO_MANY: &str = "it is one of more than 250,000 different sha512 digests; carry fewer images at once";

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);

#[derive(Default)]
struct Table {
    all: Vec<&'static [u8; 64]>,
    places: HashMap<&'static [u8; 64], u32>,
}

/// An index into the table, as bytes: a number would make every digest as wide as its alignment.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Long([u8; 4]);

impl Long {
    /// The entry for a digest that is referred to. Returns `None` if there are too many.
    pub fn named(bytes: &[u8; 64]) -> Option<Long> {
        Long::find(bytes).or_else(|| Long::enter(bytes, MOST_NAMED))
    }

    /// The entry for hashed content. If the table is full, the digest is not one that anything refers to; it is shown as
    /// zeros.
    pub fn computed(bytes: &[u8; 64]) -> Long {
        let last = Long(u32::MAX.to_ne_bytes());
        Long::find(bytes).or_else(|| Long::enter(bytes, MOST)).unwrap_or(last)
    }

    pub fn bytes(self) -> &'static [u8; 64] {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(u32::from_ne_bytes(self.0)).ok();
        at.and_then(|at| table.all.get(at)).copied().unwrap_or(&[0; 64])
    }

    /// The existing entry.
    pub fn find(bytes: &[u8; 64]) -> Option<Long> {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        table.places.get(bytes).map(|at| Long(at.to_ne_bytes()))
    }

    fn enter(bytes: &[u8; 64], most: usize) -> Option<Long> {
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = table.places.get(bytes) {
            return Some(Long(at.to_ne_bytes()));
        }
        let at = u32::try_from(table.all.len()).ok().filter(|_| table.all.len() < most)?;
        let bytes: &'static [u8; 64] = Box::leak(Box::new(*bytes));
        table.all.push(bytes);
        table.places.insert(bytes, at);
        Some(Long(at.to_ne_bytes()))
    }
}

impl std::fmt::Debug for Long {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Long({})", u32::from_ne_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_digests_cannot_fill_the_table_and_known_ones_stay() {
        let known = Long::computed(&[7; 64]);
        assert_eq!(Long::enter(&[8; 64], 0), None);
        assert_eq!(Long::enter(&[7; 64], 0), Some(known));
        assert_eq!(known.bytes(), &[7; 64]);
    }
}
