//! What this run has sent to a registry. Under load a registry may deny for a moment what it has just accepted; Harbor
//! with several instances, caches or an object store behind it does so. Only then is it worth asking again after "not
//! found".

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::{Digest, Reference, Repository, Tag};

#[derive(Default)]
pub(super) struct RecentWrites(Mutex<HashMap<Repository, Here>>);

#[derive(Default)]
struct Here {
    /// Of blobs and manifests.
    digests: HashSet<Digest>,
    /// Blobs that were created by a mount: their bytes were not uploaded in this run.
    mounted: HashSet<Digest>,
    /// The digests that this run has given to tags.
    tags: HashMap<Tag, Digest>,
}

impl RecentWrites {
    fn lock(&self) -> MutexGuard<'_, HashMap<Repository, Here>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note_blob(&self, repository: &Repository, digest: Digest) {
        let mut all = self.lock();
        let here = all.entry(repository.clone()).or_default();
        here.digests.insert(digest);
        here.mounted.remove(&digest);
    }

    pub fn note_mounted(&self, repository: &Repository, digest: Digest) {
        let mut all = self.lock();
        let here = all.entry(repository.clone()).or_default();
        here.digests.insert(digest);
        here.mounted.insert(digest);
    }

    pub fn is_mounted(&self, repository: &Repository, digest: &Digest) -> bool {
        self.lock().get(repository).is_some_and(|here| here.mounted.contains(digest))
    }

    pub fn note_manifest(&self, reference: &Reference, digest: Digest) {
        let mut all = self.lock();
        let here = all.entry(reference.repository.clone()).or_default();
        here.digests.insert(digest);
        here.tags.extend(reference.tag.clone().map(|tag| (tag, digest)));
    }

    pub fn has_blob(&self, repository: &Repository, digest: &Digest) -> bool {
        self.lock().get(repository).is_some_and(|here| here.digests.contains(digest))
    }

    pub fn has_manifest(&self, reference: &Reference) -> bool {
        let all = self.lock();
        let Some(here) = all.get(&reference.repository) else { return false };
        match (&reference.digest, &reference.tag) {
            (Some(digest), _) => here.digests.contains(digest),
            (None, Some(tag)) => here.tags.contains_key(tag),
            (None, None) => false,
        }
    }

    /// Whether this run has given the tag another digest than `digest`.
    pub fn is_other(&self, tag: &Reference, digest: &Digest) -> bool {
        let all = self.lock();
        let given = all.get(&tag.repository).zip(tag.tag.as_ref()).and_then(|(here, tag)| here.tags.get(tag));
        tag.digest.is_none() && given.is_some_and(|given| given != digest)
    }

    /// Whether a refusal to store a manifest because something is missing may pass: all of `named` was sent there or,
    /// if nothing is named, anything was.
    pub fn is_denied(&self, repository: &Repository, named: &[Digest]) -> bool {
        let all = self.lock();
        let Some(here) = all.get(repository) else { return false };
        match named {
            [] => !here.digests.is_empty(),
            named => named.iter().all(|digest| here.digests.contains(digest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_brought_can_be_denied() {
        let (here, elsewhere) = (Repository::new("r", "a").unwrap(), Repository::new("r", "b").unwrap());
        let (blob, other) = (Digest::sha256(b"blob"), Digest::sha256(b"other"));
        let written = RecentWrites::default();
        assert!(!written.is_denied(&here, &[]));
        written.note_blob(&here, blob);
        assert!(written.is_denied(&here, &[]) && written.is_denied(&here, &[blob]));
        assert!(!written.is_denied(&here, &[blob, other]) && !written.is_denied(&elsewhere, &[]));
        let tag = here.with_tag("v1".parse().unwrap());
        assert!(!written.has_manifest(&tag));
        written.note_manifest(&tag, other);
        assert!(written.has_manifest(&tag) && written.has_manifest(&here.with_digest(other)));
        assert!(written.is_other(&tag, &blob) && !written.is_other(&tag, &other));
        assert!(!written.is_other(&here.with_tag("v2".parse().unwrap()), &blob));
        assert!(written.has_blob(&here, &blob) && !written.has_blob(&elsewhere, &blob));
    }
}
