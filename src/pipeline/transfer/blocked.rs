//! Content that exists at the target and cannot be pulled there, under the names that people pull.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Done;
use crate::base::error::Error;
use crate::oci::{Digest, Manifest, Reference};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::plan::{ImageStep, Plan};

/// Returns the names of what was `stored` and cannot be pulled, and of what the plan knows to be so in existing images.
/// A root that has its tag is named by that alone, a child of an index by the tag and its own digest. Sorted.
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

/// Digests of the image's manifests without those of companions.
fn own(image: &Image) -> BTreeSet<Digest> {
    let read = image.below(image.locked.digest).into_iter().map(Manifest::digest);
    read.chain([image.locked.digest]).collect()
}

fn name(image: &Image, step: &ImageStep, digest: Digest) -> Reference {
    let digest = Some(digest).filter(|digest| *digest != image.locked.digest);
    Reference { digest, ..step.to.clone() }
}
