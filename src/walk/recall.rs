//! Images of an earlier lock that are taken over without a question, because their tags are said never to move.

use std::collections::HashMap;

use super::{Origin, Walk, Wanted, check_has};
use crate::graph::Image;
use crate::lock::{AbsentReason, Lock, LockedImage};
use crate::oci::{Reference, Role, media_type};

/// Entries of earlier locks, by what was asked for.
#[derive(Default)]
pub struct Known(HashMap<Reference, LockedImage>);

impl Known {
    /// Of `locks`, the entries whose tag `is_immutable`; of several for one reference, that of the first lock.
    pub fn new(locks: impl IntoIterator<Item = Lock>, is_immutable: impl Fn(&str) -> bool) -> Known {
        let mut known = HashMap::new();
        for image in locks.into_iter().flat_map(|lock| lock.images) {
            if image.reference.tag.as_ref().is_some_and(|tag| is_immutable(tag.as_str())) {
                known.entry(image.reference.clone()).or_insert(image);
            }
        }
        Known(known)
    }
}

/// The entry an earlier lock has for exactly this.
pub fn entry(walk: &Walk<'_>, wanted: &Wanted) -> Option<LockedImage> {
    let known = walk.known.0.get(&wanted.reference)?;
    fits(walk, known, wanted).then(|| LockedImage { rename: wanted.rename.clone(), ..known.clone() })
}

/// The image of that entry, from what is at hand, else by digest. `None`: it has to be asked about after all.
pub async fn image(walk: &Walk<'_>, wanted: &Wanted) -> Option<Image> {
    let locked = entry(walk, wanted)?;
    let by_digest = locked.reference.repository.with_digest(locked.digest);
    // What was selected from an index is in a bundle only: the registry has the whole.
    let origin = if walk.source.is_at_hand(&by_digest).await { Origin::Bundle } else { Origin::Registry };
    match walk.assemble_inner(&locked, origin).await {
        Ok(image) => (walk.options.foreign_layers || !carries_foreign(&image)).then_some(image),
        Err(error) => {
            tracing::debug!("{}: its lock entry is of no use: {}", wanted.reference, error.chain());
            None
        }
    }
}

/// Whether the entry was made with what is asked for now.
fn fits(walk: &Walk<'_>, locked: &LockedImage, wanted: &Wanted) -> bool {
    let options = &walk.options;
    let same_platforms = match &locked.selection {
        Some(selection) => selection.platforms == wanted.platforms && selection.index == options.index,
        None => wanted.platforms.is_empty() || !media_type::is_index(&locked.media_type),
    };
    let lacks_foreign = locked.absent.iter().any(|absent| absent.reason == AbsentReason::ForeignLayer);
    same_platforms
        && check_has(&wanted.platforms, &locked.platforms).is_ok()
        && locked.attached.is_some() == options.referrers
        && !(options.foreign_layers && lacks_foreign)
}

fn carries_foreign(image: &Image) -> bool {
    let children = image.manifests.iter().flat_map(|manifest| manifest.children());
    let mut foreign = children.filter(|child| child.role == Role::ForeignLayer);
    foreign.any(|child| image.blobs.iter().any(|blob| blob.digest == child.descriptor.digest))
}
