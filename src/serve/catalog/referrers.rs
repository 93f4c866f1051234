//! Finds the referrers of manifests. Only digests are kept; the description and annotations of a manifest are read on request,
//! and a response contains no more than fits into a manifest.
//!
//! A listed manifest may be missing or damaged. If it refers to the requested subject, the response is an error, because a
//! list without it would hide a signature. Other subjects get their lists. Its subject is known from the index, from its tag,
//! from an earlier read, or from what is left of its bytes. If none of these helps, the list carries a warning.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::base::error::{Error, Result};
use crate::base::progress::units::count;
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, digests_in};

use super::{Catalog, ServedManifest};
use crate::serve::answer::RequestRefusal;

/// The listed manifests by subject, determined on first use and updated from then on.
#[derive(Default)]
pub struct ReferrerTable(Mutex<Option<Table>>);

#[derive(Default)]
struct Table {
    by_subject: HashMap<Digest, BTreeSet<Digest>>,
    /// Listed manifests that could not be read, so that their subjects are unknown. They are tried again.
    unreadable: BTreeSet<Digest>,
}

/// Some of the referrers of a manifest.
#[derive(Default)]
pub struct ReferrerPage {
    pub manifests: Vec<Descriptor>,
    /// The last of these manifests, if others follow.
    pub more: Option<Digest>,
    /// Manifests of the repository that cannot be read and may refer to anything.
    pub unreadable: BTreeSet<Digest>,
}

/// What the table knows about the referrers of a manifest.
struct Known {
    /// Manifests of any repository that refer to it, listed now or earlier.
    referrers: Vec<Digest>,
    /// Manifests of the repository that cannot be read.
    unreadable: BTreeSet<Digest>,
}

/// Which referrers of a manifest are requested.
pub struct ReferrerQuery {
    /// The manifest's digest. It is looked up and never parsed: see [`Digest::known`].
    pub subject: String,
    /// The repository as the client spells it, and the registry that it asks a mirror for.
    pub name: String,
    pub registry: Option<String>,
    pub artifact_type: Option<String>,
    /// Only those after this digest.
    pub last: Option<String>,
}

impl ReferrerQuery {
    /// Whether a manifest belongs to the repository.
    fn is_here(&self, catalog: &Catalog, digest: &Digest) -> bool {
        catalog.names().lists(&self.name, self.registry.as_deref(), digest)
    }
}

impl ReferrerTable {
    fn lock(&self) -> MutexGuard<'_, Option<Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A manifest was listed.
    pub fn note(&self, digest: Digest, subject: Digest) {
        if let Some(table) = &mut *self.lock() {
            table.by_subject.entry(subject).or_default().insert(digest);
        }
    }

    /// Records that a listed manifest can no longer be read. Returns whether that is new.
    fn note_unreadable(&self, digest: Digest) -> bool {
        self.lock().as_mut().is_some_and(|table| table.unreadable.insert(digest))
    }

    fn of(&self, catalog: &Catalog, wanted: &ReferrerQuery) -> Known {
        // Locked during the search; a manifest that is listed meanwhile is recorded afterwards.
        let mut table = self.lock();
        let unread: HashSet<Digest> = match &*table {
            Some(table) => table.unreadable.iter().copied().filter(|digest| wanted.is_here(catalog, digest)).collect(),
            None => catalog.names().listed().collect(),
        };
        let table = table.get_or_insert_default();
        table.read(catalog, unread);
        let unreadable = table.unreadable.iter().copied().filter(|digest| wanted.is_here(catalog, digest)).collect();
        // If something refers to a digest, the digest is known by now.
        let subject = Digest::known(&wanted.subject).ok().flatten();
        let all = subject.and_then(|subject| table.by_subject.get(&subject));
        Known { referrers: all.into_iter().flatten().copied().collect(), unreadable }
    }
}

impl Table {
    /// Reads manifests, including those that could not be read before.
    fn read(&mut self, catalog: &Catalog, digests: HashSet<Digest>) {
        let (mut first, before) = (None, self.unreadable.len());
        for digest in digests {
            match read(catalog, &digest) {
                Ok(given) => {
                    self.unreadable.remove(&digest);
                    let outline = given.as_ref().and_then(ServedManifest::outline);
                    if let Some(subject) = outline.and_then(|(outline, _)| outline.subject()) {
                        self.by_subject.entry(subject.digest).or_default().insert(digest);
                    }
                }
                Err(error) if self.unreadable.insert(digest) => first = first.or(Some(error)),
                Err(_) => {}
            }
        }
        if let Some(error) = first {
            let unreadable = count(self.unreadable.len() - before, "listed manifest");
            let text = "cannot be read, so lists of referrers fail or are incomplete; the first";
            catalog.warn(format!("{unreadable} {text}: {}", error.chain()));
        }
    }
}

/// A listed manifest; `None` if it is no longer listed.
///
/// # Errors
/// Its content is missing, damaged or unreadable.
fn read(catalog: &Catalog, digest: &Digest) -> Result<Option<ServedManifest>> {
    match catalog.manifest(digest)? {
        None if catalog.names().is_listed(digest) => {
            Err(Error::damaged(format!("{digest} is listed, but its content is missing")))
        }
        given => Ok(given),
    }
}

/// The requested referrers, as many as fit into a manifest, and at least one if there is one.
///
/// # Errors
/// 500 if one of them is missing or damaged.
pub fn find_some(catalog: &Catalog, wanted: &ReferrerQuery) -> Result<ReferrerPage, RequestRefusal> {
    let Known { referrers, unreadable } = catalog.referrers.of(catalog, wanted);
    let (mut found, mut room) = (ReferrerPage::default(), MAX_MANIFEST_SIZE - 1024);
    for digest in unreadable {
        let is_known = referrers.contains(&digest);
        let refers = if is_known { Some(true) } else { refers_to(catalog, &digest, &wanted.subject) };
        match (refers, read(catalog, &digest)) {
            (Some(false), _) => {}
            (Some(true), Err(error)) => return Err(lost(&digest, wanted, &error)),
            _ => _ = found.unreadable.insert(digest),
        }
    }
    for digest in referrers {
        let is_behind = wanted.last.as_ref().is_none_or(|last| digest.to_string() > *last);
        if !is_behind || !wanted.is_here(catalog, &digest) {
            continue;
        }
        let given = match read(catalog, &digest) {
            Ok(given) => given,
            // It was readable before.
            Err(error) => {
                if catalog.referrers.note_unreadable(digest) {
                    catalog.warn(format!("lists of referrers that contain {digest} fail: {}", error.chain()));
                }
                return Err(lost(&digest, wanted, &error));
            }
        };
        let Some((outline, bytes)) = given.as_ref().and_then(ServedManifest::outline) else { continue };
        let described = outline.annotated(bytes);
        if wanted.artifact_type.is_some() && described.artifact_type() != wanted.artifact_type.as_deref() {
            continue;
        }
        let size = serde_json::to_vec(&described).map_or(0, |json| json.len() as u64 + 1);
        if size > room && !found.manifests.is_empty() {
            found.more = found.manifests.last().map(|last| last.digest);
            break;
        }
        room = room.saturating_sub(size);
        found.manifests.push(described);
    }
    Ok(found)
}

/// The key of a manifest's subject.
const SUBJECT: &[u8] = b"\"subject\"";
/// Maximum number of keys with this name to examine; each costs a pass over the rest.
const MOST_SUBJECTS: usize = 8;

/// Whether an unreadable manifest refers to `subject`; `None` if that is unknown.
fn refers_to(catalog: &Catalog, digest: &Digest, subject: &str) -> Option<bool> {
    let is_it = |all: &[Digest]| all.iter().any(|one| one.to_string() == subject);
    let named = catalog.names().subjects(digest);
    if !named.is_empty() {
        return Some(is_it(&named));
    }
    // Damage elsewhere does not affect the subject and its digest.
    let slice = catalog.slice(digest).ok().flatten()?;
    let bytes = slice.read_all(MAX_MANIFEST_SIZE).ok()?;
    // An annotation may have the same name.
    let places = bytes.windows(SUBJECT.len()).enumerate().filter(|(_, part)| *part == SUBJECT).map(|(at, _)| at);
    let first = |at: usize| digests_in(bytes.get(at..)?)?.first().map(ToString::to_string);
    places.take(MOST_SUBJECTS).filter_map(first).any(|first| first == subject).then_some(true)
}

fn lost(digest: &Digest, wanted: &ReferrerQuery, why: &Error) -> RequestRefusal {
    let text = format!(
        "the referrer {digest} of {} is listed, but cannot be read: {}; push or copy it again, or delete it",
        wanted.subject,
        why.chain()
    );
    RequestRefusal::new(500, "MANIFEST_INVALID", text).reported()
}
