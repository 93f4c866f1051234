//! Few uploads at once into one project, and as many mounts. Harbor keeps one row of its database for a project's quota and
//! locks it for each of them: more at once only fail (500) and come again. A mount is one quick request: it does not wait
//! until a large upload is through, which locks that row only at its end.
//!
//! Whoever holds a turn waits for nobody who waits for one: a turn is taken before a lane, and never two.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::oci::Repository;

/// What has turns of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Turn {
    Upload,
    Mount,
}

/// The projects of one registry; a project is what stands before the first `/` of a repository's path.
#[derive(Default)]
pub(super) struct Projects {
    /// Of each kind. 0: as many as the registry is asked at once anyway.
    at_once: AtomicUsize,
    turns: Mutex<HashMap<(String, Turn), Arc<Semaphore>>>,
}

impl Projects {
    /// Counts for projects that nothing was sent to so far.
    pub fn limit(&self, at_once: usize) {
        self.at_once.store(at_once, Ordering::Relaxed);
    }

    /// Waits until one more upload, or one more mount, may go to `repository`'s project, and holds the place.
    pub async fn turn(&self, repository: &Repository, turn: Turn) -> Option<OwnedSemaphorePermit> {
        let at_once = self.at_once.load(Ordering::Relaxed);
        if at_once == 0 {
            return None;
        }
        let places = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns
                .entry((repository.project().to_owned(), turn))
                .or_insert_with(|| Arc::new(Semaphore::new(at_once)))
                .clone()
        };
        places.acquire_owned().await.ok()
    }
}
