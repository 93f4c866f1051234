//! Blobs whose requests have used up their retries at a registry. A registry keeps one copy of a blob for all its
//! repositories, so a blob that fails in one repository fails in the next. The next repository gets one try. After
//! [`MOST`] failures the blob is not tried again until a request for it succeeds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outage::Work;
use crate::base::error::{Error, Result};
use crate::oci::Digest;

/// How many requests for a blob may use up their retries before the blob is given up.
const MOST: u32 = 3;

/// Replaces the number of failures: the blob is given up, unless a request that is already under way succeeds.
const FINAL: u32 = u32::MAX;

/// The blob, and what was done with it.
type Key = (Digest, Work);

/// See the module documentation. Each registry has one.
#[derive(Clone, Default)]
pub(super) struct Spent(Arc<Mutex<HashMap<Key, Failed>>>);

struct Failed {
    /// Number of requests that used up their retries.
    times: u32,
    /// The last error, and its reason.
    last: Error,
    why: String,
}

/// One blob, and what a request does with it.
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

    /// Whether the request does `work` with the blob; another request may have to precede it.
    pub fn is_for(&self, work: Work) -> bool {
        self.key.1 == work
    }

    /// Whether another request has used up its retries for this blob.
    pub fn is_spent(&self) -> bool {
        self.spent.failed().contains_key(&self.key)
    }

    /// # Errors
    /// The blob has failed too often. The error has the kind of the last failure.
    pub fn check(&self, what: &str) -> Result<()> {
        let failed = self.spent.failed();
        let Some(Failed { times, last, why }) = failed.get(&self.key).filter(|failed| failed.times >= MOST) else {
            return Ok(());
        };
        // All requests get the same text, so that it is reported once.
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

    /// Records that a request used up its retries, with its last error. `why` is the reason without the attempt.
    pub fn note(&self, last: &Error, why: String) {
        let mut failed = self.spent.failed();
        let times = failed.get(&self.key).map_or(1, |before| before.times.saturating_add(1));
        failed.insert(self.key, Failed { times, last: Error::clone(last), why });
    }

    /// Records that the blob failed for good: no repository tries it again. `why` is the reason without the attempt.
    pub fn note_final(&self, last: &Error, why: String) {
        self.spent.failed().insert(self.key, Failed { times: FINAL, last: Error::clone(last), why });
    }

    /// Records that a request for the blob succeeded.
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
