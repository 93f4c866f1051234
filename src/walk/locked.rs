//! What becomes of the companions that a lock names, when its images are followed.
//!
//! Signing again at the source replaces a `.sig` or `.att` manifest, and garbage collection takes the old one: the image of
//! the lock is still there then, and its signature is not.

use super::Walk;
use super::attached::{self, Found};
use super::tree::Tree;
use crate::companion::Kind;
use crate::content::Source;
use crate::error::{self, Error, Result};
use crate::lock::{Attached, LockedImage};
use crate::oci::Manifest;

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
        LockedCompanions::Today => return attached::find(walk, repository, tree).await,
        LockedCompanions::None => return Ok(Found::default()),
        LockedCompanions::Locked | LockedCompanions::Remaining => {}
    }
    for companion in locked.companions() {
        let Some(manifest) = read(walk, locked, companion).await? else { continue };
        let declared = manifest.subject().map(|subject| subject.digest);
        let is_remaining = walk.companions == LockedCompanions::Remaining;
        match companion.fault(tree.holds(companion.subject), declared) {
            // Its subject is a companion that is gone.
            Some(_) if is_remaining && !tree.holds(companion.subject) => continue,
            Some(fault) => return Err(Error::damaged(fault)),
            None => tree.add(walk.source, repository, manifest).await?,
        }
    }
    Ok(Found { attached: locked.attached.clone(), unknown: locked.attached_unknown })
}

async fn read(walk: &Walk<'_>, locked: &LockedImage, companion: &Attached) -> Result<Option<Manifest>> {
    let by_digest = locked.reference.repository.with_digest(companion.digest);
    match walk.source.manifest(&by_digest).await? {
        None if walk.companions == LockedCompanions::Remaining => Ok(None),
        None => Err(gone(walk, locked, companion).await?),
        found => Ok(found),
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
