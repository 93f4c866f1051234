//! Who gave wrong bytes for a blob. Only whoever has read all of it can tell, so who gave bytes is remembered until then.
//! Blamed is who gave all of it. Of several nobody knows whose were wrong: one of them is to give all of it next time.

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

/// What was given of a blob turned out to be wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What each place had given, were it only its word that it has the blob.
    pub given: BTreeMap<usize, Given>,
    /// Whose bytes these were.
    pub from: Vec<usize>,
}

/// Places by their number on the way.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<Digest, Places>>);

#[derive(Default)]
struct Places {
    /// Since the blob was opened last.
    given: BTreeMap<usize, Given>,
    /// Who gave the last bytes.
    last: usize,
    /// Mirrors that gave wrong bytes.
    guilty: BTreeSet<usize>,
    /// Mirrors that may have.
    aside: BTreeSet<usize>,
}

impl Doubts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Places>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob is opened: what was given of it before is another matter.
    pub fn begin(&self, blob: &Digest) {
        self.lock().entry(*blob).or_default().given.clear();
    }

    /// A place begins to give this blob, or goes on.
    pub fn note(&self, blob: &Digest, at: usize, given: Given) {
        let mut all = self.lock();
        let places = all.entry(*blob).or_default();
        *places.given.entry(at).or_default() += given;
        places.last = at;
    }

    /// What was given was wrong. A mirror that gave all of it is not to be asked again. Of several one is kept: the registry
    /// itself, which is at `own`, or whoever came to the end; the others wait until somebody is found guilty. So whoever
    /// asks again and again gets an end.
    pub fn accuse(&self, blob: &Digest, own: usize) -> Wrong {
        let mut all = self.lock();
        let Some(places) = all.get_mut(blob) else { return Wrong::default() };
        let given = std::mem::take(&mut places.given);
        let from: Vec<usize> = given.iter().filter(|(_, given)| given.bytes > 0).map(|(at, _)| *at).collect();
        match from[..] {
            [mirror] if mirror != own => {
                places.guilty.insert(mirror);
                places.aside.clear();
            }
            _ => {
                let kept = if from.contains(&own) { own } else { places.last };
                places.aside.extend(from.iter().filter(|at| **at != kept));
            }
        }
        Wrong { given, from }
    }

    pub fn has(&self, blob: &Digest, mirror: usize) -> bool {
        self.lock().get(blob).is_some_and(|places| places.guilty.contains(&mirror) || places.aside.contains(&mirror))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: usize = 3;

    /// What comes of it that these places gave a blob, one after the other, and it was wrong.
    fn wrong(doubts: &Doubts, blob: &Digest, places: &[usize]) -> Vec<usize> {
        doubts.begin(blob);
        for at in places {
            doubts.note(blob, *at, Given { blobs: 1, bytes: 0 });
            doubts.note(blob, *at, Given { blobs: 0, bytes: 7 });
        }
        let Wrong { given, from } = doubts.accuse(blob, OWN);
        assert!(given.values().all(|given| *given == Given { blobs: 1, bytes: 7 }), "{given:?}");
        assert_eq!(doubts.accuse(blob, OWN), Wrong::default(), "whoever asks again and again gets an end");
        from
    }

    fn doubted(doubts: &Doubts, blob: &Digest) -> Vec<usize> {
        (0..=OWN).filter(|at| doubts.has(blob, *at)).collect()
    }

    #[test]
    fn of_several_who_gave_a_part_of_what_was_wrong_one_is_asked_again_and_guilty_is_who_gave_it_all() {
        let (blob, other) = (Digest::sha256(b"blob"), Digest::sha256(b"other"));
        let doubts = Doubts::default();
        assert_eq!(wrong(&doubts, &blob, &[0, 2, 1]), [0, 1, 2]);
        assert_eq!(doubted(&doubts, &blob), [0, 2]);
        assert_eq!(wrong(&doubts, &blob, &[1]), [1]);
        assert_eq!(doubted(&doubts, &blob), [1], "the others may have been honest");
        // The registry itself is never left out.
        assert_eq!(wrong(&doubts, &blob, &[OWN, 0]), [0, OWN]);
        assert_eq!(doubted(&doubts, &blob), [0, 1]);
        assert_eq!(wrong(&doubts, &blob, &[OWN]), [OWN]);
        assert_eq!((doubted(&doubts, &blob), doubted(&doubts, &other)), (vec![0, 1], vec![]));
    }

    #[test]
    fn who_only_said_that_it_has_the_blob_or_gave_it_another_time_has_given_nothing_wrong() {
        let (blob, doubts) = (Digest::sha256(b"blob"), Doubts::default());
        doubts.note(&blob, 2, Given { blobs: 1, bytes: 7 });
        doubts.begin(&blob);
        doubts.note(&blob, 0, Given { blobs: 1, bytes: 0 });
        doubts.note(&blob, 1, Given { blobs: 1, bytes: 7 });
        let Wrong { given, from } = doubts.accuse(&blob, OWN);
        assert_eq!((from, given.into_keys().collect()), (vec![1], vec![0, 1]));
        assert_eq!(doubted(&doubts, &blob), [1]);
    }
}
