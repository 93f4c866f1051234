//! Companions that registries name and do not deliver. A registry may do so with every image, so one warning per
//! registry gives their number, and the log names them all.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::base::progress::{Event, Events};
use crate::oci::Repository;

/// What was found so far, by registry.
#[derive(Default)]
pub(super) struct LostCompanions(Mutex<BTreeMap<String, AtRegistry>>);

struct AtRegistry {
    /// The text about the first subject.
    first: String,
    subjects: usize,
    companions: usize,
}

impl LostCompanions {
    /// Records that this many `companions` of one subject are lost, as `text` says.
    pub fn note(&self, repository: &Repository, companions: usize, text: String) {
        tracing::debug!("{text}");
        let mut lost = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = AtRegistry { first: text, subjects: 0, companions: 0 };
        let here = lost.entry(repository.registry().to_owned()).or_insert(first);
        here.subjects += 1;
        here.companions += companions;
    }

    /// Reports what was recorded since the last call.
    pub fn report(&self, events: &Events) {
        let lost = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (registry, AtRegistry { first, subjects, companions }) in lost {
            events.report(Event::Warning(match subjects {
                1 => format!("{first}; left out"),
                _ => format!(
                    "{registry} lists {companions} companions of {subjects} manifests but does not deliver them; they are left out \
                     (-v names them all). The first: {first}"
                ),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::progress::Recorder;

    /// A registry that keeps its list of referrers longer than the referrers would otherwise cost a line for every
    /// image.
    #[test]
    fn one_line_for_each_registry_says_how_many_are_lost() {
        let (lost, recorder) = (LostCompanions::default(), Arc::new(Recorder::default()));
        let events: Events = recorder.clone();
        for (registry, count) in [("a.io", 2), ("b.io", 1), ("a.io", 3)] {
            let repository = Repository::new(registry, "team/app").unwrap();
            lost.note(&repository, count, format!("{repository}: {count} gone"));
        }
        lost.report(&events);
        lost.report(&events);
        let reported: Vec<String> = recorder.events().iter().map(|event| format!("{event:?}")).collect();
        assert_eq!(reported.len(), 2, "{reported:?}");
        assert!(
            reported[0].contains("a.io lists 5 companions of 2 manifests") && reported[0].contains("2 gone"),
            "{reported:?}"
        );
        assert!(reported[1].contains("b.io/team/app: 1 gone; left out"), "{reported:?}");
    }
}
