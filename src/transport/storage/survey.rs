//! Lists a storage: every repository, its tags and what they refer to, its manifests, and everything odd on the way. Manifests
//! are not read.

use std::sync::Arc;

use super::problem::{StorageProblem, StorageProblemKind};
use super::tree::Kind;
use super::{Storage, links};
use crate::base::error::Result;
use crate::content::in_parallel;
use crate::oci::{Digest, Reference, Repository, Tag};

/// Maximum depth of repository names; a name has at most 255 characters.
const MAX_DEPTH: usize = 128;

/// A tag and what it refers to; or, without a tag, a manifest that no tag leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    pub repository: Repository,
    pub tag: Option<Tag>,
    pub digest: Digest,
}

/// A repository with all its manifests, tagged or not, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub repository: Repository,
    pub revisions: Vec<Digest>,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Survey {
    /// Sorted by repository and tag.
    pub tags: Vec<Tagged>,
    /// Tags that were not requested. What they lead to is still tagged.
    pub others: Vec<Tagged>,
    /// Repositories with manifests, sorted.
    pub repositories: Vec<Holding>,
    pub problems: Vec<StorageProblem>,
}

impl Tagged {
    /// `repository:tag` or `repository@digest`, without the registry.
    pub fn name(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{}:{tag}", self.repository.path()),
            None => format!("{}@{}", self.repository.path(), self.digest),
        }
    }

    pub fn reference(&self) -> Reference {
        match &self.tag {
            Some(tag) => self.repository.with_tag(tag.clone()),
            None => self.repository.with_digest(self.digest),
        }
    }
}

impl Holding {
    pub fn has(&self, digest: &Digest) -> bool {
        self.revisions.binary_search(digest).is_ok()
    }
}

/// What is below a name among the repositories.
struct Below {
    /// The name itself, if it is a repository.
    repositories: Vec<String>,
    /// The names below it.
    below: Vec<String>,
    problems: Vec<StorageProblem>,
}

impl Storage {
    /// Lists all repositories.
    ///
    /// # Errors
    /// Their directory cannot be read. Everything else is a problem.
    pub fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        for (path, what) in self.tree.problems() {
            survey.problems.push(StorageProblem::new(path.clone(), StorageProblemKind::Unsafe, what.clone()));
        }
        // A storage that cannot be read at all is an error, not a problem.
        self.tree.list("repositories")?;
        let names = self.find_repositories(&mut survey.problems);
        for found in in_parallel(&names, |name| self.survey_repository(name)) {
            survey.tags.extend(found.tags);
            survey.repositories.extend(found.repositories);
            survey.problems.extend(found.problems);
        }
        survey.repositories.sort_by(|one, other| one.repository.cmp(&other.repository));
        self.add_given(&mut survey);
        survey.tags.sort_by(|one, other| (&one.repository, &one.tag).cmp(&(&other.repository, &other.tag)));
        Ok(survey)
    }

    /// Adds tags from elsewhere.
    fn add_given(&self, survey: &mut Survey) {
        survey.tags.retain(|tagged| !self.given.contains_key(&tagged.reference()));
        for (name, digest) in &self.given {
            let repository = &name.repository;
            let tagged = Tagged { repository: repository.clone(), tag: name.tag.clone(), digest: *digest };
            if survey.repositories.binary_search_by(|holding| holding.repository.cmp(repository)).is_ok() {
                survey.tags.push(tagged);
                continue;
            }
            let what = format!("{} should mean {digest}, and there is no such repository", tagged.name());
            let problem =
                StorageProblem::new(format!("repositories/{}", repository.path()), StorageProblemKind::Missing, what);
            survey.problems.push(StorageProblem { images: vec![Arc::from(tagged.name())], ..problem });
        }
    }

    /// The names of all repositories with manifests.
    fn find_repositories(&self, problems: &mut Vec<StorageProblem>) -> Vec<String> {
        let (mut names, mut level) = (Vec::new(), vec![String::new()]);
        while !level.is_empty() {
            let mut next = Vec::new();
            for mut found in in_parallel(&level, |name| self.look_below(name)) {
                names.append(&mut found.repositories);
                next.append(&mut found.below);
                problems.append(&mut found.problems);
            }
            level = next;
        }
        names
    }

    fn look_below(&self, name: &str) -> Below {
        let (mut repositories, mut below, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        let directory = if name.is_empty() { "repositories".to_owned() } else { format!("repositories/{name}") };
        for (entry, kind) in self.list(&directory, &mut problems) {
            let path = format!("{directory}/{entry}");
            match kind {
                // Distribution 2.8 creates `_layers` first; 3 recognizes a repository by its manifests alone.
                Kind::Directory if entry == "_manifests" => repositories.push(name.to_owned()),
                Kind::Directory if entry.starts_with('_') => {}
                Kind::Directory if name.split('/').count() < MAX_DEPTH => {
                    below.push(if name.is_empty() { entry } else { format!("{name}/{entry}") });
                }
                Kind::Directory => {
                    let what = "names nest deeper than in any repository";
                    problems.push(StorageProblem::new(path, StorageProblemKind::BadName, what));
                }
                _ if entry.starts_with('_') => problems.push(no_directory(path, kind)),
                Kind::File => {
                    let what = "a file where only repositories are";
                    problems.push(StorageProblem::new(path, StorageProblemKind::Stray, what));
                }
                Kind::Other => problems.push(no_directory(path, kind)),
            }
        }
        Below { repositories, below, problems }
    }

    fn survey_repository(&self, name: &str) -> Survey {
        let mut survey = Survey::default();
        let directory = format!("repositories/{name}/_manifests");
        let repository = match Repository::new(&self.registry, name) {
            Ok(repository) => repository,
            Err(error) => {
                let what = format!("not a repository's name: {}", error.reason);
                survey.problems.push(StorageProblem::new(
                    format!("repositories/{name}"),
                    StorageProblemKind::BadName,
                    what,
                ));
                return survey;
            }
        };
        let mut revisions = Vec::new();
        for (entry, kind) in self.list(&directory, &mut survey.problems) {
            match (entry.as_str(), kind) {
                ("tags", Kind::Directory) => self.survey_tags(&repository, &mut survey),
                ("revisions", Kind::Directory) => revisions = self.survey_revisions(name, &mut survey.problems),
                ("tags" | "revisions", _) => survey.problems.push(no_directory(format!("{directory}/{entry}"), kind)),
                _ => {}
            }
        }
        survey.repositories.push(Holding { repository, revisions });
        survey
    }

    fn survey_tags(&self, repository: &Repository, survey: &mut Survey) {
        let name = repository.path();
        let directory = format!("repositories/{name}/_manifests/tags");
        for (entry, kind) in self.list(&directory, &mut survey.problems) {
            let path = format!("{directory}/{entry}");
            let Ok(tag) = entry.parse::<Tag>() else {
                survey.problems.push(StorageProblem::new(path, StorageProblemKind::BadName, "not a tag's name"));
                continue;
            };
            let digest = match kind {
                Kind::Directory => links::read(&self.tree, &links::of_tag(name, &entry)),
                _ => Err(no_directory(path.clone(), kind)),
            };
            let none = || {
                StorageProblem::new(
                    path,
                    StorageProblemKind::TagWithoutLink,
                    "the tag has no current/link, so it means nothing",
                )
            };
            match digest.and_then(|digest| digest.ok_or_else(none)) {
                Ok(digest) => survey.tags.push(Tagged { repository: repository.clone(), tag: Some(tag), digest }),
                Err(problem) => {
                    survey
                        .problems
                        .push(StorageProblem { images: vec![Arc::from(format!("{name}:{tag}"))], ..problem });
                }
            }
        }
    }

    /// Sorted.
    fn survey_revisions(&self, name: &str, problems: &mut Vec<StorageProblem>) -> Vec<Digest> {
        let directory = format!("repositories/{name}/_manifests/revisions");
        let mut revisions = Vec::new();
        for (algorithm, kind) in self.list(&directory, problems) {
            let directory = format!("{directory}/{algorithm}");
            if let Some(problem) = unknown_algorithm(&directory, &algorithm, kind) {
                problems.push(problem);
                continue;
            }
            for (hex, kind) in self.list(&directory, problems) {
                let path = format!("{directory}/{hex}");
                let Ok(digest) = format!("{algorithm}:{hex}").parse::<Digest>() else {
                    problems.push(StorageProblem::new(path, StorageProblemKind::BadName, "not a digest"));
                    continue;
                };
                match kind {
                    Kind::Directory => match links::read_own(&self.tree, &format!("{path}/link"), &digest) {
                        Ok(true) => revisions.push(digest),
                        // A deleted manifest leaves its directory behind.
                        Ok(false) => {}
                        Err(problem) => problems.push(problem),
                    },
                    _ => problems.push(no_directory(path, kind)),
                }
            }
        }
        revisions.sort_unstable();
        revisions
    }

    /// The names in a directory; one that cannot be listed is a problem.
    pub(super) fn list(&self, directory: &str, problems: &mut Vec<StorageProblem>) -> Vec<(String, Kind)> {
        self.tree.list(directory).unwrap_or_else(|error| {
            problems.push(StorageProblem::new(directory, StorageProblemKind::Unreadable, error.chain()));
            Vec::new()
        })
    }
}

pub(super) fn no_directory(path: String, kind: Kind) -> StorageProblem {
    let what = match kind {
        Kind::Other => "it is neither a file nor a directory, and is not followed",
        _ => "it is not a directory",
    };
    StorageProblem::new(path, StorageProblemKind::WrongType, what)
}

pub(super) fn unknown_algorithm(path: &str, algorithm: &str, kind: Kind) -> Option<StorageProblem> {
    match (algorithm, kind) {
        ("sha256" | "sha512", Kind::Directory) => None,
        (_, Kind::Directory) => {
            let what = "only sha256 and sha512 are supported; nothing below it is read";
            Some(StorageProblem::new(path, StorageProblemKind::UnknownAlgorithm, what))
        }
        _ => Some(no_directory(path.to_owned(), kind)),
    }
}
