//! What earlier answers taught about one registry and its repositories.

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

/// The smallest part of a blob that is worth a request, in bytes: what nginx allows where nobody has set a limit.
pub(super) const SMALLEST_CHUNK: u64 = 1024 * 1024;

/// So many manifests that a registry took and does not have are waited for in full.
const MOST_SWALLOWED: usize = 2;

/// Its holder may change what it protects.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Something that is found out once, by its first holder.
type Known = Arc<tokio::sync::Mutex<Option<ReferrersApi>>>;

/// What was found out about the referrers API of a repository.
pub(super) enum ReferrersApi {
    Present,
    Absent,
    /// It refused to answer, and why.
    Unusable(Error),
}

/// What earlier answers taught about a registry's repositories.
#[derive(Default)]
pub(super) struct Memory {
    /// Which repositories have a referrers API; locked while the first question finds it out.
    pub referrers_apis: Mutex<HashMap<Repository, Known>>,
    /// What it makes of questions that an image can do without.
    pub answers: Answers,
    /// Held by the first question to the referrers API of this registry, which tells for all that wait here.
    pub first_referrers: tokio::sync::Mutex<()>,
    /// Of repositories whose tags were listed: those named after a digest.
    pub companion_tags: Mutex<HashMap<Repository, HashSet<Tag>>>,
    /// Tags that were read: a list without them is not whole.
    pub answered_tags: Mutex<HashMap<Repository, HashSet<Tag>>>,
    /// Upload sessions that a refused mount has opened.
    pub sessions: Mutex<HashMap<(Repository, Digest), Url>>,
    pub written: RecentWrites,
    pub mounts: Mounts,
    pub proofs: Proofs,
    pub spent: Spent,
    /// PATCH was refused as such: uploads go in one request.
    patchless: AtomicBool,
    /// Content in the closing PUT was refused as such: uploads go by PATCH.
    wholeless: AtomicBool,
    /// Bytes that a request was refused for having, and a smaller one may have; 0 as long as none was.
    chunk: AtomicU64,
    /// The least bytes that the registry wants in a chunk; 0 if it does not say.
    least_chunk: AtomicU64,
    pub manifest_heads: Heads,
    pub blob_heads: Heads,
    /// Entries of the longest page of tags: a server that cuts lists cuts none that is shorter.
    pub longest_page: AtomicUsize,
    /// By origin: servers that the registry redirects to, as anybody may read them.
    elsewhere: Mutex<HashMap<String, Arc<Auth>>>,
    /// Whether repositories take uploads, where a look into them was denied.
    uploads: Mutex<HashMap<Repository, Arc<OnceCell<crate::base::error::Result<()>>>>>,
    denied: AtomicBool,
    /// A look-up has failed to its last try, and what was looked up counts as absent.
    stumbles: AtomicBool,
    /// The registry's API beside the protocol did not answer, as was said.
    pub no_api: AtomicBool,
    /// Held while the fallback list of a subject is read, changed and written.
    pub fallback_lists: Mutex<HashMap<(Repository, Digest), Turn>>,
    /// Manifests that it took and denied to the last try, since one that it denied at first has come.
    swallowed: AtomicUsize,
    /// Fallback lists that cannot be read or changed, and why.
    untouchable: Mutex<HashMap<Reference, Error>>,
}

impl Memory {
    pub fn fallback_list(&self, repository: &Repository, subject: &Digest) -> Turn {
        let mut lists = self.fallback_lists.lock().unwrap_or_else(PoisonError::into_inner);
        // Only what is under way has an entry.
        lists.retain(|_, turn| Arc::strong_count(turn) > 1);
        lists.entry((repository.clone(), *subject)).or_default().clone()
    }

    /// Why a fallback list is not to be written, if it could not be before.
    pub fn left_alone(&self, list: &Reference) -> Option<Error> {
        self.untouchable.lock().unwrap_or_else(PoisonError::into_inner).get(list).cloned()
    }

    pub fn leave_alone(&self, list: &Reference, why: &Error) {
        self.untouchable.lock().unwrap_or_else(PoisonError::into_inner).insert(list.clone(), why.clone());
    }

    /// Who we are to a server that the registry redirects to: anybody.
    pub fn anonymous(&self, registry: &str, url: &Url) -> Arc<Auth> {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let auth = elsewhere.entry(url.origin().ascii_serialization());
        auth.or_insert_with(|| Arc::new(Auth::new(registry, Store::anonymous()))).clone()
    }

    /// Whether a repository takes uploads, to be found out once.
    pub fn takes_uploads(&self, repository: &Repository) -> Arc<OnceCell<crate::base::error::Result<()>>> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.entry(repository.clone()).or_default().clone()
    }

    /// Whether nothing was denied before.
    pub fn is_first_denial(&self) -> bool {
        !self.denied.swap(true, Ordering::Relaxed)
    }

    /// Whether look-ups of what is not there fail here, so that more than one try is of no use.
    pub fn stumbles(&self) -> bool {
        self.stumbles.load(Ordering::Relaxed)
    }

    pub fn note_stumble(&self) {
        self.stumbles.store(true, Ordering::Relaxed);
    }

    /// Whether it takes manifests that it then does not have, so that waiting for another one is of no use.
    pub fn swallows(&self) -> bool {
        self.swallowed.load(Ordering::Relaxed) >= MOST_SWALLOWED
    }

    pub fn note_swallowed(&self) {
        self.swallowed.fetch_add(1, Ordering::Relaxed);
    }

    /// What it denied at first was there after all.
    pub fn note_late_answer(&self) {
        self.swallowed.store(0, Ordering::Relaxed);
    }

    pub fn referrers_api(&self, repository: &Repository) -> Known {
        let mut known = self.referrers_apis.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(repository.clone()).or_default().clone()
    }

    /// Remembers which of a repository's `tags` may speak of a manifest.
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

    /// The registry no longer has this tag.
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

    /// Whether a tag named after a digest is missing in the repository's list; `false` when there is no list.
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

    /// A body of `length` bytes was too large. `false`: a smaller one is not worth trying.
    pub fn is_too_large(&self, length: u64) -> bool {
        let least = SMALLEST_CHUNK.max(self.least_chunk.load(Ordering::Relaxed));
        if length <= least {
            return false;
        }
        // Another upload may have found out more.
        let chunk = (length / 2).max(least).min(self.chunk());
        self.chunk.store(chunk, Ordering::Relaxed);
        true
    }

    /// The registry wants no chunk but the last to have fewer bytes (distribution-spec, `OCI-Chunk-Min-Length`).
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

    /// Those that nobody has used.
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
    fn a_registry_swallows_manifests_once_two_have_not_come_and_none_was_late() {
        let memory = Memory::default();
        memory.note_swallowed();
        memory.note_late_answer();
        memory.note_swallowed();
        assert!(!memory.swallows(), "another replica had the first");
        memory.note_swallowed();
        assert!(memory.swallows());
    }
}
