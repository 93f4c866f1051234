//! Whether HEAD can be relied on at a registry, for one kind of object. It is the cheaper request; what it does not answer,
//! GET does. Some proxies answer HEAD with a denial for what they would fetch, and some never answer it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::outage::Outage;

/// See the module documentation. There is one for each registry and kind of object.
#[derive(Default)]
pub(super) struct Heads {
    /// For blobs: whether GET agreed when HEAD said that something is missing; locked while that is determined.
    pub agrees: tokio::sync::Mutex<Option<bool>>,
    asked: Mutex<Asked>,
    /// For manifests: whether a HEAD has found something.
    finds: AtomicBool,
    /// For manifests: whether a HEAD did not find what GET found.
    hides: AtomicBool,
}

#[derive(Default)]
struct Asked {
    /// When a HEAD was last answered.
    answered: Option<Instant>,
    /// When a HEAD was sent that was not answered within the stall limit.
    unanswered: Option<Instant>,
}

impl Heads {
    pub fn note_found(&self) {
        self.finds.store(true, Ordering::Relaxed);
    }

    pub fn note_hidden(&self) {
        self.hides.store(true, Ordering::Relaxed);
    }

    /// Whether HEAD can be trusted when it says that something is missing: it has found things and hidden none. That GET did
    /// not find the object either proves nothing, because a HEAD that never finds anything agrees then too.
    pub fn are_believed(&self) -> bool {
        self.finds.load(Ordering::Relaxed) && !self.hides.load(Ordering::Relaxed)
    }

    pub fn note_answer(&self) {
        self.asked().answered = Some(Instant::now());
    }

    /// A HEAD sent at that time was not answered within the stall limit.
    pub fn note_silence(&self, sent: Instant) {
        self.asked().unanswered = Some(sent);
    }

    /// Whether HEAD is not worth trying: one was not answered while the registry answered other requests, and none has been
    /// answered since. Those of `another` kind count as long as none of this kind was answered, because whatever drops HEAD
    /// does not look at paths.
    pub fn are_ignored(&self, another: &Heads, outage: &Outage) -> bool {
        self.are_swallowed(outage) || self.asked().answered.is_none() && another.are_swallowed(outage)
    }

    fn are_swallowed(&self, outage: &Outage) -> bool {
        let Asked { answered, unanswered } = *self.asked();
        unanswered.is_some_and(|sent| answered.is_none_or(|answered| answered < sent) && outage.is_heard_since(sent))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::progress::Recorder;
    use crate::transport::registry::config::RequestLimits;
    use crate::transport::registry::outage::Work;

    #[test]
    fn a_head_without_an_answer_counts_only_where_others_are_answered_and_no_head_is() {
        let outage = Outage::new("r.io", &RequestLimits::default(), &(Arc::new(Recorder::default()) as _));
        let (heads, another) = (Heads::default(), Heads::default());
        outage.answered(Work::Read);
        heads.note_silence(Instant::now());
        assert!(!heads.are_ignored(&another, &outage), "the registry may have been silent altogether");
        outage.answered(Work::Read);
        assert!(heads.are_ignored(&another, &outage) && another.are_ignored(&heads, &outage));
        another.note_answer();
        assert!(heads.are_ignored(&another, &outage) && !another.are_ignored(&heads, &outage));
        heads.note_answer();
        assert!(!heads.are_ignored(&another, &outage));
    }
}
