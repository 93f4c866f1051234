//! Which manifests speak of which. Only digests are kept: what a manifest says of itself, its annotations included, is read when
//! it is asked for, and an answer has no more of it than fits a manifest.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::oci::{Descriptor, Digest, MAX_MANIFEST_SIZE};

use super::shelf::{Given, Shelf};

/// The listed manifests by their subject: found out when first asked for, then kept up.
#[derive(Default)]
pub struct Referrers(Mutex<Option<Subjects>>);

type Subjects = HashMap<Digest, BTreeSet<Digest>>;

/// Some of the referrers of one manifest.
#[derive(Default)]
pub struct Found {
    pub manifests: Vec<Descriptor>,
    /// The last of these manifests, if others follow.
    pub more: Option<Digest>,
}

/// Which of the referrers of a manifest are wanted.
pub struct Wanted<'a> {
    /// The repository, as the client spells it, and the registry it asks a mirror for.
    pub name: &'a str,
    pub registry: Option<&'a str>,
    pub artifact_type: Option<&'a str>,
    /// Those behind this one.
    pub last: Option<Digest>,
}

impl Referrers {
    fn lock(&self) -> MutexGuard<'_, Option<Subjects>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A manifest was listed.
    pub fn note(&self, digest: Digest, subject: Digest) {
        if let Some(subjects) = &mut *self.lock() {
            subjects.entry(subject).or_default().insert(digest);
        }
    }

    /// The manifests that speak of `subject`, of any repository, listed now or before; those behind `last`.
    fn of(&self, shelf: &Shelf, subject: &Digest, last: Option<Digest>) -> Result<Vec<Digest>> {
        // Locked while it is found out: a manifest that is listed meanwhile is noted afterwards.
        let mut subjects = self.lock();
        let subjects = match &mut *subjects {
            Some(subjects) => subjects,
            none => none.insert(find(shelf)?),
        };
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(subjects.get(subject).into_iter().flat_map(|all| all.range((from, Bound::Unbounded))).copied().collect())
    }
}

fn find(shelf: &Shelf) -> Result<Subjects> {
    let listed: HashSet<Digest> = shelf.names().listed().collect();
    let mut subjects = Subjects::new();
    for digest in listed {
        let given = shelf.manifest(&digest)?;
        if let Some(subject) = given.as_ref().and_then(Given::outline).and_then(|(outline, _)| outline.subject()) {
            subjects.entry(subject.digest).or_default().insert(digest);
        }
    }
    Ok(subjects)
}

/// The referrers of `subject` that are wanted, as many as fit a manifest, at least one if there is one.
///
/// # Errors
/// A listed manifest cannot be read.
pub fn find_some(shelf: &Shelf, subject: &Digest, wanted: &Wanted<'_>) -> Result<Found> {
    let (mut found, mut room) = (Found::default(), MAX_MANIFEST_SIZE - 1024);
    for digest in shelf.referrers.of(shelf, subject, wanted.last)? {
        if !shelf.names().lists(wanted.name, wanted.registry, &digest) {
            continue;
        }
        let given = shelf.manifest(&digest)?;
        let Some((outline, bytes)) = given.as_ref().and_then(Given::outline) else { continue };
        let described = outline.annotated(bytes);
        if wanted.artifact_type.is_some_and(|wanted| described.artifact_type() != Some(wanted)) {
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
