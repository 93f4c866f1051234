//! How a plan tells of the companions of images.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::graph::Image;
use crate::oci::{Digest, Reference, Tag};
use crate::plan::{Action, CompanionAction, CompanionStep, ImageStep, Plan, TagState};
use crate::progress::units::count;
use crate::receipt::kind_of;

/// One line for each tag of a companion that means something else at the target.
pub fn notices(plan: &Plan) -> Vec<String> {
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
            "{tag} keeps the {} it has and gets {added} of the bundle: {joined}; it was {found}",
            count(*kept, if tag.tag.as_ref().is_some_and(Tag::is_referrers_list) { "referrer" } else { "signature" })
        )),
        CompanionAction::Skip => Some(format!("{tag} is left alone; it means {found}, not {}", step.digest)),
        CompanionAction::Nothing | CompanionAction::Refuse { .. } | CompanionAction::Unreadable { .. } => None,
    }
}

/// Tags of lists that are left alone because they may not be read.
#[derive(Default)]
pub struct Unreadable<'a> {
    /// This account may not.
    denied: BTreeMap<&'a Reference, &'a str>,
    /// A policy of the project forbids it to everybody.
    forbidden: BTreeMap<&'a Reference, &'a str>,
}

impl<'a> Unreadable<'a> {
    pub fn among(actions: impl Iterator<Item = (&'a Reference, &'a CompanionAction)>) -> Unreadable<'a> {
        let mut unreadable = Unreadable::default();
        for (tag, action) in actions {
            if let CompanionAction::Unreadable { reason, policy } = action {
                let tags = if *policy { &mut unreadable.forbidden } else { &mut unreadable.denied };
                tags.insert(tag, reason);
            }
        }
        unreadable
    }

    /// Whether signatures are not brought that another account could bring.
    pub fn is_denied(&self) -> bool {
        !self.denied.is_empty()
    }

    /// A line for each kind.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let kinds = [
            (&self.denied, "this account may not read", "give it the right to pull"),
            (&self.forbidden, "a policy of the project forbids reading", "they are brought once it allows that"),
        ];
        kinds.into_iter().filter_map(|(tags, who, remedy)| {
            let (_, reason) = tags.first_key_value()?;
            let tags = count(tags.len(), "tag");
            Some(format!(
                "{who} what the target has under {tags} of signatures, so they are left alone and signatures that only the bundle \
                 has are not brought; {remedy}: {reason}"
            ))
        })
    }
}

/// For the plan as JSON.
pub fn as_json(image: &Image, step: &ImageStep) -> Vec<Value> {
    let own = image.locked.companions().iter().map(|attached| {
        let mut value = json!({
            "kind": kind_of(image, attached), "digest": attached.digest, "subject": attached.subject,
            "mediaType": attached.media_type, "artifactType": attached.artifact_type,
        });
        let Some(fields) = value.as_object_mut() else { return value };
        let is_own = |own: &&CompanionStep| own.tag.tag == attached.tag && own.digest == attached.digest;
        match step.companions.iter().find(is_own) {
            Some(own) => {
                fields.insert("reference".to_owned(), json!(own.tag));
                fields.insert("tag".to_owned(), json!(own.state));
                if let Ok(Value::Object(action)) = serde_json::to_value(&own.action) {
                    fields.extend(action);
                }
            }
            None => {
                fields.insert("action".to_owned(), of_referrer(step, &attached.digest).into());
            }
        }
        value
    });
    own.collect()
}

/// A referrer has no tag of its own, so nothing can be in its way.
fn of_referrer(step: &ImageStep, digest: &Digest) -> &'static str {
    match step.action {
        Action::Skip => "skip",
        Action::Refuse | Action::Immutable => "refuse",
        Action::Wait => "wait",
        Action::Push | Action::Nothing if step.present.contains(digest) => "nothing",
        Action::Push | Action::Nothing => "push",
    }
}

/// What the image's own tag gets where it is one of a list: the fields of a companion.
pub fn own_as_json(step: &ImageStep) -> Value {
    let joined = step.own_list().filter(|own| matches!(own.action, CompanionAction::Join { .. }));
    joined.and_then(|own| serde_json::to_value(&own.action).ok()).unwrap_or_default()
}

/// For the table of the plan: a row for each tag of a companion that means something else at the target.
pub fn rows(step: &ImageStep) -> impl Iterator<Item = Vec<String>> {
    step.companions.iter().filter_map(|companion| {
        if matches!(companion.state, TagState::New | TagState::Same) || companion.tag == step.to {
            return None;
        }
        let (action, digest) = match &companion.action {
            CompanionAction::Push => ("overwrite", companion.digest),
            CompanionAction::Join { joined, .. } => ("join", *joined),
            CompanionAction::Skip => ("skip", companion.digest),
            CompanionAction::Unreadable { .. } => ("unreadable", companion.digest),
            CompanionAction::Refuse { .. } => ("fail", companion.digest),
            CompanionAction::Nothing => ("present", companion.digest),
        };
        Some(vec![companion.tag.to_string(), action.to_owned(), "-".to_owned(), digest.short(), String::new()])
    })
}
