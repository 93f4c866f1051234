//! Which manifests speak of which. Only digests are kept: what a manifest says of itself, its annotations included, is read when
//! it is asked for, and an answer has no more of it than fits a manifest.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE};
use crate::progress::units::count;

use super::shelf::{Given, Shelf};

/// The listed manifests by their subject: found out when first asked for, then kept up.
#[derive(Default)]
pub struct Referrers(Mutex<Option<Table>>);

#[derive(Default)]
struct Table {
    by_subject: HashMap<Digest, BTreeSet<Digest>>,
    /// Listed manifests that could not be read, so their subjects are unknown. They are tried again.
    unreadable: BTreeSet<Digest>,
}

/// Some of the referrers of one manifest.
#[derive(Default)]
pub struct Found {
    pub manifests: Vec<Descriptor>,
    /// The last of these manifests, if others follow.
    pub more: Option<Digest>,
    /// Manifests of the repository that cannot be read and may be referrers.
    pub unreadable: BTreeSet<Digest>,
}

/// Which of the referrers of a manifest are wanted.
pub struct Wanted {
    /// The manifest's digest. It is looked up and never parsed: see [`Digest::known`].
    pub subject: String,
    /// The repository, as the client spells it, and the registry it asks a mirror for.
    pub name: String,
    pub registry: Option<String>,
    pub artifact_type: Option<String>,
    /// Those behind this digest.
    pub last: Option<String>,
}

impl Wanted {
    /// Whether a manifest counts as one of the repository.
    fn is_here(&self, shelf: &Shelf, digest: &Digest) -> bool {
        shelf.names().lists(&self.name, self.registry.as_deref(), digest)
    }
}

impl Referrers {
    fn lock(&self) -> MutexGuard<'_, Option<Table>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A manifest was listed.
    pub fn note(&self, digest: Digest, subject: Digest) {
        if let Some(table) = &mut *self.lock() {
            table.by_subject.entry(subject).or_default().insert(digest);
        }
    }

    /// A listed manifest can no longer be read. Returns whether that is new.
    fn note_unreadable(&self, digest: Digest) -> bool {
        self.lock().as_mut().is_some_and(|table| table.unreadable.insert(digest))
    }

    /// The manifests of any repository that speak of the subject, listed now or before; and those of the repository that cannot be
    /// read.
    fn of(&self, shelf: &Shelf, wanted: &Wanted) -> (Vec<Digest>, BTreeSet<Digest>) {
        // Locked while it is found out: a manifest that is listed meanwhile is noted afterwards.
        let mut table = self.lock();
        let unread: HashSet<Digest> = match &*table {
            Some(table) => table.unreadable.iter().copied().filter(|digest| wanted.is_here(shelf, digest)).collect(),
            None => shelf.names().listed().collect(),
        };
        let table = table.get_or_insert_default();
        table.read(shelf, unread);
        let unreadable = table.unreadable.iter().copied().filter(|digest| wanted.is_here(shelf, digest)).collect();
        // Where something speaks of a digest, it is known by now.
        let subject = Digest::known(&wanted.subject).ok().flatten();
        let all = subject.and_then(|subject| table.by_subject.get(&subject));
        let is_wanted = |digest: &Digest| wanted.last.as_ref().is_none_or(|last| digest.to_string() > *last);
        (all.into_iter().flatten().copied().filter(is_wanted).collect(), unreadable)
    }
}

impl Table {
    /// Reads manifests, those that could not be read before among them.
    fn read(&mut self, shelf: &Shelf, digests: HashSet<Digest>) {
        let (mut first, before) = (None, self.unreadable.len());
        for digest in digests {
            match shelf.manifest(&digest) {
                Ok(given) => {
                    self.unreadable.remove(&digest);
                    let outline = given.as_ref().and_then(Given::outline);
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
            let text = "cannot be read, so lists of referrers may be incomplete; the first";
            shelf.warn(format!("{unreadable} {text}: {}", error.chain()));
        }
    }
}

/// The referrers that are wanted, as many as fit a manifest, at least one if there is one.
pub fn find_some(shelf: &Shelf, wanted: &Wanted) -> Found {
    let (all, unreadable) = shelf.referrers.of(shelf, wanted);
    let (mut found, mut room) = (Found { unreadable, ..Found::default() }, MAX_MANIFEST_SIZE - 1024);
    for digest in all {
        if !wanted.is_here(shelf, &digest) {
            continue;
        }
        let given = match shelf.manifest(&digest) {
            Ok(given) => given,
            // It was readable before.
            Err(error) => {
                found.unreadable.insert(digest);
                if shelf.referrers.note_unreadable(digest) {
                    shelf.warn(format!("a list of referrers lacks {digest}: {}", error.chain()));
                }
                continue;
            }
        };
        let Some((outline, bytes)) = given.as_ref().and_then(Given::outline) else { continue };
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
    found
}
