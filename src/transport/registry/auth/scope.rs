//! The scope of a token (distribution `docs/spec/auth/scope.md`).

use std::collections::{BTreeMap, BTreeSet};

use super::claims::Granted;
use crate::oci::Repository;

/// One or more repositories and actions. The repository that is written to comes first, because some token servers use only
/// the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::transport::registry) struct Scopes(Vec<(String, Action)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// Only authentication, without a right to any repository.
    Enter,
    Pull,
    Push,
    Delete,
}

impl Scopes {
    /// With the credentials for `path`, which may be empty.
    pub fn enter(path: &str) -> Scopes {
        Scopes(vec![(path.to_owned(), Action::Enter)])
    }

    pub fn pull(repository: &Repository) -> Scopes {
        Scopes(vec![(repository.path().to_owned(), Action::Pull)])
    }

    pub fn push(repository: &Repository) -> Scopes {
        Scopes(vec![(repository.path().to_owned(), Action::Push)])
    }

    /// The right to push to each of these repositories.
    pub fn push_all(paths: &[String]) -> Scopes {
        Scopes(paths.iter().map(|path| (path.clone(), Action::Push)).collect())
    }

    /// The right to pull from each of these repositories.
    pub fn pull_all(paths: &[String]) -> Scopes {
        Scopes(paths.iter().map(|path| (path.clone(), Action::Pull)).collect())
    }

    pub fn delete(repository: &Repository) -> Scopes {
        Scopes(vec![(repository.path().to_owned(), Action::Delete)])
    }

    pub fn and_pull(mut self, other: &Repository) -> Scopes {
        if other.path() != self.path() {
            self.0.push((other.path().to_owned(), Action::Pull));
        }
        self
    }

    /// Whether something will be written, so that the registry is a target.
    pub fn may_push(&self) -> bool {
        self.0.iter().any(|(_, action)| *action == Action::Push)
    }

    /// The repository whose credentials apply; empty without a repository.
    pub fn path(&self) -> &str {
        self.0.first().map_or("", |(path, _)| path)
    }

    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(path, _)| path.as_str())
    }

    /// The projects of the repositories: the part before the first `/`.
    pub fn projects(&self) -> impl Iterator<Item = &str> {
        self.paths().map(project)
    }

    /// Whether a token that grants these actions on each project is sufficient.
    pub fn are_granted_by_project(&self, granted: &Granted) -> bool {
        let mut by_project: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (path, actions) in granted {
            by_project.entry(project(path)).or_default().extend(actions.iter().map(String::as_str));
        }
        self.0.iter().all(|(path, action)| {
            let has =
                |word: &&str| by_project.get(project(path)).is_some_and(|it| it.contains(word) || it.contains("*"));
            action.words().iter().all(has)
        })
    }

    /// Whether a token for whole projects covers each project and grants something there. Another token would grant no more.
    pub fn are_answered_by_project(&self, granted: &Granted) -> bool {
        let grants =
            |path: &str| granted.iter().any(|(it, actions)| project(it) == project(path) && !actions.is_empty());
        self.0.iter().all(|(path, action)| action.words().is_empty() || grants(path))
    }

    /// In the form that token servers accept.
    pub fn words(&self) -> Vec<String> {
        let named = self.0.iter().filter(|(_, action)| !action.words().is_empty());
        named.map(|(path, action)| format!("repository:{path}:{}", action.words().join(","))).collect()
    }
}

impl Action {
    fn words(self) -> &'static [&'static str] {
        match self {
            Action::Enter => &[],
            Action::Pull => &["pull"],
            Action::Push => &["pull", "push"],
            Action::Delete => &["pull", "delete"],
        }
    }
}

/// The first component of a repository's path.
pub(super) fn project(path: &str) -> &str {
    path.split_once('/').map_or(path, |(project, _)| project)
}
