//! How a plan tells of the companions of images.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::base::progress::units::count;
use crate::oci::{Digest, Reference, Tag};
use crate::pipeline::graph::Image;
use crate::pipeline::plan::{Action, CompanionAction, CompanionStep, ImageStep, Plan, TagState};
use crate::pipeline::receipt::kind_of;
use crate::pipeline::transfer::{Cause, Unlisted};

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
        CompanionAction::Nothing | CompanionAction::Refuse { .. } => None,
        CompanionAction::Unreadable { .. } | CompanionAction::Obstructed { .. } => None,
    }
}

/// Companions that are not brought although nobody asked for that: their tags are left alone.
#[derive(Default)]
pub struct NotBrought<'a> {
    /// Lists that this account may not read.
    denied: BTreeMap<&'a Reference, &'a str>,
    /// Lists that a policy of the project forbids reading.
    forbidden: BTreeMap<&'a Reference, &'a str>,
    /// The same, and the bundle's list is there, so it is most likely what the tag means.
    hidden: BTreeMap<&'a Reference, &'a str>,
    /// What is there can neither be joined nor replaced.
    obstructed: BTreeMap<&'a Reference, &'a str>,
    /// Lists of referrers in which nothing could be entered.
    unlisted: BTreeMap<&'a Reference, &'a str>,
    /// Companions that the target does not take, by their digests.
    refused: BTreeMap<&'a Reference, &'a str>,
}

impl<'a> NotBrought<'a> {
    /// Of companions, each with what becomes of its image and of itself.
    pub fn among(
        companions: impl Iterator<Item = (&'a ImageStep, &'a CompanionStep, &'a CompanionAction)>,
    ) -> NotBrought<'a> {
        let mut all = NotBrought::default();
        for (image, CompanionStep { tag, digest, .. }, action) in companions {
            let (tags, reason) = match action {
                CompanionAction::Unreadable { reason, policy: true } if image.present.contains(digest) => {
                    (&mut all.hidden, reason)
                }
                CompanionAction::Unreadable { reason, policy: true } => (&mut all.forbidden, reason),
                CompanionAction::Unreadable { reason, policy: false } => (&mut all.denied, reason),
                CompanionAction::Obstructed { reason } => (&mut all.obstructed, reason),
                _ => continue,
            };
            tags.insert(tag, reason);
        }
        all
    }

    /// With lists of referrers that were left alone, and companions that were refused.
    pub fn and_unlisted(mut self, unlisted: impl Iterator<Item = &'a Unlisted>) -> NotBrought<'a> {
        for Unlisted { what, why, cause } in unlisted {
            let names = match cause {
                Cause::List => &mut self.unlisted,
                Cause::Denied => &mut self.denied,
                Cause::Refused => &mut self.refused,
            };
            names.insert(what, why);
            if *cause == Cause::Refused {
                self.obstructed.remove(what);
            }
        }
        self
    }

    /// Whether companions are missing now that another account, or a free tag, would have brought.
    pub fn is_failure(&self) -> bool {
        let failed = [&self.denied, &self.obstructed, &self.unlisted, &self.refused];
        failed.into_iter().any(|companions| !companions.is_empty())
    }

    /// A line for each companion that failed; one for all of a registry that failed for the same reason.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        let list = "the list was left alone, so it does not name all that the bundle has: ";
        let kinds = [(&self.obstructed, ""), (&self.unlisted, list), (&self.refused, "the target refuses it: ")];
        kinds.into_iter().flat_map(|(companions, text)| by_reason(companions, text))
    }

    /// A line for each reason why lists may not be read.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let denied = self.denied.first_key_value().map(|(_, reason)| {
            format!(
                "{} left unchanged: this account may not read what the target has there. Give it the right to pull, and run the same \
                 command again to add what the bundle has ({reason})",
                counted(&self.denied)
            )
        });
        let forbidden = self.forbidden.first_key_value().map(|(_, reason)| {
            format!(
                "{} left unchanged: a policy of the project forbids reading what the target has there. To add the bundle's signatures, run \
                 the same command again with an account that may read artifacts there, or once the policy allows pulling ({reason})",
                counted(&self.forbidden)
            )
        });
        denied.into_iter().chain(forbidden)
    }

    /// A line about lists that are there.
    pub fn notice(&self) -> Option<String> {
        let (tag, reason) = self.hidden.first_key_value()?;
        let tags = counted(&self.hidden);
        Some(format!(
            "{tags} left unchanged: a policy of the project hides what the target has there. The bundle's lists are in the same \
             repositories; {} tells an account that may read artifacts whether the tags mean them ({reason})",
            tag.repository.registry()
        ))
    }
}

/// A line for all companions of a registry that have the same reason.
fn by_reason(companions: &BTreeMap<&Reference, &str>, text: &str) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Reference>> = BTreeMap::new();
    for (name, reason) in companions {
        groups.entry((name.repository.registry(), *reason)).or_default().push(name);
    }
    let line = |((_, reason), names): ((&str, &str), Vec<&Reference>)| match names.as_slice() {
        [name] => format!("companion {name}: {text}{reason}"),
        [first, ..] => format!("{} companions (the first: {first}): {text}{reason}", names.len()),
        [] => String::new(),
    };
    groups.into_iter().map(line).collect()
}

/// `2 signature tags and 1 list of referrers`.
fn counted(tags: &BTreeMap<&Reference, &str>) -> String {
    let lists = tags.keys().filter(|tag| tag.tag.as_ref().is_some_and(Tag::is_referrers_list)).count();
    let of_referrers = format!("{lists} list{} of referrers", if lists == 1 { "" } else { "s" });
    match tags.len() - lists {
        0 => of_referrers,
        signatures if lists == 0 => count(signatures, "signature tag"),
        signatures => format!("{} and {of_referrers}", count(signatures, "signature tag")),
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
            CompanionAction::Obstructed { .. } => ("obstructed", companion.digest),
            CompanionAction::Refuse { .. } => ("fail", companion.digest),
            CompanionAction::Nothing => ("present", companion.digest),
        };
        Some(vec![companion.tag.to_string(), action.to_owned(), "-".to_owned(), digest.short(), String::new()])
    })
}
