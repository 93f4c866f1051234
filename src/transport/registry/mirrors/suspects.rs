//! Which mirrors sent wrong bytes of a blob. Only a reader of the whole blob can tell, so each endpoint that sent bytes
//! is remembered until then. An endpoint that sent the whole blob is to blame. If several sent parts, it is unknown
//! whose bytes were wrong: one of them sends the whole blob next time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

/// What one endpoint sent of a blob: how often the blob was opened there, and how many bytes arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EndpointReads {
    pub blobs: u64,
    pub bytes: u64,
}

impl std::ops::AddAssign for EndpointReads {
    fn add_assign(&mut self, more: EndpointReads) {
        self.blobs += more.blobs;
        self.bytes += more.bytes;
    }
}

/// A blob that turned out to be wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WrongBlob {
    /// What each endpoint had sent. It may have only claimed to have the blob.
    pub given: BTreeMap<usize, EndpointReads>,
    /// The endpoints whose bytes these were.
    pub from: Vec<usize>,
}

/// For each blob, what its endpoints did, by number.
#[derive(Default)]
pub(super) struct Suspects(Mutex<HashMap<Digest, State>>);

#[derive(Default)]
struct State {
    /// Since the blob was last opened.
    given: BTreeMap<usize, EndpointReads>,
    /// The endpoint that sent the last bytes.
    last: usize,
    /// Mirrors that sent wrong bytes.
    guilty: BTreeSet<usize>,
    /// Mirrors that may have done so.
    aside: BTreeSet<usize>,
}

impl Suspects {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the blob is opened; what was sent before no longer counts.
    pub fn begin(&self, blob: &Digest) {
        self.lock().entry(*blob).or_default().given.clear();
    }

    /// Records that an endpoint starts or continues to send this blob.
    pub fn note(&self, blob: &Digest, at: usize, given: EndpointReads) {
        let mut all = self.lock();
        let state = all.entry(*blob).or_default();
        *state.given.entry(at).or_default() += given;
        state.last = at;
    }

    /// Records that the bytes were wrong. A mirror that sent all of them is not asked again. Of several endpoints one
    /// is kept: the registry itself, at `own`, or the one that reached the end. The others wait until one is found
    /// guilty. So repeated tries come to an end.
    pub fn accuse(&self, blob: &Digest, own: usize) -> WrongBlob {
        let mut all = self.lock();
        let Some(state) = all.get_mut(blob) else { return WrongBlob::default() };
        let given = std::mem::take(&mut state.given);
        let from: Vec<usize> = given.iter().filter(|(_, given)| given.bytes > 0).map(|(at, _)| *at).collect();
        match from[..] {
            [mirror] if mirror != own => {
                state.guilty.insert(mirror);
                state.aside.clear();
            }
            _ => {
                let kept = if from.contains(&own) { own } else { state.last };
                state.aside.extend(from.iter().filter(|at| **at != kept));
            }
        }
        WrongBlob { given, from }
    }

    /// Whether this mirror should not be asked for the blob.
    pub fn has(&self, blob: &Digest, mirror: usize) -> bool {
        self.lock().get(blob).is_some_and(|state| state.guilty.contains(&mirror) || state.aside.contains(&mirror))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: usize = 3;

    /// Returns the verdict after these places sent a blob one after the other, and it was wrong.
    fn wrong(suspects: &Suspects, blob: &Digest, places: &[usize]) -> Vec<usize> {
        suspects.begin(blob);
        for at in places {
            suspects.note(blob, *at, EndpointReads { blobs: 1, bytes: 0 });
            suspects.note(blob, *at, EndpointReads { blobs: 0, bytes: 7 });
        }
        let WrongBlob { given, from } = suspects.accuse(blob, OWN);
        assert!(given.values().all(|given| *given == EndpointReads { blobs: 1, bytes: 7 }), "{given:?}");
        assert_eq!(suspects.accuse(blob, OWN), WrongBlob::default(), "the second time, no place is left to accuse");
        from
    }

    fn doubted(suspects: &Suspects, blob: &Digest) -> Vec<usize> {
        (0..=OWN).filter(|at| suspects.has(blob, *at)).collect()
    }

    #[test]
    fn of_several_who_gave_a_part_of_what_was_wrong_one_is_asked_again_and_guilty_is_who_gave_it_all() {
        let (blob, other) = (Digest::sha256(b"blob"), Digest::sha256(b"other"));
        let suspects = Suspects::default();
        assert_eq!(wrong(&suspects, &blob, &[0, 2, 1]), [0, 1, 2]);
        assert_eq!(doubted(&suspects, &blob), [0, 2]);
        assert_eq!(wrong(&suspects, &blob, &[1]), [1]);
        assert_eq!(doubted(&suspects, &blob), [1], "the others may have been honest");
        // The registry itself is never skipped.
        assert_eq!(wrong(&suspects, &blob, &[OWN, 0]), [0, OWN]);
        assert_eq!(doubted(&suspects, &blob), [0, 1]);
        assert_eq!(wrong(&suspects, &blob, &[OWN]), [OWN]);
        assert_eq!((doubted(&suspects, &blob), doubted(&suspects, &other)), (vec![0, 1], vec![]));
    }

    #[test]
    fn who_only_said_that_it_has_the_blob_or_gave_it_another_time_has_given_nothing_wrong() {
        let (blob, suspects) = (Digest::sha256(b"blob"), Suspects::default());
        suspects.note(&blob, 2, EndpointReads { blobs: 1, bytes: 7 });
        suspects.begin(&blob);
        suspects.note(&blob, 0, EndpointReads { blobs: 1, bytes: 0 });
        suspects.note(&blob, 1, EndpointReads { blobs: 1, bytes: 7 });
        let WrongBlob { given, from } = suspects.accuse(&blob, OWN);
        assert_eq!((from, given.into_keys().collect()), (vec![1], vec![0, 1]));
        assert_eq!(doubted(&suspects, &blob), [1]);
    }
}
