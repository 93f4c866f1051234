//! Tags that are being set, and what was set. A run that is stopped first waits for their answers: a tag that the
//! registry has set counts as pushed by this run, and no later run could know that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{RwLock, RwLockReadGuard};

use crate::oci::{Digest, Reference};

/// Shared by a transfer and by whatever stops it.
#[derive(Clone, Default)]
pub struct Publishing(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Held for reading while a tag is set. It is fair: while a writer waits, no further tag is started.
    open: RwLock<()>,
    /// Tags and manifests, with their last meaning.
    set: Mutex<HashMap<Reference, Digest>>,
}

impl Publishing {
    /// A tag may be set as long as this is held.
    pub(super) async fn begin(&self) -> RwLockReadGuard<'_, ()> {
        self.0.open.read().await
    }

    /// Records that the registry has said that the tag is set, or that it has stored the manifest.
    pub(super) fn note(&self, name: &Reference, digest: Digest) {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), digest);
    }

    /// Returns what this run has set or stored.
    pub(super) fn set(&self) -> HashMap<Reference, Digest> {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this run has set the tag.
    pub(super) fn is_set(&self, tag: &Reference) -> bool {
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner).contains_key(tag)
    }

    /// Prevents further tags from being started, and waits for the answers about those that were.
    pub async fn close(&self) {
        // Dropped immediately: the caller stops the run next.
        let _ = self.0.open.write().await;
    }
}
