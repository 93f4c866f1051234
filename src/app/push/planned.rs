//! The report of a dry run.

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

/// What a push would do, according to a dry run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushPlan {
    pub version: u32,
    /// Whether the push would not be refused, as far as can be determined.
    pub ok: bool,
    pub images: Vec<PlannedImage>,
    /// Images that the source cannot deliver.
    pub failed: Vec<ImageReceipt>,
    /// Images that were requested for the bundle and are missing from it.
    pub missing: Vec<MissingImage>,
    /// What the target is, what would be created there, and what could fail.
    pub notes: Vec<String>,
    /// Bytes to upload.
    pub new_bytes: u64,
    /// Bytes to mount from another repository.
    pub mounted_bytes: u64,
    /// Bytes that already exist.
    pub present_bytes: u64,
    /// What would be deleted. Absent if pruning was not requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Vec<PrunedReceipt>>,
    /// Number of tags that would get another digest.
    #[serde(skip)]
    pub replaced: usize,
    #[serde(skip)]
    pub not_brought: NotBrought,
    #[serde(skip)]
    pub left_out: Option<LeftOut>,
    /// Problems of the source.
    #[serde(skip)]
    pub problems: Vec<String>,
    #[serde(skip)]
    pub outcome: Outcome,
    /// The error that occurred after planning.
    #[serde(rename = "error", skip_serializing_if = "Option::is_none", serialize_with = "as_detail")]
    pub failure: Option<Error>,
}

/// What a push would do with an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedImage {
    /// The reference at the source.
    pub source: Reference,
    pub reference: Reference,
    pub digest: Digest,
    #[serde(flatten)]
    pub action: PlannedAction,
    /// The present state of its tag at the target.
    pub tag: TagState,
    pub companions: Vec<PlannedCompanion>,
    /// Whether the image may have more companions than the bundle contains.
    pub attached_unknown: bool,
    /// Size of all its content in bytes.
    #[serde(skip)]
    pub size: u64,
    /// The tags of its companions, and its own tag if it is the tag of a list.
    #[serde(skip)]
    pub tags: Vec<CompanionStep>,
}

/// The action for an image or a companion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum PlannedAction {
    Push,
    /// The push will show whether the image exists, because a policy hides it.
    Unreadable,
    /// Everything already exists, including the tag.
    Nothing,
    /// The tag leads to another image, and is not changed.
    Skip,
    /// An error: the tag leads to another image.
    Refuse,
    /// An error: the tag leads to another image and is immutable.
    Immutable,
    /// The image needs content of another volume.
    Wait,
    /// The tag is the tag of a list, which gets the entries of both sides.
    Join {
        /// The digest of the joined list.
        joined: Digest,
        /// Number of entries that already exist.
        kept: usize,
        /// Number of entries to add.
        added: usize,
    },
}

/// What a push would do with a companion.
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

/// The tag of a companion, and its action.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum PlannedTag {
    /// A companion with a tag.
    Tagged {
        /// The tag at the target.
        reference: Reference,
        /// The present state of the tag at the target.
        tag: TagState,
        #[serde(flatten)]
        action: CompanionAction,
    },
    /// A referrer, which has no tag of its own and therefore no conflicts.
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
            problems: request.problems.clone(),
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

/// Counts the tags of these images and their companions that get another digest. A list that is joined is not replaced.
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
