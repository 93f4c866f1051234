//! Mirrors that gave wrong bytes for a blob. Only whoever has read all of it can tell, so who gave bytes is remembered until
//! then. If several did, all are doubted: nobody knows whose were wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

/// What one place gave of a blob: how often it was opened there, and how many bytes came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub blobs: u64,
    pub bytes: u64,
}

impl std::ops::AddAssign for Given {
    fn add_assign(&mut self, more: Given) {
        self.blobs += more.blobs;
        self.bytes += more.bytes;
    }
}

/// Mirrors by their place on the way.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<Digest, Mirrors>>);

#[derive(Default)]
struct Mirrors {
    gave: BTreeMap<usize, Given>,
    doubted: BTreeSet<usize>,
}

impl Doubts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Mirrors>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mirror begins to give this blob, or goes on.
    pub fn note(&self, blob: &Digest, mirror: usize, given: Given) {
        *self.lock().entry(*blob).or_default().gave.entry(mirror).or_default() += given;
    }

    /// What was given was wrong. Says whom that makes doubtful, which is nobody a second time, and what each had given.
    pub fn accuse(&self, blob: &Digest) -> BTreeMap<usize, Given> {
        let mut all = self.lock();
        let Some(Mirrors { gave, doubted }) = all.get_mut(blob) else { return BTreeMap::new() };
        let accused = std::mem::take(gave);
        doubted.extend(accused.keys());
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
        let given = |blobs, bytes| Given { blobs, bytes };
        doubts.note(&blob, 0, given(1, 0));
        doubts.note(&blob, 2, given(1, 0));
        doubts.note(&blob, 2, given(0, 7));
        doubts.note(&other, 1, given(1, 9));
        assert!(!doubts.has(&blob, 0));
        assert_eq!(doubts.accuse(&blob), [(0, given(1, 0)), (2, given(1, 7))].into());
        assert!(doubts.has(&blob, 0) && doubts.has(&blob, 2) && !doubts.has(&blob, 1) && !doubts.has(&other, 1));
        assert!(doubts.accuse(&blob).is_empty(), "whoever asks again and again gets an end");
    }
}
