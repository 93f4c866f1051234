//! Limits the uploads into one project at a time, and the mounts likewise. Harbor keeps one database row for the quota
//! of a project and locks it for each of them: more at once only fail with a 500 and are repeated. A mount is one quick
//! request. It does not wait for a large upload, which locks the row only at its end.
//!
//! There is no deadlock: a turn is taken before a lane, and no task takes two turns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use crate::oci::{Digest, Repository};

/// The kinds of work with separate turns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Turn {
    Upload,
    Mount,
}

/// The projects of one registry. A project is the part of a repository's path before the first `/`.
#[derive(Default)]
pub(super) struct Projects {
    /// Number of each kind at a time. 0 means as many as there are requests to the registry.
    at_once: AtomicUsize,
    turns: Mutex<HashMap<(String, Turn), Arc<Semaphore>>>,
    blobs: Mutex<HashMap<(String, Digest), Place>>,
}

/// Held while a blob is mounted into a project.
type Place = Arc<tokio::sync::Mutex<()>>;

impl Projects {
    /// Applies to projects that nothing has been sent to yet.
    pub fn limit(&self, at_once: usize) {
        self.at_once.store(at_once, Ordering::Relaxed);
    }

    /// Waits until no other task mounts this blob into `repository`'s project, and holds the place. Harbor charges a
    /// project's quota once for each blob, but for each of several simultaneous mounts.
    pub async fn alone(&self, repository: &Repository, blob: Digest) -> Option<OwnedMutexGuard<()>> {
        if self.at_once.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let place = {
            let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
            // Only mounts under way have an entry.
            blobs.retain(|_, place| Arc::strong_count(place) > 1);
            blobs.entry((repository.project().to_owned(), blob)).or_default().clone()
        };
        Some(place.lock_owned().await)
    }

    /// Waits until another upload or mount may be sent to `repository`'s project, and holds the place.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mount_waits_for_another_of_the_same_blob_and_leaves_nothing_behind() {
        let projects = Projects::default();
        projects.limit(4);
        let repository = Repository::new("h", "base/app").unwrap();
        let blob = |nth: u32| Digest::sha256(&nth.to_be_bytes());
        let held = projects.alone(&repository, blob(0)).await;
        let other = Repository::new("h", "base/other").unwrap();
        let mut waiting = Box::pin(projects.alone(&other, blob(0)));
        assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
        for nth in 1..100 {
            assert!(projects.alone(&repository, blob(nth)).await.is_some());
        }
        drop(held);
        assert!(waiting.await.is_some());
        assert!(projects.blobs.lock().unwrap().len() <= 2, "a run of millions of blobs keeps none of them");
    }
}
