//! Tags that are being set. A run that is stopped waits for their answers first: a tag that the registry has set counts as brought,
//! and no later run could know that.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{RwLock, RwLockReadGuard};

use crate::oci::Reference;

/// Shared by a transfer and by what stops it.
#[derive(Clone, Default)]
pub struct Publishing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Held for reading while a tag is set. It is fair: while a writer waits, no further tag is begun.
    open: RwLock<()>,
    set: Mutex<HashSet<Reference>>,
}

impl Publishing {
    /// A tag may be set as long as this is held.
    pub(super) async fn begin(&self) -> RwLockReadGuard<'_, ()> {
        self.0.open.read().await
    }

    /// The registry has said that the tag is set.
    pub(super) fn note(&self, tag: &Reference) {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner).insert(tag.clone());
    }

    /// Whether this run has set the tag.
    pub(super) fn is_set(&self, tag: &Reference) -> bool {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner).contains(tag)
    }

    /// Lets no further tag begin, and waits for the answers about those that have begun.
    pub async fn close(&self) {
        // Dropped at once: the caller stops the run next.
        let _ = self.0.open.write().await;
    }
}
