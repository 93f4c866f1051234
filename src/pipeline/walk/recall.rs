//! Images of an earlier lock that are reused without a question, because their tags never move.

use std::collections::HashMap;

use super::platforms::check_has;
use super::{LockOrigin, Referrers, Walk, Wanted, modes};
use crate::base::error::{Error, Kind, Result};
use crate::oci::{Manifest, Platform, Reference, Role, media_type};
use crate::pipeline::graph::Image;
use crate::pipeline::lock::{AbsentReason, IndexMode, Lock, LockedImage};
use crate::pipeline::select;

/// Entries of earlier locks, by request.
#[derive(Default)]
pub struct EarlierImages(HashMap<Reference, LockedImage>);

impl EarlierImages {
    /// The entries of `locks` whose tag `is_immutable`. If several have one reference, that of the first lock counts.
    pub fn new(locks: impl IntoIterator<Item = Lock>, is_immutable: impl Fn(&str) -> bool) -> EarlierImages {
        let mut known = HashMap::new();
        for image in locks.into_iter().flat_map(|lock| lock.images) {
            if image.reference.tag.as_ref().is_some_and(|tag| is_immutable(tag.as_str())) {
                known.entry(image.reference.clone()).or_insert(image);
            }
        }
        EarlierImages(known)
    }
}

/// Returns the entry of an earlier lock for exactly this request, if that shows without reading the image.
pub fn entry(walk: &Walk<'_>, wanted: &Wanted) -> Option<LockedImage> {
    candidate(walk, wanted).filter(|locked| !asks_some_of_whole_index(locked, wanted))
}

fn candidate(walk: &Walk<'_>, wanted: &Wanted) -> Option<LockedImage> {
    let known = walk.known.0.get(&wanted.reference)?;
    if !fits(walk, known, wanted) {
        return None;
    }
    let mode = known.selection.as_ref().map(|selection| selection.index);
    let is_usual = |mode| match mode {
        IndexMode::Trim => wanted.platforms.len() > 1,
        IndexMode::Single => true,
        IndexMode::Sparse => false,
    };
    if let Some(mode) = mode.filter(|mode| walk.options.index.is_none() && !is_usual(*mode)) {
        walk.note_kept_mode(&wanted.reference, mode);
    }
    Some(LockedImage { rename: wanted.rename.clone(), ..known.clone() })
}

/// Returns the image of that entry, from local sources or by digest. `None` if the registry must be asked after all.
///
/// # Errors
/// An error that another question would meet too: it says nothing about the entry.
pub async fn image(walk: &Walk<'_>, wanted: &Wanted) -> Result<Option<Image>> {
    let Some(locked) = candidate(walk, wanted) else { return Ok(None) };
    let by_digest = locked.reference.repository.with_digest(locked.digest);
    // A selection from an index exists only in a bundle: the registry has the whole index.
    let origin = if walk.source.is_at_hand(&by_digest).await { LockOrigin::Bundle } else { LockOrigin::Registry };
    match walk.assemble_inner(&locked, origin).await {
        Ok(image) => {
            let as_wanted = walk.options.foreign_layers || !carries_foreign(&image);
            Ok((as_wanted && leaves_nothing_out(walk, &image, wanted)).then_some(image))
        }
        Err(error) => match error.kind() {
            Kind::Network | Kind::RateLimited | Kind::Unauthorized | Kind::Disk | Kind::Interrupted => Err(error),
            // It is gone, or never existed: the tag may still mean the same, with other signatures for example.
            Kind::NotFound | Kind::Damaged | Kind::Refused | Kind::Input | Kind::Lacking => {
                tracing::debug!("{}: its lock entry cannot be used: {}", wanted.reference, error.chain());
                Ok(None)
            }
        },
    }
}

/// Checks that a tag which an earlier lock declares fixed still has the same meaning, whether or not the entry was
/// useful.
///
/// # Errors
/// It has moved: accepting its new meaning would silently change what was declared fixed.
pub fn check_unmoved(walk: &Walk<'_>, found: &LockedImage) -> Result<()> {
    let meant = |locked: &LockedImage| locked.selection.as_ref().map_or(locked.digest, |one| one.original.digest);
    match walk.known.0.get(&found.reference).map(meant) {
        Some(was) if was != meant(found) => Err(Error::new(
            Kind::Refused,
            format!(
                "its tag should never move (--immutable-tags) and meant {was} in the earlier lock; it now means {}; \
                 if that is what you want, run again without a pattern for this tag",
                meant(found)
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether the entry was made for the current request.
fn fits(walk: &Walk<'_>, locked: &LockedImage, wanted: &Wanted) -> bool {
    let options = &walk.options;
    let same_platforms = match &locked.selection {
        Some(selection) => selection.platforms == wanted.platforms && modes::fits(options.index, selection.index),
        None => !asks_some_of_whole_index(locked, wanted) || is_all(&wanted.platforms, &locked.platforms),
    };
    let lacks_foreign = locked.absent.iter().any(|absent| absent.reason == AbsentReason::ForeignLayer);
    same_platforms
        && check_has(&wanted.platforms, &locked.platforms).is_ok()
        && has_companions_as_wanted(locked, options.referrers)
        && !(options.foreign_layers && lacks_foreign)
}

/// An entry that may lack companions is useful only if companions are left out.
fn has_companions_as_wanted(locked: &LockedImage, referrers: Referrers) -> bool {
    match referrers {
        Referrers::Leave => locked.attached.is_none(),
        Referrers::Look | Referrers::Require => locked.attached.is_some() && !locked.attached_unknown,
    }
}

/// Whether platforms are requested now of an index that the entry has whole.
fn asks_some_of_whole_index(locked: &LockedImage, wanted: &Wanted) -> bool {
    locked.selection.is_none() && !wanted.platforms.is_empty() && media_type::is_index(&locked.media_type)
}

/// Whether none of `has` would be left out.
fn is_all(asked: &[Platform], has: &[Platform]) -> bool {
    has.iter().all(|has| asked.iter().any(|asked| asked.selects(has)))
}

/// Whether an index has only the wanted platforms. Only the index itself shows children without a platform.
fn leaves_nothing_out(walk: &Walk<'_>, image: &Image, wanted: &Wanted) -> bool {
    let is_root = |manifest: &&Manifest| manifest.digest() == image.locked.digest;
    let whole = |root: &Manifest| {
        let selected = select::select(root, &wanted.platforms, walk.options.index.unwrap_or_default());
        selected.is_ok_and(|selected| !selected.changed)
    };
    !asks_some_of_whole_index(&image.locked, wanted) || image.manifests.iter().find(is_root).is_some_and(whole)
}

fn carries_foreign(image: &Image) -> bool {
    let children = image.manifests.iter().flat_map(|manifest| manifest.children());
    let mut foreign = children.filter(|child| child.role == Role::ForeignLayer);
    foreign.any(|child| image.blobs.iter().any(|blob| blob.digest == child.descriptor.digest))
}
