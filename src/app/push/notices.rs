//! Notices about tags of companions that have another digest at the target.

use std::collections::BTreeSet;

use crate::base::progress::units::count;
use crate::oci::Tag;
use crate::pipeline::plan::{Action, CompanionAction, CompanionStep, Plan, TagState};

/// Returns one line for each such tag.
pub(super) fn notices(plan: &Plan) -> Vec<String> {
    let pushed = plan.images.iter().filter(|step| matches!(step.action, Action::Push | Action::Nothing));
    let notices: BTreeSet<String> = pushed.flat_map(|step| &step.companions).filter_map(notice).collect();
    notices.into_iter().collect()
}

fn notice(step: &CompanionStep) -> Option<String> {
    let TagState::Other(found) = step.state else { return None };
    let tag = &step.tag;
    match &step.action {
        CompanionAction::Push => Some(format!("{tag} is overwritten; it was {found}")),
        CompanionAction::Join { joined, kept, added } => Some(format!(
            "{tag} keeps its {} and gets {added} from the bundle: {joined}; it was {found}",
            count(*kept, if tag.tag.as_ref().is_some_and(Tag::is_referrers_list) { "referrer" } else { "signature" })
        )),
        CompanionAction::Skip => Some(format!("{tag} is not changed; it is {found}, not {}", step.digest)),
        CompanionAction::Nothing | CompanionAction::Refuse { .. } => None,
        CompanionAction::Unreadable { .. } | CompanionAction::Obstructed { .. } => None,
    }
}
