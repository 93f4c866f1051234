//! Makes a receipt from the result of a push, or from what was found at a target.

use jiff::Timestamp;

use super::{CompanionOutcome, CompanionReceipt, ImageOutcome, ImageReceipt, Receipt, ReceiptKind, kept};
use crate::base::document::Document;
use crate::oci::{Digest, Platform, media_type};
use crate::pipeline::companion;
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::lock::Attached;
use crate::pipeline::plan::{CompanionAction, CompanionStep, ImageStep, Plan, TagState};
use crate::pipeline::transfer::{Done, TransferOutcome, confirmed};

/// The bundle that was pushed, if there was one.
#[derive(Clone, Copy, Debug)]
pub struct FromBundle {
    pub identity: Option<Digest>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// The result for a tag.
struct TagOutcome {
    outcome: CompanionOutcome,
    /// What it meant before, if that was something else.
    found: Option<Digest>,
    /// What it means now, if that is not the bundle's manifest.
    joined: Option<Digest>,
}

impl TagOutcome {
    fn plain(outcome: CompanionOutcome) -> TagOutcome {
        TagOutcome { outcome, found: None, joined: None }
    }
}

impl Receipt {
    /// The receipt of a push that followed `plan`, with its result.
    pub fn new(
        from: FromBundle,
        target: &str,
        graph: &Graph,
        plan: &Plan,
        outcome: &TransferOutcome,
        finished: Timestamp,
    ) -> Receipt {
        let done = outcome;
        let images = graph.images.iter().zip(&plan.images).zip(&outcome.images).map(|((image, step), result)| {
            let (outcome, error) = match result {
                Ok(Done::Pushed) => (ImageOutcome::Pushed, None),
                Ok(Done::Present) => (ImageOutcome::Present, None),
                Ok(Done::Skipped) => (ImageOutcome::Skipped, None),
                Ok(Done::Waiting) => (ImageOutcome::Waiting, None),
                Err(error) => (ImageOutcome::Failed, Some(error.chain())),
            };
            let (source, reference) = (image.locked.reference.to_string(), Some(step.to.clone()));
            let (platforms, companions) = match is_there(result) {
                true => (platforms(image), companions(image, step, done)),
                false if result.is_err() => (Vec::new(), companions_all_the_same(image, step, done)),
                false => Default::default(),
            };
            let (found, joined) = match step.own_list().filter(|_| is_there(result)) {
                Some(own) => {
                    let TagOutcome { found, joined, .. } = outcome_of(own, done);
                    (found, joined)
                }
                None => (step.replaced().filter(|_| matches!(result, Ok(Done::Pushed))), None),
            };
            let receipt = ImageReceipt::new(source, Some(image.locked.digest), outcome);
            let attached_unknown = image.locked.attached_unknown;
            ImageReceipt { reference, found, joined, platforms, companions, attached_unknown, error, ..receipt }
        });
        let good = graph.images.iter().zip(&outcome.images).filter(|(_, result)| is_there(result));
        Receipt {
            version: Receipt::VERSION,
            kind: ReceiptKind::Receipt,
            bundle: from.identity,
            created: from.created,
            target: target.to_owned(),
            finished,
            images: images.collect(),
            missing: Vec::new(),
            confirmed: confirmed(graph, plan, outcome).into_iter().collect(),
            pruned: Vec::new(),
            wanted: Vec::new(),
            manifests: kept(good.flat_map(|(image, _)| &image.manifests)),
        }
    }
}

fn is_there<E>(result: &Result<Done, E>) -> bool {
    matches!(result, Ok(Done::Pushed | Done::Present))
}

/// The results for the companions of an image that is at the target.
fn companions(image: &Image, step: &ImageStep, done: &TransferOutcome) -> Vec<CompanionReceipt> {
    let outcome = |attached: &Attached| {
        let own = |companion: &&CompanionStep| companion.tag.tag == attached.tag && companion.digest == attached.digest;
        let Some(own) = step.companions.iter().find(own) else {
            if done.unlisted.contains_key(&(step.to.repository.clone(), attached.digest)) {
                return TagOutcome::plain(CompanionOutcome::Failed);
            }
            let is_there = step.present.contains(&attached.digest);
            return TagOutcome::plain(if is_there { CompanionOutcome::Present } else { CompanionOutcome::Pushed });
        };
        outcome_of(own, done)
    };
    let receipt = |attached: &Attached| {
        let TagOutcome { outcome, found, joined } = outcome(attached);
        let Attached { digest, subject, tag, .. } = attached.clone();
        let (kind, brought) = (kind_of(image, attached), false);
        CompanionReceipt { kind, digest, subject, tag, outcome, brought, found, joined }
    };
    image.locked.companions().iter().map(receipt).collect()
}

/// The companions of a failed image that are at the target anyway. No later run can know which of them this run
/// brought.
fn companions_all_the_same(image: &Image, step: &ImageStep, done: &TransferOutcome) -> Vec<CompanionReceipt> {
    let is_there = |attached: &Attached| {
        let own = step.companions.iter().find(|own| own.tag.tag == attached.tag && own.digest == attached.digest);
        own.map_or(step.present.contains(&attached.digest), |own| own.state == TagState::Same)
    };
    let receipt = |attached: &Attached| {
        let Attached { digest, subject, tag, .. } = attached.clone();
        let repository = &step.to.repository;
        let name = tag.clone().map_or_else(|| repository.with_digest(digest), |tag| repository.with_tag(tag));
        let (outcome, joined) = match done.set.get(&name) {
            Some(set) if *set != digest => (CompanionOutcome::Joined, Some(*set)),
            Some(_) => (CompanionOutcome::Pushed, None),
            None if is_there(attached) => (CompanionOutcome::Present, None),
            None => return None,
        };
        let (kind, brought, found) = (kind_of(image, attached), false, None);
        Some(CompanionReceipt { kind, digest, subject, tag, outcome, brought, found, joined })
    };
    image.locked.companions().iter().filter_map(receipt).collect()
}

fn outcome_of(own: &CompanionStep, done: &TransferOutcome) -> TagOutcome {
    let found = match done.state(own) {
        TagState::Other(digest) => Some(digest),
        TagState::New | TagState::Same | TagState::Blocked => None,
    };
    let (outcome, joined) = match done.action(own) {
        CompanionAction::Push => (CompanionOutcome::Pushed, None),
        CompanionAction::Join { joined, .. } => (CompanionOutcome::Joined, Some(*joined)),
        CompanionAction::Skip | CompanionAction::Unreadable { .. } => (CompanionOutcome::Skipped, None),
        CompanionAction::Obstructed { .. } => (CompanionOutcome::Failed, None),
        CompanionAction::Nothing | CompanionAction::Refuse { .. } => (CompanionOutcome::Present, None),
    };
    TagOutcome { outcome, found, joined }
}

/// The companions that were found with an image at the target.
pub fn companions_found(image: &Image) -> Vec<CompanionReceipt> {
    let receipt = |attached: &Attached| {
        let Attached { digest, subject, tag, .. } = attached.clone();
        let (outcome, found, joined) = (CompanionOutcome::Present, None, None);
        let (kind, brought) = (kind_of(image, attached), false);
        CompanionReceipt { kind, digest, subject, tag, outcome, brought, found, joined }
    };
    image.locked.companions().iter().map(receipt).collect()
}

/// The kind of a companion of `image`.
pub fn kind_of(image: &Image, attached: &Attached) -> companion::Kind {
    let manifest = image.manifests.iter().find(|manifest| manifest.digest() == attached.digest);
    companion::Kind::of(attached.tag.as_ref(), attached.artifact_type.as_deref(), manifest)
}

/// Returns the platforms of a single image, which only its config states.
pub fn platforms(image: &Image) -> Vec<Platform> {
    if media_type::is_index(&image.locked.media_type) { Vec::new() } else { image.locked.platforms.clone() }
}
