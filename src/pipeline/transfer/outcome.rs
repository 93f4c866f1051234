//! How a transfer ended, image by image.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Cause, CompanionOutcomes, TagOutcome, Unlisted};
use crate::base::error::{Error, Result};
use crate::oci::{Digest, Manifest, Reference, Repository};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::plan::{CompanionAction, CompanionStep, Plan, TagState};

/// The result for each image of the plan, in its order, and what it cost.
#[derive(Debug)]
pub struct TransferOutcome {
    /// An error does not name the image.
    pub images: Vec<Result<Done, Arc<Error>>>,
    /// Bytes of blobs that moved.
    pub moved: u64,
    /// Bytes of blobs that were mounted instead.
    pub mounted: u64,
    /// Existing content that a policy of the target forbids pulling, with the target's words: tags, and children of
    /// indexes by tag and digest. Sorted.
    pub blocked: Vec<(Reference, String)>,
    /// Manifests that were put and that a policy currently forbids pulling.
    pub withheld: HashSet<(Repository, Digest)>,
    /// Tags that cannot be set and may not be read. Their images exist. Sorted.
    pub kept: Vec<Reference>,
    /// Companions that are not found through their subject: refused, or the list that should name them was left alone.
    pub unlisted: BTreeMap<(Repository, Digest), Unlisted>,
    /// Tags that this run has set and manifests that it has stored, with their last meaning, including those of failed
    /// images.
    pub set: HashMap<Reference, Digest>,
    /// The results for tags of companions that were read again.
    pub companions: CompanionOutcomes,
}

impl TransferOutcome {
    /// Returns what was done with the tag of a companion in the end. It differs from the plan if someone there changed
    /// the tag meanwhile.
    pub fn action<'a>(&'a self, companion: &'a CompanionStep) -> &'a CompanionAction {
        self.tag_outcome(companion).map_or(&companion.action, |tag_outcome| &tag_outcome.action)
    }

    /// Returns what the tag of a companion meant when that was decided.
    pub fn state(&self, companion: &CompanionStep) -> TagState {
        self.tag_outcome(companion).map_or(companion.state, |tag_outcome| tag_outcome.state)
    }

    fn tag_outcome(&self, companion: &CompanionStep) -> Option<&TagOutcome> {
        self.companions.get(&companion.tag, &companion.digest)
    }
}

/// How an image ended without a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Pushed,
    /// All of it existed.
    Present,
    /// It was left alone: the tag means another image.
    Skipped,
    /// The part of it that has arrived was pushed; the rest is still to come.
    Waiting,
}

/// Returns the distinct blobs and manifests confirmed at the target: those that existed and those that arrived. Not the
/// manifests that the target withholds or does not find through their subject: an increment that relied on them could
/// not be read there.
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
        // For a list that was joined, or that contains all of ours, only what exists now.
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

/// Blobs that only refused manifests need: nothing at the target refers to them, so a garbage collection removes them.
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
