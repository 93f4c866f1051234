//! Blobs that have used up the tries of a request at a registry. A registry keeps one copy of a blob for all its
//! repositories, so what fails in one fails in the next. In the next repository it is tried once, and after [`MOST`] failures
//! not at all, until it succeeds somewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outage::Work;
use crate::base::error::{Error, Result};
use crate::oci::Digest;

/// How often a blob may fail to the last try of a request, before it is not tried again.
const MOST: u32 = 3;

/// In place of how often: it is not tried again, unless another request that is under way succeeds.
const FINAL: u32 = u32::MAX;

/// What was done with which blob.
type Key = (Digest, Work);

/// See the module documentation. One for each registry.
#[derive(Clone, Default)]
pub(super) struct Spent(Arc<Mutex<HashMap<Key, Failed>>>);

struct Failed {
    /// How often it failed to the last try of a request.
    times: u32,
    /// The last failure, and why it was one.
    last: Error,
    why: String,
}

/// One blob, as a request has to do with it.
pub(super) struct OfBlob {
    spent: Spent,
    key: Key,
}

impl Spent {
    pub fn of(&self, blob: &Digest, work: Work) -> OfBlob {
        OfBlob { spent: self.clone(), key: (*blob, work) }
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<Key, Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfBlob {
    pub fn digest(&self) -> &Digest {
        &self.key.0
    }

    /// Whether this is what is done with the blob; another request may have to go before it.
    pub fn is_for(&self, work: Work) -> bool {
        self.key.1 == work
    }

    /// Whether another request has used up its tries for this blob.
    pub fn is_spent(&self) -> bool {
        self.spent.failed().contains_key(&self.key)
    }

    /// # Errors
    /// The blob has failed too often for another try; the error is of the kind of the last failure.
    pub fn check(&self, what: &str) -> Result<()> {
        let failed = self.spent.failed();
        let Some(Failed { times, last, why }) = failed.get(&self.key).filter(|failed| failed.times >= MOST) else {
            return Ok(());
        };
        // The same for all that ask: then it is said once.
        let text = match *times {
            FINAL => format!("not tried: an earlier attempt failed permanently: {why}"),
            times => format!("not tried, because {times} requests for this blob have failed: {why}"),
        };
        let error = Error::new(last.kind(), what).because(Error::new(last.kind(), text).speaking_for(last.clone()));
        Err(match last.reason() {
            Some(reason) => error.with_reason(reason.clone()),
            None => error,
        })
    }

    /// A request has failed to its last try with `last`; `why`, without what was tried.
    pub fn note(&self, last: &Error, why: String) {
        let mut failed = self.spent.failed();
        let times = failed.get(&self.key).map_or(1, |before| before.times.saturating_add(1));
        failed.insert(self.key, Failed { times, last: Error::clone(last), why });
    }

    /// It has failed with `last` for good, `why`: it is not tried again, in any repository.
    pub fn note_final(&self, last: &Error, why: String) {
        self.spent.failed().insert(self.key, Failed { times: FINAL, last: Error::clone(last), why });
    }

    /// A request for it has succeeded.
    pub fn clear(&self) {
        self.spent.failed().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{Kind, Reason};

    #[test]
    fn a_blob_that_fails_again_and_again_is_not_tried_until_it_succeeds_somewhere() {
        let (spent, digest) = (Spent::default(), Digest::sha256(b"a layer"));
        let blob = spent.of(&digest, Work::Complete);
        let error = Error::new(Kind::Refused, "uploading it to a: 500").with_reason(Reason::Undelivered);
        assert!(!blob.is_spent());
        for _ in 0..MOST {
            assert!(blob.check("uploading it to b").is_ok());
            blob.note(&error, "500".into());
            assert!(blob.is_spent());
        }
        let refused = blob.check("uploading it to b").unwrap_err();
        assert_eq!((refused.kind(), refused.reason()), (Kind::Refused, Some(&Reason::Undelivered)));
        let text = "uploading it to b: not tried, because 3 requests for this blob have failed: 500";
        assert_eq!(refused.chain(), text);
        assert!(!spent.of(&digest, Work::Content).is_spent(), "it may be read all the same");
        spent.of(&digest, Work::Complete).clear();
        assert!(!blob.is_spent() && blob.check("uploading it to b").is_ok());
    }
}
