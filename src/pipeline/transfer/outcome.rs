//! How a transfer ended, image by image.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Cause, CompanionOutcomes, TagOutcome, Unlisted};
use crate::base::error::{Error, Result};
use crate::oci::{Digest, Manifest, Reference, Repository};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::plan::{CompanionAction, CompanionStep, Plan, TagState};

/// What became of each image of the plan, in its order, and what it cost.
#[derive(Debug)]
pub struct TransferOutcome {
    /// An error does not name the image.
    pub images: Vec<Result<Done, Arc<Error>>>,
    /// Bytes of blobs that moved.
    pub moved: u64,
    /// Bytes of blobs that were mounted instead.
    pub mounted: u64,
    /// What is there, and what a policy of the target forbids pulling; with its words: tags, and children of indexes by tag and
    /// digest. Sorted.
    pub blocked: Vec<(Reference, String)>,
    /// Manifests that were put, and that a policy forbids pulling for now.
    pub withheld: HashSet<(Repository, Digest)>,
    /// Tags that cannot be set and may not be read. Their images are there. Sorted.
    pub kept: Vec<Reference>,
    /// Companions that are not found by what they speak of: refused, or the list that should name them was left alone.
    pub unlisted: BTreeMap<(Repository, Digest), Unlisted>,
    /// Tags that this run has set and manifests that it has stored, with what they were last given to mean: those of images that
    /// failed, too.
    pub set: HashMap<Reference, Digest>,
    /// What became of the tags of companions that were looked at again.
    pub companions: CompanionOutcomes,
}

impl TransferOutcome {
    /// What was done with the tag of a companion in the end: another thing than was planned, if somebody there changed it meanwhile.
    pub fn action<'a>(&'a self, companion: &'a CompanionStep) -> &'a CompanionAction {
        self.tag_outcome(companion).map_or(&companion.action, |tag_outcome| &tag_outcome.action)
    }

    /// What the tag of a companion meant when that was decided.
    pub fn state(&self, companion: &CompanionStep) -> TagState {
        self.tag_outcome(companion).map_or(companion.state, |tag_outcome| tag_outcome.state)
    }

    fn tag_outcome(&self, companion: &CompanionStep) -> Option<&TagOutcome> {
        self.companions.get(&companion.tag, &companion.digest)
    }
}

/// How an image ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Pushed,
    /// It was all there.
    Present,
    /// Left alone: the tag means another image.
    Skipped,
    /// What has arrived of it was pushed; the rest is still to come.
    Waiting,
}

/// Distinct blobs and manifests confirmed at the target: those that were there and those that arrived. Not the manifests that
/// the target does not give, or does not find by their subject: an increment that relied on them could not be read there.
pub fn confirmed(graph: &Graph, plan: &Plan, outcome: &TransferOutcome) -> HashSet<Digest> {
    let steps = graph.images.iter().zip(&plan.images);
    let good = steps.zip(&outcome.images).filter(|(_, result)| matches!(result, Ok(Done::Pushed | Done::Present)));
    let there = good.flat_map(|((image, step), _)| {
        let refused = blobs_of_refused(image, &step.to.repository, outcome);
        let blobs = step.blobs(image).map(|blob| blob.digest).filter(move |blob| !refused.contains(blob));
        let joined = step.companions.iter().filter_map(|companion| {
            match (outcome.action(companion), outcome.state(companion)) {
                (CompanionAction::Join { joined, .. }, _) => Some(*joined),
                (CompanionAction::Nothing, TagState::Other(found)) => Some(found),
                _ => None,
            }
        });
        // Of a list that was joined, or that has all of ours, only what is there now.
        let is_replaced = step
            .own_list()
            .is_some_and(|own| own.state != TagState::Same && *outcome.action(own) != CompanionAction::Push);
        let repository = &step.to.repository;
        let is_withheld = move |digest: &Digest| {
            let here = (repository.clone(), *digest);
            step.withheld.contains_key(digest)
                || outcome.withheld.contains(&here)
                || outcome.unlisted.contains_key(&here)
        };
        let manifests = step.manifests(image).map(Manifest::digest);
        let manifests = manifests.filter(move |digest| !is_replaced || *digest != image.locked.digest);
        let manifests = manifests.chain(step.present.iter().copied()).filter(move |digest| !is_withheld(digest));
        blobs.chain(manifests).chain(joined)
    });
    there.collect()
}

/// Blobs that only manifests need which the target refused: nothing there refers to them, so a garbage collection takes them.
fn blobs_of_refused(image: &Image, repository: &Repository, outcome: &TransferOutcome) -> HashSet<Digest> {
    let is_refused = |manifest: &&Manifest| {
        let unlisted = outcome.unlisted.get(&(repository.clone(), manifest.digest()));
        unlisted.is_some_and(|unlisted| unlisted.cause == Cause::Refused)
    };
    let blobs = |manifest: &Manifest| manifest.children().into_iter().map(|child| child.descriptor.digest);
    let (refused, taken): (Vec<&Manifest>, Vec<&Manifest>) = image.manifests.iter().partition(is_refused);
    let mut only: HashSet<Digest> = refused.into_iter().flat_map(blobs).collect();
    if !only.is_empty() {
        taken.into_iter().flat_map(blobs).for_each(|blob| _ = only.remove(&blob));
    }
    only
}
