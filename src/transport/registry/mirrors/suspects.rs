//! Which mirrors gave wrong bytes of a blob. Only a reader of the whole blob can tell, so each endpoint that gave bytes
//! is remembered until then. An endpoint that gave all of them is at fault. If several gave a part, the wrong bytes may
//! be from any of them: one of these endpoints gives the whole blob next time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::Digest;

/// What one endpoint gave of a blob: how often the blob was opened there, and how many bytes came.
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

/// The endpoints involved in a blob that turned out to be wrong.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct WrongBlob {
    /// What each endpoint gave, including those that opened the blob and sent no bytes.
    pub given: BTreeMap<usize, EndpointReads>,
    /// The endpoints that sent bytes.
    pub from: Vec<usize>,
}

/// For each blob, what its endpoints did, by index.
#[derive(Default)]
pub(super) struct Suspects(Mutex<HashMap<Digest, State>>);

#[derive(Default)]
struct State {
    /// What each endpoint has given since the blob was last opened.
    given: BTreeMap<usize, EndpointReads>,
    /// The endpoint that sent the last bytes.
    last: usize,
    /// Mirrors that sent wrong bytes.
    guilty: BTreeSet<usize>,
    /// Mirrors that may have given wrong bytes.
    aside: BTreeSet<usize>,
}

impl Suspects {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob is opened anew: forgets what was given of it before.
    pub fn begin(&self, blob: &Digest) {
        self.lock().entry(*blob).or_default().given.clear();
    }

    /// Records that an endpoint opened this blob or gave bytes of it.
    pub fn note(&self, blob: &Digest, at: usize, given: EndpointReads) {
        let mut all = self.lock();
        let state = all.entry(*blob).or_default();
        *state.given.entry(at).or_default() += given;
        state.last = at;
    }

    /// Records that the blob was wrong. A mirror that gave all of it is not asked for it again. If several endpoints
    /// gave parts, one of them is kept: the registry itself, which has the index `own`, or else the endpoint that gave
    /// the last bytes. The others are set aside until a mirror is found guilty. Repeated requests therefore end.
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

    /// Whether this mirror must not be asked for the blob.
    pub fn has(&self, blob: &Digest, mirror: usize) -> bool {
        self.lock().get(blob).is_some_and(|state| state.guilty.contains(&mirror) || state.aside.contains(&mirror))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: usize = 3;

    /// Lets these endpoints give a blob one after the other, reports it as wrong, and returns the endpoints that sent
    /// bytes.
    fn wrong(suspects: &Suspects, blob: &Digest, places: &[usize]) -> Vec<usize> {
        suspects.begin(blob);
        for at in places {
            suspects.note(blob, *at, EndpointReads { blobs: 1, bytes: 0 });
            suspects.note(blob, *at, EndpointReads { blobs: 0, bytes: 7 });
        }
        let WrongBlob { given, from } = suspects.accuse(blob, OWN);
        assert!(given.values().all(|given| *given == EndpointReads { blobs: 1, bytes: 7 }), "{given:?}");
        assert_eq!(suspects.accuse(blob, OWN), WrongBlob::default(), "the second time, no endpoint is left to accuse");
        from
    }

    fn doubted(suspects: &Suspects, blob: &Digest) -> Vec<usize> {
        (0..=OWN).filter(|at| suspects.has(blob, *at)).collect()
    }

    #[test]
    fn after_several_mirrors_gave_parts_of_a_wrong_blob_one_is_kept_and_only_one_that_gave_it_all_is_guilty() {
        let (blob, other) = (Digest::sha256(b"blob"), Digest::sha256(b"other"));
        let suspects = Suspects::default();
        assert_eq!(wrong(&suspects, &blob, &[0, 2, 1]), [0, 1, 2]);
        assert_eq!(doubted(&suspects, &blob), [0, 2]);
        assert_eq!(wrong(&suspects, &blob, &[1]), [1]);
        assert_eq!(doubted(&suspects, &blob), [1], "the others may have given right bytes");
        // The registry itself is never left out.
        assert_eq!(wrong(&suspects, &blob, &[OWN, 0]), [0, OWN]);
        assert_eq!(doubted(&suspects, &blob), [0, 1]);
        assert_eq!(wrong(&suspects, &blob, &[OWN]), [OWN]);
        assert_eq!((doubted(&suspects, &blob), doubted(&suspects, &other)), (vec![0, 1], vec![]));
    }

    #[test]
    fn a_mirror_that_sent_no_bytes_or_sent_them_at_another_time_is_not_accused() {
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
