//! The plan: what has to move where, decided before anything moves.
//!
//! Pure but for [`take_inventory`], which asks the target about every node: a parent that exists says nothing about what
//! is below it (an interrupted push, a garbage collection).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::content::Sink;
use crate::error::Result;
use crate::graph::{Graph, Image};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::progress::{Event, Events, Phase};

/// Where each image of a graph goes: the reference (tag or digest) it is to have at the target, in the graph's order.
pub type Targets = Vec<Reference>;

/// What to do with a tag that means something else at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExisting {
    #[default]
    Overwrite,
    Skip,
    Fail,
}

/// What the target has of the content of a job.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub blobs: HashSet<(Repository, Digest)>,
    pub manifests: HashSet<(Repository, Digest)>,
    /// What each tag means there now; tags that do not exist are missing.
    pub tags: HashMap<Reference, Digest>,
}

/// Everything that has to be done, in flat lists.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One for each image of the graph, in its order.
    pub images: Vec<ImageStep>,
    /// Blobs that some repository of the target lacks: those of the largest image first, so that images are complete one
    /// after the other and what is left at the end is small.
    pub blobs: Vec<BlobStep>,
}

/// What becomes of one image.
#[derive(Clone, Debug)]
pub struct ImageStep {
    /// Where it is read.
    pub from: Repository,
    pub to: Reference,
    pub tag: TagState,
    pub action: Action,
    /// Digests of manifests that are there already.
    pub present: HashSet<Digest>,
}

/// What the tag means at the target before the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "digest")]
pub enum TagState {
    /// It does not exist yet.
    New,
    /// It is this image already.
    Same,
    /// It is another image.
    Other(Digest),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Push what is missing.
    Push,
    /// All of it is there, tag included.
    Nothing,
    /// The tag means another image, and is to be left alone.
    Skip,
    /// The tag means another image, and that is an error.
    Refuse,
}

/// A blob and the repositories of the target that lack it.
#[derive(Clone, Debug)]
pub struct BlobStep {
    pub blob: Descriptor,
    /// Where it is read.
    pub from: Repository,
    /// Repositories of the target that have it: it can be mounted from there.
    pub present: Vec<Repository>,
    pub missing: Vec<Repository>,
}

impl Plan {
    /// Decides what moves. `targets` runs parallel to `graph.images`.
    pub fn new(graph: &Graph, targets: &Targets, inventory: &Inventory, on_existing: OnExisting) -> Plan {
        let images: Vec<ImageStep> =
            graph.images.iter().zip(targets).map(|(image, to)| image_step(image, to, inventory, on_existing)).collect();
        let blobs = blob_steps(graph, &images, inventory);
        Plan { images, blobs }
    }

    /// Bytes of blobs that have to cross to the target: each once.
    pub fn new_bytes(&self) -> u64 {
        let absent = self.blobs.iter().filter(|step| step.present.is_empty());
        absent.map(|step| step.blob.size).fold(0, u64::saturating_add)
    }

    /// Bytes of blobs that pushed images need and that need not cross: the target has them.
    pub fn present_bytes(&self, graph: &Graph) -> u64 {
        let new: HashSet<Digest> =
            self.blobs.iter().filter(|step| step.present.is_empty()).map(|step| step.blob.digest).collect();
        let images = graph.images.iter().zip(&self.images);
        let wanted = images.filter(|(_, step)| matches!(step.action, Action::Push | Action::Nothing));
        let mut seen = HashSet::new();
        let present = wanted.flat_map(|(image, _)| &image.blobs).filter(|blob| !new.contains(&blob.digest));
        present.filter(|blob| seen.insert(blob.digest)).map(|blob| blob.size).fold(0, u64::saturating_add)
    }

    /// The same blob in another repository: bytes that are mounted, not moved.
    pub fn mounted_bytes(&self) -> u64 {
        let mounts = |step: &BlobStep| step.missing.len() as u64 - u64::from(step.present.is_empty());
        self.blobs.iter().map(|step| step.blob.size.saturating_mul(mounts(step))).fold(0, u64::saturating_add)
    }
}

fn image_step(image: &Image, to: &Reference, inventory: &Inventory, on_existing: OnExisting) -> ImageStep {
    let repository = &to.repository;
    let has = |digest: &Digest| inventory.manifests.contains(&(repository.clone(), *digest));
    let present: HashSet<Digest> = image.manifests.iter().map(|m| m.digest()).filter(|digest| has(digest)).collect();
    let complete = present.len() == image.manifests.iter().map(|m| m.digest()).collect::<HashSet<_>>().len()
        && image.blobs.iter().all(|blob| inventory.blobs.contains(&(repository.clone(), blob.digest)))
        && companion_tags(image, repository)
            .all(|(tag, digest)| inventory.tags.get(&tag).is_some_and(|found| *found == digest));
    let tag = match inventory.tags.get(to) {
        None => TagState::New,
        Some(digest) if *digest == image.locked.digest => TagState::Same,
        Some(digest) => TagState::Other(*digest),
    };
    let action = match (tag, on_existing) {
        (TagState::Other(_), OnExisting::Skip) => Action::Skip,
        (TagState::Other(_), OnExisting::Fail) => Action::Refuse,
        (TagState::Same, _) if complete => Action::Nothing,
        _ => Action::Push,
    };
    let from = image.locked.reference.repository.clone();
    ImageStep { from, to: to.clone(), tag, action, present }
}

/// The image's root, where it can be put by its tag alone: one request less. What refers to it must find it before the tag
/// tells of it; then this is `None`.
pub fn put_by_tag(image: &Image, to: &Reference) -> Option<Digest> {
    (to.digest.is_none() && image.locked.attached.is_empty()).then_some(image.locked.digest)
}

/// The tags that attached manifests have beside the image in `repository`.
pub fn companion_tags(image: &Image, repository: &Repository) -> impl Iterator<Item = (Reference, Digest)> {
    let tagged = image.locked.attached.iter().filter_map(|a| Some((a.tag.clone()?, a.digest)));
    tagged.map(|(tag, digest)| (repository.with_tag(tag), digest))
}

fn blob_steps(graph: &Graph, images: &[ImageStep], inventory: &Inventory) -> Vec<BlobStep> {
    let mut steps: Vec<BlobStep> = Vec::new();
    let mut position: HashMap<Digest, usize> = HashMap::new();
    let mut seen: HashSet<(&Repository, Digest)> = HashSet::new();
    for (image, step) in graph.images.iter().zip(images) {
        let skipped = matches!(step.action, Action::Skip | Action::Refuse);
        for blob in &image.blobs {
            let repository = &step.to.repository;
            if !seen.insert((repository, blob.digest)) {
                continue;
            }
            let at = *position.entry(blob.digest).or_insert_with(|| {
                let (blob, from) = (blob.clone(), step.from.clone());
                steps.push(BlobStep { blob, from, present: Vec::new(), missing: Vec::new() });
                steps.len() - 1
            });
            if inventory.blobs.contains(&(repository.clone(), blob.digest)) {
                steps[at].present.push(repository.clone());
            } else if skipped {
                // Another image of the same repository may still want it.
                seen.remove(&(repository, blob.digest));
            } else {
                steps[at].missing.push(repository.clone());
            }
        }
    }
    steps.retain(|step| !step.missing.is_empty());
    let weight = weights(graph);
    steps.sort_by_key(|step| {
        let image = weight.get(&step.blob.digest).copied().unwrap_or_default();
        (Reverse(image), Reverse(step.blob.size), step.blob.digest)
    });
    steps
}

/// For each blob the largest image that has it, by its bytes; among equals the one that comes first.
fn weights(graph: &Graph) -> HashMap<Digest, (u64, Reverse<usize>)> {
    let mut weights = HashMap::new();
    for (at, image) in graph.images.iter().enumerate() {
        let weight = (image.locked.total_size, Reverse(at));
        for blob in &image.blobs {
            weights.entry(blob.digest).and_modify(|known: &mut _| *known = weight.max(*known)).or_insert(weight);
        }
    }
    weights
}

/// Asks the target about every tag, manifest and blob, `jobs` questions at a time. Repositories that are `closed` are
/// not asked about: nothing is there.
///
/// A repository without any tag is new, or what an interrupted push left. A blob lands first in the first repository of
/// the graph that wants it, so each is asked for there; the other repositories that are new get it by a mount, which moves
/// nothing even where it is already there.
///
/// # Errors
/// Any question without a clear answer.
pub async fn take_inventory(
    sink: &dyn Sink,
    graph: &Graph,
    targets: &Targets,
    closed: &(dyn Fn(&Repository) -> bool + Sync),
    jobs: usize,
    events: &Events,
) -> Result<Inventory> {
    let Questions { tags, mut manifests, mut blobs } = questions(graph, targets, closed);
    let items = (tags.len() + manifests.len() + blobs.len()) as u64;
    events.report(Event::Phase { phase: Phase::Inventory, items, bytes: 0 });
    let mut references = resolve_all(sink, tags, jobs, events).await?;
    let new = untagged(sink, &references, jobs).await?;
    manifests.retain(|reference| !new.contains(&reference.repository) || skipped(events));
    blobs.retain(|(repository, _), (_, first)| *first || !new.contains(repository) || skipped(events));
    references.extend(resolve_all(sink, manifests, jobs, events).await?);
    let blobs: Vec<Option<(Repository, Digest)>> = stream::iter(blobs)
        .map(|((repository, digest), (blob, _))| async move {
            let has = sink.has_blob(&repository, &blob).await?;
            events.report(Event::ItemDone);
            Ok::<_, crate::Error>(has.then_some((repository, digest)))
        })
        .buffer_unordered(jobs.max(1))
        .try_collect()
        .await?;
    let mut inventory = Inventory { blobs: blobs.into_iter().flatten().collect(), ..Inventory::default() };
    let unlisted = unlisted(sink, graph, targets, &references, jobs).await?;
    for (reference, found) in references {
        let Some(found) = found else { continue };
        match reference.digest {
            Some(_) if unlisted.contains(&reference) => {}
            Some(digest) => {
                inventory.manifests.insert((reference.repository.clone(), digest));
                inventory.tags.insert(reference, digest);
            }
            None => {
                inventory.manifests.insert((reference.repository.clone(), found.digest));
                inventory.tags.insert(reference, found.digest);
            }
        }
    }
    Ok(inventory)
}

/// What the target may be asked.
#[derive(Default)]
struct Questions {
    tags: BTreeSet<Reference>,
    manifests: BTreeSet<Reference>,
    /// `true`: the first repository that wants the blob.
    blobs: HashMap<(Repository, Digest), (Descriptor, bool)>,
}

fn questions(graph: &Graph, targets: &Targets, closed: &(dyn Fn(&Repository) -> bool + Sync)) -> Questions {
    let mut questions = Questions::default();
    let mut wanted = HashSet::new();
    for (image, to) in graph.images.iter().zip(targets).filter(|(_, to)| !closed(&to.repository)) {
        let repository = &to.repository;
        let named = if to.digest.is_none() { &mut questions.tags } else { &mut questions.manifests };
        named.insert(to.clone());
        questions.tags.extend(companion_tags(image, repository).map(|(tag, _)| tag));
        // A tag that means the root says that it is there; any other is put anew, and the root with it.
        let asked =
            image.manifests.iter().map(Manifest::digest).filter(|digest| put_by_tag(image, to) != Some(*digest));
        questions.manifests.extend(asked.map(|digest| repository.with_digest(digest)));
        for blob in &image.blobs {
            let question = questions.blobs.entry((repository.clone(), blob.digest));
            question.or_insert_with(|| (blob.clone(), wanted.insert(blob.digest)));
        }
    }
    questions
}

/// Counts a question that need not be asked; `false`.
fn skipped(events: &Events) -> bool {
    events.report(Event::ItemDone);
    false
}

async fn resolve_all(
    sink: &dyn Sink,
    references: BTreeSet<Reference>,
    jobs: usize,
    events: &Events,
) -> Result<Vec<(Reference, Option<Descriptor>)>> {
    stream::iter(references)
        .map(|reference| async move {
            let found = sink.resolve(&reference).await?;
            events.report(Event::ItemDone);
            Ok::<_, crate::Error>((reference, found))
        })
        .buffer_unordered(jobs.max(1))
        .try_collect()
        .await
}

/// The repositories of which none of the tags asked for exists, nor any other.
async fn untagged(
    sink: &dyn Sink,
    tags: &[(Reference, Option<Descriptor>)],
    jobs: usize,
) -> Result<HashSet<Repository>> {
    let mut candidates: HashSet<Repository> = tags.iter().map(|(tag, _)| tag.repository.clone()).collect();
    for (tag, _) in tags.iter().filter(|(_, found)| found.is_some()) {
        candidates.remove(&tag.repository);
    }
    stream::iter(candidates)
        .map(|repository| async move { Ok(sink.has_no_tags(&repository).await?.then_some(repository)) })
        .buffer_unordered(jobs.max(1))
        .try_filter_map(|repository| async move { Ok(repository) })
        .try_collect()
        .await
}

/// Manifests that are there, but not found by what they speak of: they are put again, which enters them.
async fn unlisted(
    sink: &dyn Sink,
    graph: &Graph,
    targets: &Targets,
    references: &[(Reference, Option<Descriptor>)],
    jobs: usize,
) -> Result<HashSet<Reference>> {
    let there: HashSet<&Reference> = references.iter().filter(|(_, found)| found.is_some()).map(|(r, _)| r).collect();
    let mut speaking: HashMap<Reference, &Manifest> = HashMap::new();
    for (image, to) in graph.images.iter().zip(targets) {
        for manifest in image.manifests.iter().filter(|manifest| manifest.subject().is_some()) {
            speaking.insert(to.repository.with_digest(manifest.digest()), manifest);
        }
    }
    speaking.retain(|reference, _| there.contains(reference));
    stream::iter(speaking)
        .map(|(reference, manifest)| async move {
            let listed = sink.is_listed(&reference.repository, manifest).await?;
            Ok::<_, crate::Error>((!listed).then_some(reference))
        })
        .buffer_unordered(jobs.max(1))
        .try_filter_map(|reference| async move { Ok(reference) })
        .try_collect()
        .await
}
