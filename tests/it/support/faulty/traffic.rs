//! The traffic of a faulty host so far. Tests wait for it, to act in the middle of a transfer without guessing the
//! moment.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Counts since the host was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    pub requests: usize,
    /// Bytes of bodies in both directions.
    pub bytes: usize,
    /// The number of stalled connections.
    pub stalls: usize,
}

#[derive(Default)]
pub(super) struct Meter {
    counts: Mutex<Traffic>,
    changed: Condvar,
    over: AtomicBool,
    releases: AtomicUsize,
}

impl Meter {
    pub fn add(&self, change: impl FnOnce(&mut Traffic)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    pub fn now(&self) -> Traffic {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the host and all waiting threads.
    pub fn end(&self) {
        let _held = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        self.over.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Releases all waiting threads.
    pub fn release(&self) {
        let _held = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        self.releases.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_all();
    }

    pub fn until_released(&self) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.releases.load(Ordering::SeqCst);
        let waits = || !self.is_over() && self.releases.load(Ordering::SeqCst) == before;
        drop(self.changed.wait_while(counts, |_| waits()));
    }

    /// Waits until `reached`, for `moment` at most; `true` if it was reached.
    pub fn wait(&self, moment: Duration, reached: impl Fn(&Traffic) -> bool) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(counts, moment, |counts| !reached(counts));
        let (counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        reached(&counts)
    }
}
