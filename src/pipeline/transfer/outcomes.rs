//! How the images of a plan ended, while others are still under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Done;
use crate::base::error::Error;

/// What became of the images so far, by their place in the plan.
#[derive(Default)]
pub struct Outcomes {
    known: Mutex<HashMap<usize, Result<Done, Arc<Error>>>>,
    /// Images are what is counted now, not blobs.
    counting: AtomicBool,
}

impl Outcomes {
    /// Whether the image is to be counted.
    pub fn note(&self, at: usize, outcome: Result<Done, Arc<Error>>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(at, outcome);
        self.counting.load(Ordering::Relaxed)
    }

    /// How many are known already.
    pub fn begin_counting(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.counting.store(true, Ordering::Relaxed);
        known.len()
    }

    pub fn known(&self) -> HashMap<usize, Result<Done, Arc<Error>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
