//! Uploads that a target denies to this account (401, 403, a login page) without saying how far that reaches. Some
//! registries grant rights per repository, others per project, others for the whole registry. So each repository is
//! tried, a denied one gets nothing more, and if a part of the target has denied everything that was sent, that is
//! reported once at the end.

use std::collections::{HashMap, HashSet};

use super::part::TargetPart;
use crate::base::error::Error;
use crate::oci::Repository;

/// What was denied and accepted so far.
#[derive(Default)]
pub struct Denied {
    /// Each with its first denial, and the number of denials before that.
    repositories: HashMap<Repository, (usize, Error)>,
    denials: usize,
    accepting: HashSet<TargetPart>,
    accepted: HashSet<Repository>,
}

impl Denied {
    /// Records that something exists or was accepted: the part around the repository does not deny everything.
    pub fn note_accepted(&mut self, repository: &Repository) {
        if self.accepted.insert(repository.clone()) {
            self.accepting.extend([TargetPart::registry(repository), TargetPart::project(repository)]);
            self.repositories.remove(repository);
        }
    }

    /// Records that an upload was denied.
    pub fn note(&mut self, repository: &Repository, error: &Error) {
        // A repository that accepts other uploads denies only this one.
        if !self.accepted.contains(repository) {
            let before = self.denials;
            self.denials += 1;
            self.repositories.entry(repository.clone()).or_insert_with(|| (before, error.clone()));
        }
    }

    /// Returns the denial of this repository.
    pub fn of(&self, repository: &Repository) -> Option<&Error> {
        self.repositories.get(repository).map(|(_, error)| error)
    }

    /// Returns the part around a repository that has accepted nothing at all, as far as is known, with its first
    /// denial. `None` for a single repository as long as the registry accepts uploads elsewhere.
    pub fn whole(&self, repository: &Repository) -> Option<(TargetPart, Error)> {
        let part = self.part(repository)?;
        let first = self.those(&part).min_by_key(|(before, _)| *before).map(|(_, error)| error.clone())?;
        Some((part, first))
    }

    fn part(&self, repository: &Repository) -> Option<TargetPart> {
        let (all, own) = (TargetPart::registry(repository), TargetPart::project(repository));
        let denied = self.those(&own).count();
        if !self.accepting.contains(&all) {
            return Some(if self.those(&all).count() == denied { own } else { all });
        }
        (denied > 1 && !self.accepting.contains(&own)).then_some(own)
    }

    fn those<'a>(&'a self, part: &'a TargetPart) -> impl Iterator<Item = &'a (usize, Error)> {
        let those = self
            .repositories
            .iter()
            .filter(move |(denied, _)| [TargetPart::registry(denied), TargetPart::project(denied)].contains(part));
        those.map(|(_, denial)| denial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Kind;

    fn repository(path: &str) -> Repository {
        Repository::new("h", path).unwrap()
    }

    fn denied(paths: &[&str]) -> Denied {
        let mut all = Denied::default();
        paths.iter().for_each(|path| all.note(&repository(path), &Error::new(Kind::Refused, "no")));
        all
    }

    /// Rights may be granted per repository: what may be pushed has to be tried.
    #[test]
    fn where_something_was_accepted_each_repository_counts_alone() {
        let mut all = denied(&["p/0", "p/1", "q/0"]);
        all.note_accepted(&repository("p/good"));
        assert!(all.whole(&repository("p/0")).is_none());
        assert!(all.whole(&repository("q/0")).is_none(), "one repository of another project is no project");
        let no = Error::new(Kind::Refused, "no");
        all.note(&repository("q/1"), &no);
        assert_eq!(all.whole(&repository("q/0")).unwrap().0, TargetPart::project(&repository("q/0")));
        all.note(&repository("p/good"), &no);
        assert!(all.of(&repository("p/good")).is_none());
        all.note_accepted(&repository("p/0"));
        assert!(all.of(&repository("p/0")).is_none(), "it takes uploads after all");
    }

    #[test]
    fn all_that_was_denied_is_one_part_in_the_end() {
        let all = denied(&["p/a"]);
        assert_eq!(all.whole(&repository("p/a")).unwrap().0, TargetPart::project(&repository("p/a")));
        let all = denied(&["p/a", "q/a"]);
        assert_eq!(all.whole(&repository("p/a")).unwrap().0, TargetPart::registry(&repository("p/a")));
        assert!(all.whole(&repository("q/b")).is_some(), "it was not tried any more");
    }
}
