//! What a token is to allow (distribution `docs/spec/auth/scope.md`).

use crate::oci::Repository;

/// One or more repositories and actions; the repository that is written to stands first, because some token servers judge
/// by the first alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::transport::registry) struct Scopes(Vec<(String, Action)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// Only being let in: no right to a repository is asked for.
    Enter,
    Pull,
    Push,
    Delete,
}

impl Scopes {
    /// With the credentials that count for `path`, which may be empty.
    pub fn enter(path: &str) -> Scopes {
        Scopes(vec![(path.to_owned(), Action::Enter)])
    }

    pub fn pull(repository: &Repository) -> Scopes {
        Scopes(vec![(repository.path().to_owned(), Action::Pull)])
    }

    pub fn push(repository: &Repository) -> Scopes {
        Scopes(vec![(repository.path().to_owned(), Action::Push)])
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

    /// The repository whose credentials count; empty if there is none.
    pub fn path(&self) -> &str {
        self.0.first().map_or("", |(path, _)| path)
    }

    /// As the token server takes them.
    pub fn words(&self) -> Vec<String> {
        let word = |(path, action): &(String, Action)| match action {
            Action::Enter => None,
            Action::Pull => Some(format!("repository:{path}:pull")),
            Action::Push => Some(format!("repository:{path}:pull,push")),
            Action::Delete => Some(format!("repository:{path}:pull,delete")),
        };
        self.0.iter().filter_map(word).collect()
    }
}
