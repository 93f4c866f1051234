//! Handles the companions that a lock names, when its images are assembled or looked up again.
//!
//! Signing again at the source replaces a `.sig` or `.att` manifest, and garbage collection removes the old one. The
//! image of the lock then still exists, but its signature does not.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use super::Walk;
use super::attached::{self, FoundCompanions, is_refusal_to_say};
use super::tree::{Tree, is_withheld};
use crate::base::error::{self, Error, Fact, Result};
use crate::base::progress::Event;
use crate::content::{Need, Source};
use crate::oci::{Digest, Manifest, Reference, Repository};
use crate::pipeline::companion::Kind;
use crate::pipeline::lock::{Attached, Lock, LockedImage};

/// Which companions travel with the images of a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LockedCompanions {
    /// Exactly those of the lock; a missing one is an error.
    #[default]
    Locked,
    /// Those that refer to the images now; the export writes another lock.
    Today,
    /// No companions; the export writes another lock.
    None,
    /// Those of the lock that still exist; the lock stays as it is. For a repair, which needs only some of the content.
    #[value(skip)]
    Remaining,
}

/// Adds the companions of `locked` to `tree`. Returns what the lock should say about them.
///
/// # Errors
/// A companion that must exist is gone, or differs from the lock.
pub async fn add(walk: &Walk<'_>, locked: &LockedImage, tree: &mut Tree) -> Result<FoundCompanions> {
    let repository = &locked.reference.repository;
    match walk.companions {
        LockedCompanions::Today => {
            let found = attached::find(walk, repository, tree).await?;
            return retain_companions(walk, locked, tree, found).await;
        }
        LockedCompanions::None => return Ok(FoundCompanions::default()),
        LockedCompanions::Locked | LockedCompanions::Remaining => {}
    }
    let (mut left_out, mut lacks) = (HashSet::new(), false);
    for companion in locked.companions() {
        match add_locked(walk, locked, companion, tree).await {
            Ok(is_carried) if is_carried || walk.companions == LockedCompanions::Remaining => continue,
            Ok(_) => {}
            Err(error) if walk.leaves_withheld && is_withheld(&error) => tree.leave_out(companion.digest),
            Err(error) if walk.leaves_lost_companions && is_lost(&error) => {
                let name = walk.written.shown(&locked.reference);
                walk.events.report(Event::Warning(format!("image {name}: {}; it is left out", error.chain())));
                lacks = true;
            }
            Err(error) => return Err(error),
        }
        left_out.insert(companion.digest);
    }
    let mut attached = locked.attached.clone();
    attached.iter_mut().for_each(|all| all.retain(|companion| !left_out.contains(&companion.digest)));
    Ok(FoundCompanions { attached, unknown: locked.attached_unknown, lacks })
}

/// Adds one companion of a lock entry to the tree. Returns whether it exists and its subject is in the tree.
///
/// # Errors
/// Those of [`add`].
async fn add_locked(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached, tree: &mut Tree) -> Result<bool> {
    let Some(manifest) = read(walk, locked, companion).await? else { return Ok(false) };
    let is_remaining = walk.companions == LockedCompanions::Remaining;
    // The subject may belong to a withheld part of the image, or may itself be a companion that is gone.
    if (tree.is_partial() || is_remaining) && !tree.holds(companion.subject) {
        return Ok(false);
    }
    let declared = manifest.subject().map(|subject| subject.digest);
    match companion.problem(tree.holds(companion.subject), declared) {
        Some(problem) => Err(Error::damaged(problem)),
        None => tree.add(walk.source, &locked.reference.repository, manifest).await.map(|()| true),
    }
}

/// Whether a companion is gone, denied or wrong, so that waiting would not help.
fn is_lost(error: &Error) -> bool {
    error.is_absent_or_denied() || error.kind() == error::Kind::Damaged
}

/// The companions of images in an earlier lock or bundle.
#[derive(Debug, Default)]
pub struct FormerCompanions(HashMap<Reference, LockedImage>);

impl FormerCompanions {
    pub fn add(&mut self, lock: &Lock) {
        let with_companions = lock.images.iter().filter(|image| !image.companions().is_empty());
        self.0.extend(with_companions.map(|image| (image.reference.clone(), image.clone())));
    }

    pub fn get(&self, reference: &Reference) -> Option<&LockedImage> {
        self.0.get(reference)
    }
}

/// How many earlier companions were kept because a registry's current answer is incomplete.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeptCompanions {
    pub images: usize,
    pub companions: usize,
    /// Number of those that can no longer be read anywhere.
    pub lost: usize,
}

/// Keeps earlier companions if a registry did not list everything: adds to `found` the companions that the image has in
/// `former` and that still exist. A missing answer is no reason to drop a signature.
///
/// # Errors
/// An error that says nothing about the companion itself, such as a rate limit.
pub async fn retain_companions(
    walk: &Walk<'_>,
    former: &LockedImage,
    tree: &mut Tree,
    found: FoundCompanions,
) -> Result<FoundCompanions> {
    let FoundCompanions { attached, unknown, .. } = found;
    let mut attached = attached.unwrap_or_default();
    let (before, mut lost) = (attached.len(), 0);
    for companion in former.companions().iter().filter(|_| unknown) {
        // A tag's current manifest replaces the earlier one.
        let is_known =
            |own: &Attached| own.tag == companion.tag && (own.tag.is_some() || own.digest == companion.digest);
        // An earlier companion is not one of another image that has the tag now.
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
        *all = KeptCompanions { images: all.images + 1, companions: all.companions + kept, lost: all.lost + lost };
    }
    let is_answer = !unknown || !attached.is_empty();
    Ok(FoundCompanions { attached: is_answer.then_some(attached), unknown, lacks: false })
}

/// Adds a companion to the tree. Returns whether it exists.
async fn add_one(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached, tree: &mut Tree) -> Result<bool> {
    let repository = &locked.reference.repository;
    let Some(manifest) = walk.source.manifest(&repository.with_digest(companion.digest), Need::Required).await? else {
        return Ok(false);
    };
    let declared = manifest.subject().map(|subject| subject.digest);
    if companion.problem(tree.holds(companion.subject), declared).is_some() {
        return Ok(false);
    }
    tree.add(walk.source, repository, manifest.described_as(&companion.media_type)?).await?;
    Ok(true)
}

/// A registry's answer to a request for a manifest that a lock names.
pub(super) enum LockedAnswer {
    Manifest(Manifest),
    Nothing,
    /// A denial, which some registries also send for what they do not have.
    Denial(Error),
}

/// Turns an answer with a denial into [`LockedAnswer::Denial`].
///
/// # Errors
/// Any error that is not a denial.
pub(super) fn given(answer: Result<Option<Manifest>>) -> Result<LockedAnswer> {
    match answer {
        Err(error) if error.is_absent_or_denied() => Ok(LockedAnswer::Denial(error)),
        answer => answer.map(|found| found.map_or(LockedAnswer::Nothing, LockedAnswer::Manifest)),
    }
}

/// Content that a lock names and that the registry does not return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockedLost {
    #[error("{0} is gone")]
    Gone(Digest),
    #[error("{0} is denied")]
    Denied(Digest),
    /// A companion was replaced or deleted since: the image has other companions now.
    #[error("{0} is no longer attached")]
    CompanionChanged(Digest),
}

impl Fact for LockedLost {}

/// Returns the error about `digest`, which a registry no longer has or denies. `before` and `after` are the rest of the
/// sentence.
pub(super) fn lost(denial: Option<Error>, repository: &Repository, digest: Digest, before: &str, after: &str) -> Error {
    let fate = if denial.is_some() { "denies" } else { "no longer has" };
    let text = format!("{before}{} {fate} {digest}, which the lock names{after}", repository.registry());
    match denial {
        Some(denial) => denial.while_doing(text).with_fact(LockedLost::Denied(digest)),
        None => Error::new(error::Kind::NotFound, text).with_fact(LockedLost::Gone(digest)),
    }
}

async fn read(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached) -> Result<Option<Manifest>> {
    if walk.companions != LockedCompanions::Remaining {
        return self::companion(walk, locked, companion).await.map(Some);
    }
    let by_digest = locked.reference.repository.with_digest(companion.digest);
    match given(walk.source.manifest(&by_digest, Need::Required).await)? {
        LockedAnswer::Manifest(manifest) => Ok(Some(manifest.described_as(&companion.media_type)?)),
        LockedAnswer::Nothing => Ok(None),
        LockedAnswer::Denial(_) => {
            walk.denied_companions.lock().unwrap_or_else(PoisonError::into_inner).insert(by_digest);
            Ok(None)
        }
    }
}

/// See [`Walk::companion`].
pub(super) async fn companion(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached) -> Result<Manifest> {
    let by_digest = locked.reference.repository.with_digest(companion.digest);
    let denial = match given(walk.source.manifest(&by_digest, Need::Required).await)? {
        LockedAnswer::Manifest(manifest) => return Ok(manifest.described_as(&companion.media_type)?),
        LockedAnswer::Nothing => None,
        LockedAnswer::Denial(denial) => Some(denial),
    };
    Err(gone(walk, locked, companion, denial).await?)
}

/// Returns the error about a companion that is gone or denied, with what its tag refers to now.
async fn gone(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached, denial: Option<Error>) -> Result<Error> {
    let repository = &locked.reference.repository;
    let kind = Kind::of(companion.tag.as_ref(), companion.artifact_type.as_deref(), None);
    let is_denied = denial.is_some();
    let lost = |before: &str, after: &str| lost(denial, repository, companion.digest, before, after);
    let changed = LockedLost::CompanionChanged(companion.digest);
    let Some(tag) = &companion.tag else {
        let what = format!("its {kind}, a referrer of {},", companion.subject);
        return Ok(match is_denied {
            true => lost(&format!("{what}: "), ""),
            false => lost(&format!("{what} is gone: "), "").with_fact(changed),
        });
    };
    let what = format!("its {kind} (tag {tag})");
    match walk.source.resolve(&repository.with_tag(tag.clone()), Need::Required).await {
        Ok(Some(now)) if now.digest != companion.digest => {
            let after = format!("; the tag now refers to {}", now.digest);
            Ok(lost(&format!("{what} was replaced: "), &after).with_fact(changed))
        }
        Ok(None) => Ok(lost(&format!("{what} is gone: "), "; the tag is gone too").with_fact(changed)),
        Err(error) if !is_denied || matches!(error.kind(), error::Kind::RateLimited | error::Kind::Interrupted) => {
            Err(error)
        }
        Ok(Some(_)) | Err(_) => Ok(lost(&format!("{what} cannot be read: "), "")),
    }
}
