//! Mirrors that gave wrong bytes for a blob. Only whoever has read all of it can tell, so who gave bytes is remembered until
//! then. If several did, all are doubted: nobody knows whose were wrong.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

/// Mirrors by their place on the way.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<Digest, Mirrors>>);

#[derive(Default)]
struct Mirrors {
    gave: BTreeSet<usize>,
    doubted: BTreeSet<usize>,
}

impl Doubts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Mirrors>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mirror begins to give this blob.
    pub fn note(&self, blob: &Digest, mirror: usize) {
        self.lock().entry(*blob).or_default().gave.insert(mirror);
    }

    /// What was given was wrong. Says whom that makes doubtful, which is nobody a second time.
    pub fn accuse(&self, blob: &Digest) -> BTreeSet<usize> {
        let mut all = self.lock();
        let Some(Mirrors { gave, doubted }) = all.get_mut(blob) else { return BTreeSet::new() };
        let accused = std::mem::take(gave);
        doubted.extend(&accused);
        accused
    }

    pub fn has(&self, blob: &Digest, mirror: usize) -> bool {
        self.lock().get(blob).is_some_and(|mirrors| mirrors.doubted.contains(&mirror))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_a_part_of_what_was_wrong_is_doubted_for_that_blob_and_accused_once() {
        let (blob, other) = (Digest::sha256(b"blob"), Digest::sha256(b"other"));
        let doubts = Doubts::default();
        assert!(doubts.accuse(&blob).is_empty());
        doubts.note(&blob, 0);
        doubts.note(&blob, 2);
        doubts.note(&other, 1);
        assert!(!doubts.has(&blob, 0));
        assert_eq!(doubts.accuse(&blob), [0, 2].into());
        assert!(doubts.has(&blob, 0) && doubts.has(&blob, 2) && !doubts.has(&blob, 1) && !doubts.has(&other, 1));
        assert!(doubts.accuse(&blob).is_empty(), "whoever asks again and again gets an end");
    }
}
