//! What a dry run found: what a push would do.

use std::collections::HashSet;

use serde::Serialize;

use super::{LeftOut, NotBrought, PushRequest};
use crate::app::failure::as_detail;
use crate::app::outcome::{Outcome, REPORT_VERSION};
use crate::base::error::Error;
use crate::oci::{Digest, Reference};
use crate::pipeline::companion::Kind;
use crate::pipeline::graph::Image;
use crate::pipeline::lock::{Attached, MissingImage};
use crate::pipeline::plan::{Action, CompanionAction, CompanionStep, ImageStep, Plan, TagState};
use crate::pipeline::receipt::{ImageReceipt, PrunedReceipt, kind_of};

/// What a push would do, found by a dry run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushPlan {
    pub version: u32,
    /// The push itself would not be refused, as far as can be known.
    pub ok: bool,
    pub images: Vec<PlannedImage>,
    /// Images that the source cannot give.
    pub failed: Vec<ImageReceipt>,
    /// Images that the bundle was to bring and lacks.
    pub missing: Vec<MissingImage>,
    /// What the target is, what would be created there, and what could go wrong.
    pub notes: Vec<String>,
    /// Bytes to upload.
    pub new_bytes: u64,
    /// Bytes to mount from another repository.
    pub mounted_bytes: u64,
    /// Bytes that are there already.
    pub present_bytes: u64,
    /// What would be deleted. `None`: that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Vec<PrunedReceipt>>,
    /// Tags that would get another meaning.
    #[serde(skip)]
    pub replaced: usize,
    #[serde(skip)]
    pub not_brought: NotBrought,
    #[serde(skip)]
    pub left_out: Option<LeftOut>,
    /// What is wrong with the source.
    #[serde(skip)]
    pub faults: Vec<String>,
    #[serde(skip)]
    pub outcome: Outcome,
    /// What failed afterwards.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
}

/// What would become of an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedImage {
    /// Where it comes from.
    pub source: Reference,
    pub reference: Reference,
    pub digest: Digest,
    #[serde(flatten)]
    pub action: PlannedAction,
    /// What its tag means there now.
    pub tag: TagState,
    pub companions: Vec<PlannedCompanion>,
    /// More may be attached to it than its bundle brings.
    pub attached_unknown: bool,
    /// Bytes of everything below it.
    #[serde(skip)]
    pub size: u64,
    /// The tags of its companions, and its own if it is one of a list.
    #[serde(skip)]
    pub tags: Vec<CompanionStep>,
}

/// What would be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum PlannedAction {
    Push,
    /// Whether it is there, or could be, shows when it is pushed: a policy hides it.
    Unreadable,
    /// All of it is there, tag included.
    Nothing,
    /// The tag means another image, and is left alone.
    Skip,
    /// It fails: the tag means another image.
    Refuse,
    /// The same, and the tag is immutable.
    Immutable,
    /// Something it needs comes with another volume.
    Wait,
    /// Its own tag is one of a list: it gets the entries of both sides.
    Join {
        /// The list of both.
        joined: Digest,
        /// How many entries are there already.
        kept: usize,
        /// How many are added.
        added: usize,
    },
}

/// What would become of a companion.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedCompanion {
    pub kind: Kind,
    pub digest: Digest,
    pub subject: Digest,
    pub media_type: String,
    pub artifact_type: Option<String>,
    #[serde(flatten)]
    pub place: PlannedTag,
}

/// The tag of a companion, and what would be done with it.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum PlannedTag {
    /// It has a tag.
    Tagged {
        /// The tag at the target.
        reference: Reference,
        /// What the tag means there now.
        tag: TagState,
        #[serde(flatten)]
        action: CompanionAction,
    },
    /// A referrer has no tag of its own, so nothing can be in its way.
    Referrer(PlannedAction),
}

impl PushPlan {
    pub(super) fn new(request: &PushRequest<'_>, plan: &Plan, notes: Vec<String>, outcome: Outcome) -> PushPlan {
        let graph = &request.graph;
        let pushed = plan.images.iter().filter(|step| step.action == Action::Push);
        PushPlan {
            version: REPORT_VERSION,
            ok: outcome.is_ok(),
            images: graph.images.iter().zip(&plan.images).map(|(image, step)| planned(image, step)).collect(),
            failed: request.lost.clone(),
            missing: request.missing.clone(),
            notes,
            new_bytes: plan.new_bytes(),
            mounted_bytes: plan.mounted_bytes(),
            present_bytes: plan.present_bytes(graph),
            pruned: None,
            replaced: replaced(pushed, |own| (own.state, &own.action)),
            not_brought: NotBrought::planned(plan),
            left_out: request.left_out.clone(),
            faults: request.faults.clone(),
            outcome,
            failure: None,
        }
    }
}

fn planned(image: &Image, step: &ImageStep) -> PlannedImage {
    PlannedImage {
        source: image.locked.reference.clone(),
        reference: step.to.clone(),
        digest: image.locked.digest,
        action: action(step),
        tag: step.tag,
        companions: image.locked.companions().iter().map(|attached| companion(image, step, attached)).collect(),
        attached_unknown: image.locked.attached_unknown,
        size: image.locked.total_size,
        tags: step.companions.clone(),
    }
}

fn action(step: &ImageStep) -> PlannedAction {
    match (step.action, step.own_list().map(|own| &own.action)) {
        (Action::Push, _) if step.is_unreadable => PlannedAction::Unreadable,
        (Action::Push, Some(CompanionAction::Join { joined, kept, added })) => {
            PlannedAction::Join { joined: *joined, kept: *kept, added: *added }
        }
        (Action::Push, _) => PlannedAction::Push,
        (Action::Nothing, _) => PlannedAction::Nothing,
        (Action::Skip, _) => PlannedAction::Skip,
        (Action::Refuse, _) => PlannedAction::Refuse,
        (Action::Immutable, _) => PlannedAction::Immutable,
        (Action::Wait, _) => PlannedAction::Wait,
    }
}

fn companion(image: &Image, step: &ImageStep, attached: &Attached) -> PlannedCompanion {
    let is_own = |own: &&CompanionStep| own.tag.tag == attached.tag && own.digest == attached.digest;
    let place = match step.companions.iter().find(is_own) {
        Some(own) => PlannedTag::Tagged { reference: own.tag.clone(), tag: own.state, action: own.action.clone() },
        None => PlannedTag::Referrer(of_referrer(step, &attached.digest)),
    };
    PlannedCompanion {
        kind: kind_of(image, attached),
        digest: attached.digest,
        subject: attached.subject,
        media_type: attached.media_type.clone(),
        artifact_type: attached.artifact_type.clone(),
        place,
    }
}

fn of_referrer(step: &ImageStep, digest: &Digest) -> PlannedAction {
    match step.action {
        Action::Skip => PlannedAction::Skip,
        Action::Refuse | Action::Immutable => PlannedAction::Refuse,
        Action::Wait => PlannedAction::Wait,
        Action::Push | Action::Nothing if step.present.contains(digest) => PlannedAction::Nothing,
        Action::Push | Action::Nothing => PlannedAction::Push,
    }
}

/// How many tags of these images and their companions mean something else than before. What both sides signed is joined, and not
/// replaced.
pub(super) fn replaced<'p>(
    pushed: impl Iterator<Item = &'p ImageStep>,
    ended: impl Fn(&'p CompanionStep) -> (TagState, &'p CompanionAction),
) -> usize {
    let is_replaced = |own: &&'p CompanionStep| matches!(ended(own), (TagState::Other(_), CompanionAction::Push));
    let tags = pushed.flat_map(|step| {
        let own = step.replaced().map(|_| &step.to);
        own.into_iter().chain(step.companions.iter().filter(is_replaced).map(|own| &own.tag))
    });
    tags.collect::<HashSet<&Reference>>().len()
}
