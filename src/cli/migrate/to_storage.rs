//! The images of a storage as a storage of their own, for a registry that takes what it finds there.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::closed::Closed;
use super::collect::Collected;
use super::report::{Asked, Ended, Fate};
use super::{faults, refuse_inside};
use crate::base::error::Result;
use crate::base::fsops;
use crate::base::progress::units::{bytes, count, duration};
use crate::base::progress::{Event, Phase};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::content::{LinkMode, in_parallel};
use crate::oci::{Descriptor, Digest, Manifest, Repository};
use crate::pipeline::graph::Image;
use crate::transport::storage::{Member, Replica, Storage, Tagged};

/// User and group by their numbers.
#[derive(Clone, Copy)]
pub struct Owner(u32, u32);

impl std::str::FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Owner, String> {
        let numbers = text.split_once(':').and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
        numbers.map(|(user, group)| Owner(user, group)).ok_or_else(|| "expected two numbers, UID:GID".to_owned())
    }
}

/// Something that is brought once, whatever number of images share it.
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

/// Makes a storage of every whole image; what is wrong with the others is told.
///
/// # Errors
/// Something else is there, or it lies in the storage; the disk's. What befalls one image costs that one.
pub fn write(
    storage: &Storage,
    collected: &Collected,
    (mode, owner): (LinkMode, Option<Owner>),
    asked: &Asked<'_>,
    context: &Context,
) -> Result<Outcome> {
    let to = asked.to;
    refuse_inside(storage, to)?;
    let replica = Replica::create(
        to,
        mode,
        owner.map(|Owner(user, group)| fsops::Owner { user, group }),
        context.events.clone(),
    )?;
    let whole: Vec<(&Tagged, &Image)> = collected.whole().collect();
    let closed = Closed::default();
    let brought = bring(storage, &replica, &whole, &closed, context);
    let fates = enter(storage, &replica, &whole, (&brought, &closed), context);
    let finished = replica.finish();
    context.end();
    faults::tell(&collected.faults, context);
    closed.check()?;
    for fate in &fates {
        if let Fate::Failed(reason) = fate {
            context.failed_image(reason, None);
        }
    }
    let kept = finished?;
    let written = fates.iter().filter(|fate| !matches!(fate, Fate::Failed(_))).count();
    let ended = Ended { fates, linked: replica.linked(), copied: replica.copied(), bundle: None };
    let failed = ended.failed(collected);
    let lost = if failed > 0 { format!(", {failed} failed") } else { String::new() };
    context.say(&format!(
        "{}: {}{lost}; {} linked, {} copied, {}; {}",
        to.display(),
        count(written, "image"),
        count(usize::try_from(replica.linked()).unwrap_or(usize::MAX), "blob"),
        bytes(replica.copied()),
        faults::counted(&collected.faults),
        duration(asked.started.elapsed()),
    ));
    if kept > 0 {
        let files = count(usize::try_from(kept).unwrap_or(usize::MAX), "file");
        context.say(&format!("{files} of other images are hard links of an earlier run and keep their owner"));
    }
    if written > 0 {
        context.say_lines(&remaining(to, owner, replica.linked() > 0).lines().collect::<Vec<_>>());
    }
    ended.finish(collected, asked, context)
}

/// Manifests and blobs: whether each was missing, or why it could not be brought.
fn bring(
    storage: &Storage,
    replica: &Replica,
    whole: &[(&Tagged, &Image)],
    closed: &Closed,
    context: &Context,
) -> HashMap<Digest, Result<bool>> {
    let mut pieces: HashMap<Digest, Piece> = HashMap::new();
    for (found, image) in whole {
        pieces.extend(image.blobs.iter().map(|blob| (blob.digest, Piece::Blob(&found.repository, blob))));
    }
    for (_, image) in whole {
        pieces.extend(image.manifests.iter().map(|manifest| (manifest.digest(), Piece::Manifest(manifest))));
    }
    let pieces: Vec<Piece> = pieces.into_values().collect();
    context.events.report(Event::Phase { phase: Phase::Transfer, items: pieces.len() as u64, bytes: 0 });
    let brought = in_parallel(&pieces, |piece| {
        let brought = closed.unless(|| match piece {
            Piece::Manifest(manifest) => replica.manifest(manifest),
            Piece::Blob(repository, blob) => replica.blob(storage, repository, blob),
        });
        context.events.report(Event::ItemDone);
        brought
    });
    pieces.iter().map(Piece::digest).zip(brought).collect()
}

/// Links and tags of the images of which nothing is lost; what became of each.
fn enter(
    storage: &Storage,
    replica: &Replica,
    whole: &[(&Tagged, &Image)],
    (brought, closed): (&HashMap<Digest, Result<bool>>, &Closed),
    context: &Context,
) -> Vec<Fate> {
    let mut repositories: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, (found, _)) in whole.iter().enumerate() {
        repositories.entry(found.repository.path()).or_default().push(at);
    }
    let repositories: Vec<Vec<usize>> = repositories.into_values().collect();
    context.events.report(Event::Phase { phase: Phase::Publish, items: whole.len() as u64, bytes: 0 });
    let entered = in_parallel(&repositories, |images| {
        let of = |at: &usize| {
            let fate =
                whole.get(*at).map(|(found, image)| enter_image(storage, replica, (found, image), brought, closed));
            context.events.report(Event::ItemDone);
            Some((*at, fate?))
        };
        images.iter().filter_map(of).collect::<Vec<_>>()
    });
    // In the order they came in.
    let fates: BTreeMap<usize, Fate> = entered.into_iter().flatten().collect();
    fates.into_values().collect()
}

fn enter_image(
    storage: &Storage,
    replica: &Replica,
    (found, image): (&Tagged, &Image),
    brought: &HashMap<Digest, Result<bool>>,
    closed: &Closed,
) -> Fate {
    let digests = image.blobs.iter().map(|blob| blob.digest).chain(image.manifests.iter().map(Manifest::digest));
    let mut is_new = false;
    for piece in digests.filter_map(|digest| brought.get(&digest)) {
        match piece {
            Ok(was_missing) => is_new |= *was_missing,
            Err(error) => return Fate::Failed(format!("image {}: {}", found.name(), error.chain())),
        }
    }
    match closed.unless(|| replica.enter(storage, &member(found, image))) {
        Ok(was_missing) if is_new || was_missing => Fate::Written,
        Ok(_) => Fate::Present,
        Err(error) => Fate::Failed(format!("image {}: {}", found.name(), error.chain())),
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

/// What the operator has to do.
fn remaining(to: &Path, owner: Option<Owner>, linked: bool) -> String {
    let owned = match owner {
        Some(_) => String::new(),
        None if linked => {
            "\n   (its files belong to others: Harbor wants 10000:10000. Not by chown, which would change the linked storage \
             too, but by this command with --chown 10000:10000)"
                .to_owned()
        }
        None => "\n   (its files belong to you: Harbor wants 10000:10000, --chown 10000:10000)".to_owned(),
    };
    format!(
        "What is left to do, on Harbor 1.x (2.x does not look into its storage: use --to):\n\
         1. stop Harbor: docker-compose down\n\
         2. place {}/docker in the directory registry of its data volume, such as /data/registry/docker{owned}\n\
         3. remove what its redis remembers: redis/dump.rdb on the data volume\n\
         4. start Harbor: docker-compose up -d\n\
         A docker registry takes {} as its rootdirectory as it is.",
        to.display(),
        to.display()
    )
}
