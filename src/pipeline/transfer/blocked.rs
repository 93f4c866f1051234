//! Names the content that exists at the target but cannot be pulled, by the tags that people pull.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Done;
use crate::base::error::Error;
use crate::oci::{Digest, Manifest, Reference};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::plan::{ImageStep, Plan};

/// Returns the names of content that cannot be pulled: the `stored` manifests, and those that the plan already knows of
/// in existing images. An image's root is named by its tag alone, a child of an index by the tag and its own digest.
/// Sorted.
pub fn named(
    stored: Vec<(Reference, String)>,
    graph: &Graph,
    plan: &Plan,
    outcomes: &[Result<Done, Arc<Error>>],
) -> Vec<(Reference, String)> {
    let images = || graph.images.iter().zip(&plan.images);
    let there = images().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Ok(Done::Pushed | Done::Present)));
    let known = there.flat_map(|((image, step), _)| {
        let own = own(image).into_iter().filter_map(|digest| Some((digest, step.withheld.get(&digest)?)));
        own.map(|(digest, why)| (step.to.repository.with_digest(digest), why.clone()))
    });
    let mut names: HashMap<Reference, Vec<Reference>> = HashMap::new();
    for (image, step) in images().filter(|(_, step)| step.to.digest.is_none()) {
        for digest in own(image) {
            names.entry(step.to.repository.with_digest(digest)).or_default().push(name(image, step, digest));
        }
    }
    let mut blocked: BTreeMap<Reference, String> = BTreeMap::new();
    for (reference, why) in stored.into_iter().chain(known) {
        match names.get(&reference) {
            Some(names) => blocked.extend(names.iter().map(|name| (name.clone(), why.clone()))),
            None => _ = blocked.insert(reference, why),
        }
    }
    blocked.into_iter().collect()
}

/// Digests of the image's manifests, without those of its companions.
fn own(image: &Image) -> BTreeSet<Digest> {
    let read = image.below(image.locked.digest).into_iter().map(Manifest::digest);
    read.chain([image.locked.digest]).collect()
}

fn name(image: &Image, step: &ImageStep, digest: Digest) -> Reference {
    let digest = Some(digest).filter(|digest| *digest != image.locked.digest);
    Reference { digest, ..step.to.clone() }
}
