//! What is done with the tags of companions: cosign's `.sig`, `.att` and `.sbom` next to an image.
//!
//! They are tags like any other, with one exception: `.sig` and `.att` are lists that the isolated side adds to as
//! well. If both sides have something that the other lacks, the tag gets both. An image with the tag of a list is such
//! a list too: one whose subject is elsewhere, or that was named in full. Its own tag then has a step among those of
//! its companions.

use std::collections::HashSet;

use serde::Serialize;

use super::lists::{ListState, own};
use super::{Inventory, OnExisting, TagState};
use crate::oci::{Digest, Reference, Role, Tag};
use crate::pipeline::graph::Image;
use crate::pipeline::lock::Attached;

/// The tag of one companion of an image, or the image's own if it is the tag of a list.
#[derive(Clone, Debug)]
pub struct CompanionStep {
    pub tag: Reference,
    /// What it means in the bundle.
    pub digest: Digest,
    pub state: TagState,
    pub action: CompanionAction,
    /// For content that appears under the tag after the plan was made.
    pub on_existing: OnExisting,
}

/// What to do with the tag of a companion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "action")]
pub enum CompanionAction {
    /// The tag gets the bundle's manifest.
    Push,
    /// The tag already has all of it.
    Nothing,
    /// The tag gets a new manifest: the existing signatures, then those that they lack.
    Join { joined: Digest, kept: usize, added: usize },
    /// The tag means something else and should be left alone.
    Skip,
    /// This account may not read what the tag means, so the tag is left alone: the isolated side may have signed there.
    Unreadable {
        reason: String,
        /// Whether a policy of the project forbids pulling it, for every account.
        policy: bool,
    },
    /// The tag means something else that can be neither joined nor replaced, so it is left alone. The companion is not
    /// pushed; that is a failure of its own and does not affect the image.
    Obstructed { reason: String },
    /// The tag means something else, and that is an error of the image.
    Refuse { reason: String },
}

impl CompanionAction {
    /// Whether the tag gets another meaning, or its first one.
    pub fn changes_tag(&self) -> bool {
        matches!(self, CompanionAction::Push | CompanionAction::Join { .. })
    }

    /// Whether the tag is left alone although it means something else.
    pub fn leaves_tag(&self) -> bool {
        match self {
            CompanionAction::Skip | CompanionAction::Unreadable { .. } | CompanionAction::Obstructed { .. } => true,
            CompanionAction::Push | CompanionAction::Nothing => false,
            CompanionAction::Join { .. } | CompanionAction::Refuse { .. } => false,
        }
    }
}

/// Decides about the tag of a companion. `list` is known if the tag is that of a list and means something else.
pub fn decide(tag: &Reference, state: TagState, list: Option<&ListState>, on_existing: OnExisting) -> CompanionAction {
    let found = match state {
        TagState::New => return CompanionAction::Push,
        TagState::Same => return CompanionAction::Nothing,
        TagState::Other(digest) => digest.to_string(),
        TagState::Blocked => "which may not be read".to_owned(),
    };
    match (list, on_existing) {
        (Some(ListState::HasOurs), _) => CompanionAction::Nothing,
        // Nothing is lost, whichever of the two has the tag.
        (Some(ListState::Equal), OnExisting::Skip | OnExisting::Fail) => CompanionAction::Nothing,
        (_, OnExisting::Skip) => CompanionAction::Skip,
        (_, OnExisting::Fail) => {
            CompanionAction::Refuse { reason: format!("the tag {} already means something else, {found}", shown(tag)) }
        }
        (None | Some(ListState::InOurs | ListState::Equal), OnExisting::Overwrite) => CompanionAction::Push,
        (Some(ListState::Differs { joined, kept, added }), OnExisting::Overwrite) => {
            CompanionAction::Join { joined: *joined, kept: *kept, added: *added }
        }
        (Some(ListState::Unreadable { why, policy }), OnExisting::Overwrite) => {
            CompanionAction::Unreadable { reason: why.clone(), policy: *policy }
        }
        (Some(ListState::Unknown(why)), OnExisting::Overwrite) => {
            let is_referrers = tag.tag.as_ref().is_some_and(Tag::is_referrers_list);
            let (shown, what) = (shown(tag), if is_referrers { "referrers" } else { "signatures" });
            let reason = format!(
                "the tag {shown} at the target can be neither joined with the bundle's {what} nor replaced without \
                 losing its content: {why}; --on-existing skip leaves it alone"
            );
            CompanionAction::Obstructed { reason }
        }
    }
}

fn shown(tag: &Reference) -> String {
    tag.tag.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Returns one step for each tag of a companion, then that of the image itself if it is the tag of a list.
pub fn steps(image: &Image, to: &Reference, inventory: &Inventory, on_existing: OnExisting) -> Vec<CompanionStep> {
    let step = |list: (Reference, Digest)| {
        let state = TagState::of(inventory, &list.0, &list.1);
        let mut action = decide(&list.0, state, inventory.lists.get(&list), on_existing);
        let (tag, digest) = list;
        if action.changes_tag() && inventory.immutable.contains(&tag) {
            let text = "means something else already, and a rule of the project makes it immutable";
            let reason = format!("the tag {} {text}; --on-existing skip leaves it alone", shown(&tag));
            action = CompanionAction::Obstructed { reason };
        }
        CompanionStep { tag, digest, state, action, on_existing }
    };
    image.locked.companion_tags(&to.repository).chain(own(image, to)).map(step).collect()
}

/// Returns what the target need not have of an image because the tag of a companion gets or keeps another manifest:
/// that companion's own manifest, and blobs that nothing else of the image needs. The signatures of a list are needed
/// anyway. The same holds for the image's own manifest if its tag `to` is that of a list.
pub fn not_needed(image: &Image, to: &Reference, steps: &[CompanionStep]) -> HashSet<Digest> {
    let replaced = |step: &&CompanionStep| match step.action {
        CompanionAction::Nothing => step.state != TagState::Same,
        CompanionAction::Join { .. } => true,
        _ => step.action.leaves_tag(),
    };
    let is_replaced = |attached: &Attached| {
        let tag = |step: &&CompanionStep| step.tag.tag == attached.tag && step.digest == attached.digest;
        attached.tag.is_some() && steps.iter().filter(tag).any(|step| replaced(&step))
    };
    let companions = image.locked.companions();
    let root = steps.iter().find(|step| &step.tag == to).filter(replaced).map(|step| step.digest);
    let found_otherwise = companions.iter().filter(|own| !is_replaced(own)).map(|own| own.digest);
    let wanted: HashSet<Digest> = found_otherwise.chain(companions.iter().map(|own| own.subject)).collect();
    let gone = companions.iter().filter(|own| is_replaced(own)).map(|own| own.digest).chain(root);
    let mut gone: HashSet<Digest> = gone.filter(|digest| !wanted.contains(digest)).collect();
    if gone.is_empty() {
        return gone;
    }
    let is_skipped = |digest: &Digest| steps.iter().any(|step| step.digest == *digest && step.action.leaves_tag());
    let mut needed = HashSet::new();
    let mut only_there = HashSet::new();
    for manifest in &image.manifests {
        let is_gone = gone.contains(&manifest.digest());
        let keeps_layers = is_gone && !is_skipped(&manifest.digest());
        for child in manifest.children().into_iter().filter(|child| child.role != Role::Manifest) {
            let is_needed = !is_gone || keeps_layers && child.role == Role::Layer;
            let list = if is_needed { &mut needed } else { &mut only_there };
            list.insert(child.descriptor.digest);
        }
    }
    gone.extend(only_there.difference(&needed));
    gone
}
