//! Writes the images of a storage as a new storage, which a registry can serve.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::collect::Collected;
use super::disk_full::DiskFull;
use super::inside::refuse_inside;
use super::report::{Ended, MigrateOutcome};
use crate::base::error::Result;
use crate::base::fsops::Owner;
use crate::base::progress::{Event, Events, Phase};
use crate::content::{LinkMode, in_parallel};
use crate::oci::{Descriptor, Digest, Manifest, Repository};
use crate::pipeline::graph::Image;
use crate::transport::storage::{Member, Replica, Storage, Tagged};

/// Content that is written once, however many images share it.
enum Piece<'a> {
    Manifest(&'a Manifest),
    Blob(&'a Repository, &'a Descriptor),
}

impl Piece<'_> {
    fn digest(&self) -> Digest {
        match self {
            Piece::Manifest(manifest) => manifest.digest(),
            Piece::Blob(_, blob) => blob.digest,
        }
    }
}

/// Writes a storage of every complete image. Its files belong to `owner`, or to the user for `None`.
///
/// # Errors
/// Another file is in the way, or the output is inside the storage. An error of one image only fails that image.
pub fn write(
    storage: &Storage,
    collected: &Collected,
    to: &Path,
    link: LinkMode,
    owner: Option<Owner>,
    events: &Events,
) -> Result<Ended> {
    refuse_inside(storage, to)?;
    let replica = Replica::create(to, link, owner, events.clone())?;
    let whole: Vec<(&Tagged, &Image)> = collected.whole().collect();
    let disk_full = DiskFull::default();
    let brought = bring(storage, &replica, &whole, &disk_full, events);
    let outcomes = enter(storage, &replica, &whole, &brought, &disk_full, events);
    let (kept_owner, failure) = match disk_full.check().and(replica.finish()) {
        Ok(kept) => (kept, None),
        Err(error) => (0, Some(error)),
    };
    let (linked, copied) = (replica.linked(), replica.copied());
    Ok(Ended { outcomes, linked, copied, failure, kept_owner, ..Ended::default() })
}

/// Copies manifests and blobs. Returns for each whether it was missing, or why it could not be copied.
fn bring(
    storage: &Storage,
    replica: &Replica,
    whole: &[(&Tagged, &Image)],
    disk_full: &DiskFull,
    events: &Events,
) -> HashMap<Digest, Result<bool>> {
    let mut pieces: HashMap<Digest, Piece> = HashMap::new();
    for (found, image) in whole {
        pieces.extend(image.blobs.iter().map(|blob| (blob.digest, Piece::Blob(&found.repository, blob))));
    }
    for (_, image) in whole {
        pieces.extend(image.manifests.iter().map(|manifest| (manifest.digest(), Piece::Manifest(manifest))));
    }
    let pieces: Vec<Piece> = pieces.into_values().collect();
    events.report(Event::Phase { phase: Phase::Transfer, items: pieces.len() as u64, bytes: 0 });
    let brought = in_parallel(&pieces, |piece| {
        let brought = disk_full.unless(|| match piece {
            Piece::Manifest(manifest) => replica.manifest(manifest),
            Piece::Blob(repository, blob) => replica.blob(storage, repository, blob),
        });
        events.report(Event::ItemDone);
        brought
    });
    pieces.iter().map(Piece::digest).zip(brought).collect()
}

/// Writes the links and tags of images that are complete. Returns the result for each image.
fn enter(
    storage: &Storage,
    replica: &Replica,
    whole: &[(&Tagged, &Image)],
    brought: &HashMap<Digest, Result<bool>>,
    disk_full: &DiskFull,
    events: &Events,
) -> Vec<MigrateOutcome> {
    let mut repositories: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (found, _)) in whole.iter().enumerate() {
        repositories.entry(found.repository.path()).or_default().push(at);
    }
    let repositories: Vec<Vec<usize>> = repositories.into_values().collect();
    events.report(Event::Phase { phase: Phase::Publish, items: whole.len() as u64, bytes: 0 });
    let entered = in_parallel(&repositories, |images| {
        let of = |at: &usize| {
            let outcome =
                whole.get(*at).map(|(found, image)| enter_image(storage, replica, found, image, brought, disk_full));
            events.report(Event::ItemDone);
            Some((*at, outcome?))
        };
        images.iter().filter_map(of).collect::<Vec<_>>()
    });
    // In the order of `whole`.
    let outcomes: BTreeMap<usize, MigrateOutcome> = entered.into_iter().flatten().collect();
    outcomes.into_values().collect()
}

fn enter_image(
    storage: &Storage,
    replica: &Replica,
    found: &Tagged,
    image: &Image,
    brought: &HashMap<Digest, Result<bool>>,
    disk_full: &DiskFull,
) -> MigrateOutcome {
    let digests = image.blobs.iter().map(|blob| blob.digest).chain(image.manifests.iter().map(Manifest::digest));
    let mut is_new = false;
    for piece in digests.filter_map(|digest| brought.get(&digest)) {
        match piece {
            Ok(was_missing) => is_new |= *was_missing,
            Err(error) => return MigrateOutcome::Failed(format!("image {}: {}", found.name(), error.chain())),
        }
    }
    match disk_full.unless(|| replica.enter(storage, &member(found, image))) {
        Ok(was_missing) if is_new || was_missing => MigrateOutcome::Written,
        Ok(_) => MigrateOutcome::Present,
        Err(error) => MigrateOutcome::Failed(format!("image {}: {}", found.name(), error.chain())),
    }
}

fn member<'a>(found: &'a Tagged, image: &'a Image) -> Member<'a> {
    let companions = image.locked.companions().iter();
    let companions = companions.filter_map(|attached| Some((attached.tag.as_ref()?, attached.digest)));
    let own = found.tag.as_ref().map(|tag| (tag, image.locked.digest));
    Member {
        repository: &found.repository,
        tags: companions.chain(own).collect(),
        manifests: &image.manifests,
        blobs: &image.blobs,
    }
}
