//! What earlier answers have shown about one registry and its repositories.

mod mounts;
mod proofs;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::Url;
use tokio::sync::OnceCell;

use super::auth::Auth;
use super::heads::Heads;
use super::questions::Answers;
use super::read_after_write::RecentWrites;
use super::spent::Spent;
use crate::base::error::Error;
use crate::credentials::Store;
use crate::oci::{Digest, Reference, Repository, Tag};
use mounts::Mounts;
use proofs::Proofs;

/// The smallest part of a blob that is worth a request, in bytes: nginx allows bodies of this size by default.
pub(super) const SMALLEST_CHUNK: u64 = 1024 * 1024;

/// After this many manifests that a registry accepted but does not have, gapferry no longer waits in full for another.
const MOST_SWALLOWED: usize = 2;

/// The holder of the lock may change what the lock protects.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Filled in once, by the first holder of the lock.
type Known = Arc<tokio::sync::Mutex<Option<ReferrersApi>>>;

/// The state of a repository's referrers API.
pub(super) enum ReferrersApi {
    Present,
    Absent,
    /// The API refused to answer, with the reason.
    Unusable(Error),
}

/// See the module documentation. One for each registry.
#[derive(Default)]
pub(super) struct Memory {
    /// Which repositories have a referrers API. An entry is locked while the first request determines it.
    pub referrers_apis: Mutex<HashMap<Repository, Known>>,
    /// How the registry answers questions that an image can do without.
    pub answers: Answers,
    /// Held by the first request to the referrers API of this registry. Its outcome serves all requests that wait for
    /// the lock.
    pub first_referrers: tokio::sync::Mutex<()>,
    /// For repositories whose tags were listed: the tags named after a digest.
    pub companion_tags: Mutex<HashMap<Repository, HashSet<Tag>>>,
    /// Tags that were read. A list that lacks one of them is incomplete.
    pub answered_tags: Mutex<HashMap<Repository, HashSet<Tag>>>,
    /// Upload sessions that refused mounts have opened.
    pub sessions: Mutex<HashMap<(Repository, Digest), Url>>,
    pub written: RecentWrites,
    pub mounts: Mounts,
    pub proofs: Proofs,
    pub spent: Spent,
    /// The registry refused PATCH as such: uploads go in one request.
    patchless: AtomicBool,
    /// The registry refused content in the closing PUT as such: uploads use PATCH.
    wholeless: AtomicBool,
    /// The largest body to try, in bytes, after a larger one was refused; 0 while none was refused.
    chunk: AtomicU64,
    /// The minimum size of a chunk that the registry states, in bytes; 0 if it states none.
    least_chunk: AtomicU64,
    pub manifest_heads: Heads,
    pub blob_heads: Heads,
    /// The length of the longest page of tags, in entries: a server that truncates lists does not truncate a shorter
    /// one.
    pub longest_page: AtomicUsize,
    /// Anonymous authentication for the servers that the registry redirects to, by origin.
    elsewhere: Mutex<HashMap<String, Arc<Auth>>>,
    /// Whether repositories accept uploads, for those where a look-up was denied.
    uploads: Mutex<HashMap<Repository, Arc<OnceCell<crate::base::error::Result<()>>>>>,
    denied: AtomicBool,
    /// A look-up failed in every try, and its object counts as absent.
    stumbles: AtomicBool,
    /// A notice has reported that the registry does not answer as Harbor's API.
    pub no_api: AtomicBool,
    /// Held while the fallback list of a subject is read, changed and written.
    pub fallback_lists: Mutex<HashMap<(Repository, Digest), Turn>>,
    /// Manifests that the registry accepted but denied in every try, since one that it first denied last turned up.
    swallowed: AtomicUsize,
    /// Fallback lists that cannot be read or changed, with the reason.
    untouchable: Mutex<HashMap<Reference, Error>>,
}

impl Memory {
    pub fn fallback_list(&self, repository: &Repository, subject: &Digest) -> Turn {
        let mut lists = self.fallback_lists.lock().unwrap_or_else(PoisonError::into_inner);
        // Only lists that are in use keep an entry.
        lists.retain(|_, turn| Arc::strong_count(turn) > 1);
        lists.entry((repository.clone(), *subject)).or_default().clone()
    }

    /// Why a fallback list must not be written, if reading or changing it failed before.
    pub fn left_alone(&self, list: &Reference) -> Option<Error> {
        self.untouchable.lock().unwrap_or_else(PoisonError::into_inner).get(list).cloned()
    }

    pub fn leave_alone(&self, list: &Reference, why: &Error) {
        self.untouchable.lock().unwrap_or_else(PoisonError::into_inner).insert(list.clone(), why.clone());
    }

    /// The anonymous authentication for a server that the registry redirects to.
    pub fn anonymous(&self, registry: &str, url: &Url) -> Arc<Auth> {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let auth = elsewhere.entry(url.origin().ascii_serialization());
        auth.or_insert_with(|| Arc::new(Auth::new(registry, Store::anonymous()))).clone()
    }

    /// Whether a repository accepts uploads. The first caller fills the cell.
    pub fn takes_uploads(&self, repository: &Repository) -> Arc<OnceCell<crate::base::error::Result<()>>> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.entry(repository.clone()).or_default().clone()
    }

    /// Whether this is the first denial at this registry.
    pub fn is_first_denial(&self) -> bool {
        !self.denied.swap(true, Ordering::Relaxed)
    }

    /// Whether look-ups of missing objects fail at this registry, which makes more than one try pointless.
    pub fn stumbles(&self) -> bool {
        self.stumbles.load(Ordering::Relaxed)
    }

    pub fn note_stumble(&self) {
        self.stumbles.store(true, Ordering::Relaxed);
    }

    /// Whether the registry accepts manifests that it then does not have, which makes it pointless to wait for another
    /// one.
    pub fn swallows(&self) -> bool {
        self.swallowed.load(Ordering::Relaxed) >= MOST_SWALLOWED
    }

    pub fn note_swallowed(&self) {
        self.swallowed.fetch_add(1, Ordering::Relaxed);
    }

    /// A manifest that the registry first denied turned up.
    pub fn note_late_answer(&self) {
        self.swallowed.store(0, Ordering::Relaxed);
    }

    pub fn referrers_api(&self, repository: &Repository) -> Known {
        let mut known = self.referrers_apis.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(repository.clone()).or_default().clone()
    }

    /// Remembers which of a repository's `tags` are named after a digest, and so may refer to a manifest.
    pub fn note_tags<'a>(&self, repository: &Repository, tags: impl IntoIterator<Item = &'a Tag>) {
        let companions = tags.into_iter().filter(|tag| tag.as_str().starts_with("sha")).cloned().collect();
        let mut known = self.companion_tags.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(repository.clone(), companions);
    }

    /// Remembers that the registry has this tag.
    pub fn note_answered(&self, reference: &Reference) {
        self.answers.note_given(reference);
        if let (Some(tag), None) = (&reference.tag, &reference.digest) {
            let mut answered = self.answered_tags.lock().unwrap_or_else(PoisonError::into_inner);
            answered.entry(reference.repository.clone()).or_default().insert(tag.clone());
        }
    }

    /// Forgets a tag that the registry no longer has.
    pub fn forget_answered(&self, reference: &Reference) {
        let mut answered = self.answered_tags.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(tags), Some(tag)) = (answered.get_mut(&reference.repository), &reference.tag) {
            tags.remove(tag);
        }
    }

    /// The tags of a repository that were read in this run.
    pub fn answered_tags(&self, repository: &Repository) -> Vec<Tag> {
        let answered = self.answered_tags.lock().unwrap_or_else(PoisonError::into_inner);
        answered.get(repository).into_iter().flatten().cloned().collect()
    }

    /// Whether the repository's list lacks a tag that is named after a digest; `false` if there is no list.
    pub fn lacks_tag(&self, repository: &Repository, tag: &Tag) -> bool {
        let known = self.companion_tags.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(repository).is_some_and(|tags| !tags.contains(tag))
    }

    pub fn refuses_patch(&self) -> bool {
        self.patchless.load(Ordering::Relaxed)
    }

    /// The largest body of a request, in bytes.
    pub fn chunk(&self) -> u64 {
        match self.chunk.load(Ordering::Relaxed) {
            0 => u64::MAX,
            chunk => chunk,
        }
    }

    /// Notes that a body of `length` bytes was too large. `false` if a smaller one is not worth trying.
    pub fn is_too_large(&self, length: u64) -> bool {
        let least = SMALLEST_CHUNK.max(self.least_chunk.load(Ordering::Relaxed));
        if length <= least {
            return false;
        }
        // Another upload may have found a lower limit.
        let chunk = (length / 2).max(least).min(self.chunk());
        self.chunk.store(chunk, Ordering::Relaxed);
        true
    }

    /// Notes the minimum size of every chunk but the last (distribution-spec, `OCI-Chunk-Min-Length`).
    pub fn note_least_chunk(&self, bytes: u64) {
        self.least_chunk.store(bytes, Ordering::Relaxed);
    }

    pub fn set_refuses_patch(&self) {
        self.patchless.store(true, Ordering::Relaxed);
    }

    pub fn refuses_whole(&self) -> bool {
        self.wholeless.load(Ordering::Relaxed)
    }

    pub fn set_refuses_whole(&self) {
        self.wholeless.store(true, Ordering::Relaxed);
    }

    pub fn keep_session(&self, repository: &Repository, blob: &Digest, location: Url) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert((repository.clone(), *blob), location);
    }

    /// Takes the sessions that no upload has used.
    pub fn take_sessions(&self) -> HashMap<(Repository, Digest), Url> {
        std::mem::take(&mut *self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn take_session(&self, repository: &Repository, blob: &Digest) -> Option<Url> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&(repository.clone(), *blob))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_swallows_manifests_once_two_never_turned_up_and_none_turned_up_late() {
        let memory = Memory::default();
        memory.note_swallowed();
        memory.note_late_answer();
        memory.note_swallowed();
        assert!(!memory.swallows(), "another replica had the first");
        memory.note_swallowed();
        assert!(memory.swallows());
    }
}
