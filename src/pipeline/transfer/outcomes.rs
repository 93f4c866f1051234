//! How images of a plan ended while others are still under way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Done;
use crate::base::error::Error;

/// The results of the images so far, by index.
#[derive(Default)]
pub struct Outcomes {
    known: Mutex<HashMap<usize, Result<Done, Arc<Error>>>>,
    /// Whether images are counted now, rather than blobs.
    counting: AtomicBool,
}

impl Outcomes {
    /// Records a result. Returns whether the image should be counted.
    pub fn note(&self, at: usize, outcome: Result<Done, Arc<Error>>) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(at, outcome);
        self.counting.load(Ordering::Relaxed)
    }

    /// Returns how many results are already known.
    pub fn begin_counting(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.counting.store(true, Ordering::Relaxed);
        known.len()
    }

    pub fn known(&self) -> HashMap<usize, Result<Done, Arc<Error>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
