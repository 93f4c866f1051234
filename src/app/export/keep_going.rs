//! Removes content that cannot be fetched from the lock and the graph, so that the export can continue without it:
//! companions in general, and images if the request allows it.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures_util::StreamExt;

use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::{Event, Events};
use crate::content::{Origin, Source};
use crate::oci::{Descriptor, Digest, Manifest, Repository, Role};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::lock::{Lock, LockedImage, MissingImage, MissingReason};
use crate::pipeline::resolve::Failures;

/// Blobs that make the manifests that need them unusable.
#[derive(Default)]
pub struct BrokenContent {
    /// Blobs that could not be fetched, and the reason.
    lost: HashMap<Digest, Error>,
    /// The true sizes of blobs whose manifests state different sizes.
    sizes: HashMap<Digest, u64>,
}

/// What may be left out.
#[derive(Clone, Copy, Debug)]
pub struct May {
    pub images: bool,
    /// Otherwise, an image needs all its companions.
    pub companions: bool,
}

impl BrokenContent {
    pub fn of_lost(lost: HashMap<Digest, Error>) -> BrokenContent {
        BrokenContent { lost, ..BrokenContent::default() }
    }

    /// Finds blobs for which manifests state different sizes, and asks the source for the right size.
    ///
    /// # Errors
    /// An error that says nothing about the blob, for example a registry that no longer answers.
    pub async fn of_sizes(graph: &Graph, source: &dyn Source) -> Result<BrokenContent> {
        let mut stated: HashMap<Digest, BTreeMap<u64, &Repository>> = HashMap::new();
        let manifests = graph.manifests();
        let own: HashMap<Digest, u64> = manifests.iter().map(|manifest| (manifest.digest(), manifest.size())).collect();
        let carried: HashSet<Digest> = graph.blobs().into_iter().map(|blob| blob.digest).collect();
        for image in &graph.images {
            let repository = &image.locked.reference.repository;
            let blobs = image.manifests.iter().flat_map(blobs_of).filter(|blob| carried.contains(&blob.digest));
            for blob in blobs {
                stated.entry(blob.digest).or_default().entry(blob.size).or_insert(repository);
            }
        }
        let mut problems = BrokenContent::default();
        for (digest, sizes) in stated {
            match own.get(&digest) {
                Some(size) => drop(problems.sizes.insert(digest, *size)),
                None if sizes.len() < 2 => {}
                None => match true_size(source, digest, &sizes).await {
                    Ok(size) => drop(problems.sizes.insert(digest, size)),
                    Err(error) if MissingReason::of(&error).is_none() || error.stopped().is_some() => {
                        return Err(error);
                    }
                    Err(error) => drop(problems.lost.insert(digest, error)),
                },
            }
        }
        Ok(problems)
    }

    /// Whether every error is a reason to leave content out. Content that is only out of reach for now is left out only if
    /// `may` allows that for images: the lock then lists it as missing.
    fn are_of_content(&self, may: May) -> bool {
        self.lost.values().all(|error| MissingReason::of(error).is_some() && (may.images || !is_out_of_reach(error)))
    }

    fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.sizes.is_empty()
    }

    /// Returns why `manifest` cannot be exported.
    fn of(&self, manifest: &Manifest) -> Option<Error> {
        blobs_of(manifest).into_iter().find_map(|blob| {
            let (digest, size) = (blob.digest, blob.size);
            let wrong = self.sizes.get(&digest).filter(|right| **right != size).map(|right| {
                let parent = manifest.digest();
                Error::damaged(format!("its manifest {parent} gives {digest} {size} bytes instead of {right}"))
            });
            wrong.or_else(|| self.lost.get(&digest).cloned())
        })
    }

    /// Removes unusable images, and unusable companions of the other images, as far as `may` allows it. Returns `false` if
    /// nothing needs to be removed, if removing would not help, or if it is not allowed.
    ///
    /// # Errors
    /// No image would be left.
    pub fn leave_out(&self, lock: &mut Lock, graph: &mut Graph, may: May, events: &Events) -> Result<bool> {
        if self.is_empty() || !self.are_of_content(may) {
            return Ok(false);
        }
        let problems: Vec<Faulty> = graph.images.iter().map(|image| self.of_image(image, may)).collect();
        let is_lost = |faulty: &Faulty| faulty.own.is_some();
        if !may.images && problems.iter().any(is_lost) {
            return Ok(false);
        }
        if problems.iter().all(is_lost) {
            let errors = problems.into_iter().zip(&graph.images).filter_map(|(faulty, image)| {
                let name = graph.shown(&image.locked.reference);
                faulty.own.map(|error| error.while_doing(format!("image {name}")))
            });
            return Err(Failures(errors.collect()).into_error("exporting the images"));
        }
        let shown: Vec<String> = graph.images.iter().map(|image| graph.shown(&image.locked.reference)).collect();
        let mut each = shown.into_iter().zip(problems);
        let mut has_left_out = false;
        graph.images.retain_mut(|image| {
            let Some((name, Faulty { own, companions })) = each.next() else { return true };
            if let Some((reason, error)) = own.and_then(|error| Some((MissingReason::of(&error)?, error))) {
                events.report(Event::Warning(format!("image {name}: {}; it is left out", error.chain())));
                let LockedImage { reference, rename, .. } = image.locked.clone();
                lock.missing.push(MissingImage { reference, rename, reason });
                has_left_out = true;
                return false;
            }
            if let Some(error) = companions.values().next() {
                let before = image.locked.companions().len();
                image.leave_out_companions(&companions.keys().copied().collect());
                let number = before - image.locked.companions().len();
                has_left_out |= number > 0;
                let text = match number {
                    1 => {
                        format!(
                            "image {name}: the artifact attached to it could not be read, so it is left out: {}",
                            error.chain()
                        )
                    }
                    _ => format!(
                        "image {name}: {number} artifacts attached to it could not be read, so they are left out; the first: {}",
                        error.chain()
                    ),
                };
                events.report(Event::Warning(text));
            }
            true
        });
        lock.images = graph.images.iter().map(|image| image.locked.clone()).collect();
        Ok(has_left_out)
    }

    /// Determines what is wrong with an image. If its registry could not deliver a companion because of an outage or a
    /// limit, the whole image is left out, as it is while manifests are read: silence is no reason to drop a signature.
    fn of_image(&self, image: &Image, may: May) -> Faulty {
        let problem = |root: Digest| image.below(root).into_iter().find_map(|manifest| self.of(manifest));
        let companions = image.locked.companions().iter();
        let companions = companions.filter_map(|companion| Some((companion.digest, problem(companion.digest)?)));
        let companions: BTreeMap<Digest, Error> = companions.collect();
        let costs_image = |error: &&Error| !may.companions || is_of_registry(error);
        let own = problem(image.locked.digest).or_else(|| companions.values().find(costs_image).cloned());
        Faulty { own, companions }
    }
}

/// What is wrong with an image.
struct Faulty {
    /// Why the whole image must be left out.
    own: Option<Error>,
    /// Companions that cannot be fetched.
    companions: BTreeMap<Digest, Error>,
}

/// Whether the content itself got no answer: it might be available later.
fn is_out_of_reach(error: &Error) -> bool {
    let is_unanswered = error.kind() == Kind::Network && error.reason() != Some(&Reason::Undelivered);
    is_of_registry(error) || is_unanswered
}

/// Whether this run can fetch nothing more from the same registry.
fn is_of_registry(error: &Error) -> bool {
    error.stopped().is_some() || error.kind() == Kind::RateLimited
}

/// Returns the children of a manifest that are not manifests.
fn blobs_of(manifest: &Manifest) -> Vec<Descriptor> {
    let children = manifest.children().into_iter().filter(|child| child.role != Role::Manifest);
    children.map(|child| child.descriptor).collect()
}

/// Returns the true size of a blob, out of the stated sizes. A source refuses to open a blob whose size it knows to be
/// different. If it accepts several sizes, the bytes decide.
async fn true_size(source: &dyn Source, digest: Digest, stated: &BTreeMap<u64, &Repository>) -> Result<u64> {
    let (mut possible, mut refused) = (Vec::new(), None);
    for (size, repository) in stated {
        let blob = Descriptor::new("", digest, *size);
        match (Origin { source, repository }).open(&blob).await {
            Ok(_) => possible.push((blob, *repository)),
            Err(error) => refused = Some(error),
        }
    }
    if let [(blob, _)] = &possible[..] {
        return Ok(blob.size);
    }
    for (blob, repository) in possible {
        match read_through(source, repository, &blob).await {
            Ok(()) => return Ok(blob.size),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| Error::new(Kind::Damaged, format!("blob {digest} has none of the sizes stated"))))
}

async fn read_through(source: &dyn Source, repository: &Repository, blob: &Descriptor) -> Result<()> {
    let mut reader = (Origin { source, repository }).open(blob).await?;
    while let Some(piece) = reader.next().await {
        piece?;
    }
    Ok(())
}
