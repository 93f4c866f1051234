//! What becomes of the companions that a lock names, when its images are followed or looked up again.
//!
//! Signing again at the source replaces a `.sig` or `.att` manifest, and garbage collection takes the old one: the image of
//! the lock is still there then, and its signature is not.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use super::Walk;
use super::attached::{self, Found, is_refusal_to_say};
use super::tree::{Tree, is_withheld};
use crate::companion::Kind;
use crate::content::Source;
use crate::error::{self, Error, Result};
use crate::lock::{Attached, Lock, LockedImage};
use crate::oci::{Manifest, Reference};

/// Which companions travel with the images of a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LockedCompanions {
    /// Exactly those of the lock; one that is gone is an error.
    #[default]
    Locked,
    /// Those that are attached today: the lock becomes another one.
    Today,
    /// None: the lock becomes another one.
    None,
    /// Those of the lock that are still there. The lock stays as it is: for a repair, which needs only some of its content.
    #[value(skip)]
    Remaining,
}

/// Adds the companions of `locked` to `tree`; returns what the lock is to say of them.
///
/// # Errors
/// One is gone or is no longer what the lock says, where it has to be there.
pub async fn add(walk: &Walk<'_>, locked: &LockedImage, tree: &mut Tree) -> Result<Found> {
    let repository = &locked.reference.repository;
    match walk.companions {
        LockedCompanions::Today => {
            let found = attached::find(walk, repository, tree).await?;
            return keep(walk, locked, tree, found).await;
        }
        LockedCompanions::None => return Ok(Found::default()),
        LockedCompanions::Locked | LockedCompanions::Remaining => {}
    }
    let mut left_out = HashSet::new();
    for companion in locked.companions() {
        let read = match read(walk, locked, companion).await {
            Err(error) if walk.leaves_withheld && is_withheld(&error) => {
                left_out.insert(companion.digest);
                continue;
            }
            read => read?,
        };
        let Some(manifest) = read else { continue };
        // Whether its subject belongs to the image cannot be said.
        if tree.is_partial() && !tree.holds(companion.subject) {
            left_out.insert(companion.digest);
            continue;
        }
        let declared = manifest.subject().map(|subject| subject.digest);
        let is_remaining = walk.companions == LockedCompanions::Remaining;
        match companion.fault(tree.holds(companion.subject), declared) {
            // Its subject is a companion that is gone.
            Some(_) if is_remaining && !tree.holds(companion.subject) => continue,
            Some(fault) => return Err(Error::damaged(fault)),
            None => tree.add(walk.source, repository, manifest).await?,
        }
    }
    let mut attached = locked.attached.clone();
    attached.iter_mut().for_each(|all| all.retain(|companion| !left_out.contains(&companion.digest)));
    Ok(Found { attached, unknown: locked.attached_unknown })
}

/// The companions that images have in an earlier lock or bundle.
#[derive(Debug, Default)]
pub struct Former(HashMap<Reference, LockedImage>);

impl Former {
    pub fn add(&mut self, lock: &Lock) {
        let with_companions = lock.images.iter().filter(|image| !image.companions().is_empty());
        self.0.extend(with_companions.map(|image| (image.reference.clone(), image.clone())));
    }

    pub fn get(&self, reference: &Reference) -> Option<&LockedImage> {
        self.0.get(reference)
    }
}

/// What was kept of earlier companions because today's answer is not whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    pub images: usize,
    pub companions: usize,
    /// Those that can be read nowhere any more.
    pub lost: usize,
}

/// Adds to `found`, where a registry did not say all that is attached, the companions that the image has in `former` and that are
/// still there: no answer is no reason to drop a signature.
///
/// # Errors
/// What keeps anything from being read.
pub async fn keep(walk: &Walk<'_>, former: &LockedImage, tree: &mut Tree, found: Found) -> Result<Found> {
    let Found { attached, unknown } = found;
    let mut attached = attached.unwrap_or_default();
    let (before, mut lost) = (attached.len(), 0);
    for companion in former.companions().iter().filter(|_| unknown) {
        // What a tag means today replaces what it meant before.
        let is_known =
            |own: &Attached| own.tag == companion.tag && (own.tag.is_some() || own.digest == companion.digest);
        // Of another image that has the tag now it says nothing.
        if attached.iter().any(is_known) || !tree.holds(companion.subject) {
            continue;
        }
        let mut with = tree.clone();
        match add_one(walk, former, companion, &mut with).await {
            Ok(true) => {
                *tree = with;
                attached.push(companion.clone());
            }
            Ok(false) => lost += 1,
            Err(error) if is_refusal_to_say(&error) => lost += 1,
            Err(error) => return Err(error),
        }
    }
    let kept = attached.len() - before;
    if kept + lost > 0 {
        let mut all = walk.kept_companions.lock().unwrap_or_else(PoisonError::into_inner);
        *all = Kept { images: all.images + 1, companions: all.companions + kept, lost: all.lost + lost };
    }
    let is_answer = !unknown || !attached.is_empty();
    Ok(Found { attached: is_answer.then_some(attached), unknown })
}

/// Adds a companion to the tree; whether it is there.
async fn add_one(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached, tree: &mut Tree) -> Result<bool> {
    let repository = &locked.reference.repository;
    let Some(manifest) = walk.source.manifest(&repository.with_digest(companion.digest)).await? else {
        return Ok(false);
    };
    let declared = manifest.subject().map(|subject| subject.digest);
    if companion.fault(tree.holds(companion.subject), declared).is_some() {
        return Ok(false);
    }
    tree.add(walk.source, repository, manifest.described_as(&companion.media_type)?).await?;
    Ok(true)
}

async fn read(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached) -> Result<Option<Manifest>> {
    let by_digest = locked.reference.repository.with_digest(companion.digest);
    match walk.source.manifest(&by_digest).await? {
        None if walk.companions == LockedCompanions::Remaining => Ok(None),
        None => Err(gone(walk, locked, companion).await?),
        Some(manifest) => manifest.described_as(&companion.media_type).map(Some),
    }
}

/// Says which companion is gone, and what its tag means now.
async fn gone(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached) -> Result<Error> {
    let repository = &locked.reference.repository;
    let kind = Kind::of(companion.tag.as_ref(), companion.artifact_type.as_deref(), None);
    let (registry, digest) = (repository.registry(), companion.digest);
    let text = match &companion.tag {
        None => {
            let subject = companion.subject;
            format!(
                "its {kind}, a referrer of {subject}, is gone since: {registry} no longer has {digest}, which the lock names"
            )
        }
        Some(tag) => match walk.source.resolve(&repository.with_tag(tag.clone())).await? {
            Some(now) => format!(
                "its {kind} (tag {tag}) was replaced since: {registry} no longer has {digest}, which the lock names; the tag now \
                 means {}",
                now.digest
            ),
            None => format!(
                "its {kind} (tag {tag}) is gone since: {registry} no longer has {digest}, which the lock names, nor the tag"
            ),
        },
    };
    Ok(Error::new(error::Kind::NotFound, text))
}
