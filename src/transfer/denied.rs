//! Uploads that a target denies to this account (401 or 403) without saying how far that reaches. Some registries grant rights by
//! repository, others by project, others all or nothing, so the denials themselves have to show it: a denied repository gets
//! nothing more, and a part of the target with [`MOST_DENIED`] denied repositories and no accepted upload gets nothing more either.

use std::collections::{HashMap, HashSet};

use super::closed::{Part, project, registry};
use crate::error::Error;
use crate::oci::Repository;

/// Denied repositories of a part, without an accepted upload, that show that the rest would be denied too.
const MOST_DENIED: usize = 10;

/// What was denied and accepted so far.
#[derive(Default)]
pub struct Denied {
    /// Each with its first denial, in their order.
    repositories: Vec<(Repository, Error)>,
    places: HashMap<Repository, usize>,
    accepting: HashSet<Part>,
    accepted: HashSet<Repository>,
}

impl Denied {
    pub fn note_accepted(&mut self, repository: &Repository) {
        if self.accepted.insert(repository.clone()) {
            self.accepting.extend([registry(repository), project(repository)]);
        }
    }

    /// Notes that an upload was denied. Returns the part of the target that is closed with it, if it is.
    pub fn note(&mut self, repository: &Repository, error: &Error) -> Option<Part> {
        // A repository that takes uploads denies this one alone.
        if self.accepted.contains(repository) {
            return None;
        }
        if self.of(repository).is_none() {
            self.places.insert(repository.clone(), self.repositories.len());
            self.repositories.push((repository.clone(), error.clone()));
        }
        self.part(repository).filter(|part| self.those(part).count() >= MOST_DENIED)
    }

    /// The denial of this repository.
    pub fn of(&self, repository: &Repository) -> Option<&Error> {
        self.repositories.get(*self.places.get(repository)?).map(|(_, error)| error)
    }

    /// The part around a repository that has taken nothing at all, as far as is known, with its first denial. A single repository is
    /// none as long as the registry takes uploads elsewhere.
    pub fn whole(&self, repository: &Repository) -> Option<(Part, Error)> {
        let part = self.part(repository)?;
        let first = self.those(&part).next().map(|(_, error)| error.clone())?;
        Some((part, first))
    }

    fn part(&self, repository: &Repository) -> Option<Part> {
        let (all, own) = (registry(repository), project(repository));
        let denied = self.those(&own).count();
        if !self.accepting.contains(&all) {
            return Some(if self.those(&all).count() == denied { own } else { all });
        }
        (denied > 1 && !self.accepting.contains(&own)).then_some(own)
    }

    fn those<'a>(&'a self, part: &'a Part) -> impl Iterator<Item = &'a (Repository, Error)> {
        self.repositories.iter().filter(move |(denied, _)| [registry(denied), project(denied)].contains(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn repository(path: &str) -> Repository {
        Repository::new("h", path).unwrap()
    }

    fn denied(paths: &[String]) -> (Denied, Vec<Option<Part>>) {
        let mut all = Denied::default();
        let no = Error::new(Kind::Refused, "no");
        let closed = paths.iter().map(|path| all.note(&repository(path), &no)).collect();
        (all, closed)
    }

    fn numbered(project: impl Fn(usize) -> String) -> Vec<String> {
        (0..MOST_DENIED).map(|nth| format!("{}/{nth}", project(nth))).collect()
    }

    #[test]
    fn what_is_denied_everywhere_is_not_asked_for_any_more() {
        let (_, closed) = denied(&numbered(|_| "p".to_owned()));
        let own = ("h".to_owned(), Some("p".to_owned()));
        assert_eq!(closed.iter().flatten().collect::<Vec<_>>(), [&own]);
        assert_eq!(closed.last().unwrap().as_ref(), Some(&own));
        let (_, closed) = denied(&numbered(|nth| format!("p{nth}")));
        assert_eq!(closed.iter().flatten().collect::<Vec<_>>(), [&("h".to_owned(), None)]);
    }

    /// Rights may be granted by repository: what may be pushed has to be tried.
    #[test]
    fn where_something_was_accepted_the_rest_is_tried() {
        let no = Error::new(Kind::Refused, "no");
        let mut all = Denied::default();
        all.note_accepted(&repository("p/good"));
        let closed = numbered(|_| "p".to_owned()).iter().filter_map(|path| all.note(&repository(path), &no)).count();
        assert!(closed == 0 && all.whole(&repository("p/0")).is_none());
        // One repository of another project is no project.
        all.note(&repository("q/0"), &no);
        assert!(all.whole(&repository("q/0")).is_none());
        all.note(&repository("q/1"), &no);
        assert_eq!(all.whole(&repository("q/0")).unwrap().0, project(&repository("q/0")));
        assert!(all.note(&repository("p/good"), &no).is_none() && all.of(&repository("p/good")).is_none());
    }

    #[test]
    fn all_that_was_denied_is_one_part_in_the_end() {
        let (all, _) = denied(&["p/a".to_owned()]);
        assert_eq!(all.whole(&repository("p/a")).unwrap().0, project(&repository("p/a")));
        let (all, _) = denied(&["p/a".to_owned(), "q/a".to_owned()]);
        assert_eq!(all.whole(&repository("p/a")).unwrap().0, registry(&repository("p/a")));
        assert!(all.whole(&repository("q/b")).is_some(), "it was not tried any more");
    }
}
