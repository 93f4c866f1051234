//! The outcomes of a plan's images while others are still under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Done;
use crate::base::error::Error;

/// The outcomes so far, by the image's index in the plan.
#[derive(Default)]
pub struct Outcomes {
    known: Mutex<HashMap<usize, Result<Done, Arc<Error>>>>,
    /// Whether progress now counts images rather than blobs.
    counting: AtomicBool,
}

impl Outcomes {
    /// Records an outcome. Returns whether progress counts the image.
    pub fn note(&self, at: usize, outcome: Result<Done, Arc<Error>>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(at, outcome);
        self.counting.load(Ordering::Relaxed)
    }

    /// Switches progress to counting images. Returns how many outcomes are already known.
    pub fn begin_counting(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.counting.store(true, Ordering::Relaxed);
        known.len()
    }

    pub fn known(&self) -> HashMap<usize, Result<Done, Arc<Error>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
