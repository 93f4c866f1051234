//! The results for tags of companions. Two images may bring different lists for one tag, so each list is identified by
//! its tag and its digest, and the result for one list may change those of the others.

use std::collections::HashMap;

use crate::oci::{Digest, Reference};
use crate::pipeline::plan::{CompanionAction, TagState};

/// The result for the tag of a companion.
#[derive(Clone, Debug)]
pub struct TagOutcome {
    pub action: CompanionAction,
    /// What it meant just before. For a tag that this run has already changed, what it meant before that.
    pub state: TagState,
}

/// See the module documentation.
#[derive(Clone, Debug, Default)]
pub struct CompanionOutcomes(HashMap<Reference, Vec<(Digest, TagOutcome)>>);

impl CompanionOutcomes {
    /// Returns the result of `tag` for the companion `digest`, if it was looked at.
    pub fn get(&self, tag: &Reference, digest: &Digest) -> Option<&TagOutcome> {
        let of_tag = self.0.get(tag)?;
        of_tag.iter().find(|(one, _)| one == digest).map(|(_, outcome)| outcome)
    }

    /// Records the result of `tag` for the companion `digest`. That nothing was left to do for one that another image
    /// has brought is not recorded.
    pub fn record(&mut self, tag: &Reference, digest: Digest, mut outcome: TagOutcome) {
        let of_tag = self.0.entry(tag.clone()).or_default();
        if outcome.action.changes_tag() {
            if let Some((_, first)) = of_tag.iter().find(|(_, known)| known.action.changes_tag()) {
                outcome.state = first.state;
            }
            // It contains theirs as well.
            if matches!(outcome.action, CompanionAction::Join { .. }) {
                brought(of_tag).for_each(|known| known.action = outcome.action.clone());
            }
        }
        match of_tag.iter_mut().find(|(one, _)| *one == digest) {
            Some((_, known)) if known.action.changes_tag() && outcome.action == CompanionAction::Nothing => {}
            Some((_, known)) => *known = outcome,
            None => of_tag.push((digest, outcome)),
        }
    }

    /// Records the result for everything that this run has put under `tag`, after the tag was read once more.
    pub fn record_again(&mut self, tag: &Reference, action: &CompanionAction) {
        let of_tag = self.0.get_mut(tag).into_iter().flatten();
        of_tag.filter(|(_, known)| known.action.changes_tag()).for_each(|(_, known)| known.action = action.clone());
    }
}

/// Those that this run has put under the tag.
fn brought(of_tag: &mut [(Digest, TagOutcome)]) -> impl Iterator<Item = &mut TagOutcome> {
    of_tag.iter_mut().map(|(_, known)| known).filter(|known| known.action.changes_tag())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Repository;

    fn join(text: &str) -> CompanionAction {
        CompanionAction::Join { joined: Digest::sha256(text.as_bytes()), kept: 1, added: 1 }
    }

    fn tag() -> Reference {
        Repository::new("h", "a").unwrap().with_tag("sha256-00.sig".parse().unwrap())
    }

    /// Otherwise the receipt would name a list that does not exist, or a failure would count as success.
    #[test]
    fn of_two_lists_for_one_tag_each_has_an_outcome_of_its_own() {
        let (tag, [one, two, three]) = (tag(), [b"1", b"2", b"3"].map(|text| Digest::sha256(text)));
        let action = |all: &CompanionOutcomes, list: &Digest| all.get(&tag, list).unwrap().action.clone();
        let mut all = CompanionOutcomes::default();
        all.record(&tag, one, TagOutcome { action: CompanionAction::Push, state: TagState::New });
        all.record(&tag, two, TagOutcome { action: join("both"), state: TagState::Other(one) });
        assert_eq!((action(&all, &one), action(&all, &two)), (join("both"), join("both")));
        assert_eq!(all.get(&tag, &two).unwrap().state, TagState::New, "the tag did not exist before this run");
        let reason = "too large".to_owned();
        all.record(
            &tag,
            three,
            TagOutcome { action: CompanionAction::Obstructed { reason }, state: TagState::Other(two) },
        );
        assert!(matches!(action(&all, &three), CompanionAction::Obstructed { .. }));
        assert_eq!((action(&all, &one), action(&all, &two)), (join("both"), join("both")));
        // Another image brings the first list as well.
        all.record(&tag, one, TagOutcome { action: CompanionAction::Nothing, state: TagState::Other(two) });
        assert_eq!(action(&all, &one), join("both"));
    }

    #[test]
    fn what_is_seen_in_the_end_holds_for_all_that_was_brought() {
        let (tag, [one, two]) = (tag(), [b"1", b"2"].map(|text| Digest::sha256(text)));
        let mut all = CompanionOutcomes::default();
        all.record(&tag, one, TagOutcome { action: CompanionAction::Push, state: TagState::New });
        all.record(&tag, two, TagOutcome { action: CompanionAction::Skip, state: TagState::Other(one) });
        all.record_again(&tag, &join("later"));
        assert_eq!(all.get(&tag, &one).unwrap().action, join("later"));
        assert_eq!(all.get(&tag, &two).unwrap().action, CompanionAction::Skip);
    }
}
