//! Companions that a push left out without being asked to.

use std::collections::BTreeMap;

use crate::oci::Reference;
use crate::pipeline::plan::{CompanionAction, CompanionStep, ImageStep, Plan};
use crate::pipeline::transfer::{Cause, TransferOutcome, Unlisted};

/// Tags, or digests of companions without a tag, each with the reason. The tags were not changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotBrought {
    /// Lists that this account may not read.
    pub denied: BTreeMap<Reference, String>,
    /// Lists that a policy of the project forbids reading.
    pub forbidden: BTreeMap<Reference, String>,
    /// As `forbidden`, but the list of the bundle exists at the target, so the tag most likely leads to it.
    pub hidden: BTreeMap<Reference, String>,
    /// Tags whose present content can neither be joined nor replaced.
    pub obstructed: BTreeMap<Reference, String>,
    /// Lists of referrers to which nothing could be added.
    pub unlisted: BTreeMap<Reference, String>,
    /// Companions that the target refuses, by digest.
    pub refused: BTreeMap<Reference, String>,
}

impl NotBrought {
    /// Collects what a plan shows.
    pub(super) fn planned(plan: &Plan) -> NotBrought {
        let steps = plan.images.iter().flat_map(|step| step.companions.iter().map(move |own| (step, own)));
        NotBrought::among(steps.map(|(step, own)| (step, own, &own.action)))
    }

    /// Collects the result of a push, for images that are at the target.
    pub(super) fn after(plan: &Plan, outcome: &TransferOutcome) -> NotBrought {
        let there = plan.images.iter().zip(&outcome.images).filter(|(_, result)| result.is_ok());
        let steps = there.flat_map(|(step, _)| step.companions.iter().map(move |own| (step, own)));
        let mut all = NotBrought::among(steps.map(|(step, own)| (step, own, outcome.action(own))));
        outcome.unlisted.values().for_each(|unlisted| all.add(unlisted));
        all
    }

    /// Collects from companions with their images and actions.
    fn among<'a>(
        companions: impl Iterator<Item = (&'a ImageStep, &'a CompanionStep, &'a CompanionAction)>,
    ) -> NotBrought {
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
            tags.insert(tag.clone(), reason.clone());
        }
        all
    }

    /// Adds a list of referrers that was not changed, or a companion that was refused.
    fn add(&mut self, Unlisted { what, why, cause }: &Unlisted) {
        let names = match cause {
            Cause::List => &mut self.unlisted,
            Cause::Denied => &mut self.denied,
            Cause::Refused => &mut self.refused,
        };
        names.insert(what.clone(), why.clone());
        if *cause == Cause::Refused {
            self.obstructed.remove(what);
        }
    }

    /// Whether companions are missing that another account, or a free tag, would have made possible.
    pub fn is_failure(&self) -> bool {
        let failed = [&self.denied, &self.obstructed, &self.unlisted, &self.refused];
        failed.into_iter().any(|companions| !companions.is_empty())
    }
}
