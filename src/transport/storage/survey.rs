//! What is in a storage: every repository, every tag and what it means, and everything odd on the way there. Manifests are
//! not read.

use super::tree;
use super::{Storage, links};
use crate::error::Result;
use crate::oci::{Digest, Repository, Tag};

/// How deep repository names are followed; a name has at most 255 characters.
const MAX_DEPTH: usize = 128;

/// Something wrong in the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Below the storage's root; empty when it is about a tar as a whole.
    pub path: String,
    pub what: String,
    /// The image it costs, if it is known already.
    pub image: Option<(Repository, Tag)>,
}

/// A tag and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    pub repository: Repository,
    pub tag: Tag,
    pub digest: Digest,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Survey {
    /// Sorted by repository and tag.
    pub tags: Vec<Tagged>,
    /// Those with manifests, tagged or not.
    pub repositories: Vec<Repository>,
    pub faults: Vec<Fault>,
}

impl Storage {
    /// Looks through all repositories.
    ///
    /// # Errors
    /// A directory cannot be read. All else that is wrong is a fault.
    pub fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        for (path, what) in self.tree.faults() {
            survey.faults.push(Fault { path: path.clone(), what: what.clone(), image: None });
        }
        let mut ahead = vec![String::new()];
        while let Some(name) = ahead.pop() {
            let directory = if name.is_empty() { "repositories".to_owned() } else { format!("repositories/{name}") };
            let entries = self.tree.list(&directory)?;
            // Distribution 2.8 makes `_layers` first, 3 knows a repository by its manifests alone.
            if entries.iter().any(|(entry, _)| entry == "_manifests") {
                self.survey_repository(&name, &mut survey)?;
            }
            for (entry, kind) in entries.into_iter().rev().filter(|(entry, _)| !entry.starts_with('_')) {
                let path = format!("{directory}/{entry}");
                match kind {
                    tree::Kind::Directory if name.split('/').count() < MAX_DEPTH => {
                        ahead.push(if name.is_empty() { entry } else { format!("{name}/{entry}") });
                    }
                    tree::Kind::Directory => survey.fault(path, "names nest deeper than any repository's"),
                    tree::Kind::File => survey.fault(path, "a file where only repositories are"),
                    tree::Kind::Other => {
                        survey.fault(path, "it is neither a file nor a directory, and is not followed")
                    }
                }
            }
        }
        Ok(survey)
    }

    fn survey_repository(&self, name: &str, survey: &mut Survey) -> Result<()> {
        let repository = match Repository::new(&self.registry, name) {
            Ok(repository) => repository,
            Err(error) => {
                survey.fault(format!("repositories/{name}"), format!("not a repository's name: {error}"));
                return Ok(());
            }
        };
        let directory = format!("repositories/{name}/_manifests/tags");
        for (entry, kind) in self.tree.list(&directory)? {
            let path = format!("{directory}/{entry}");
            let Ok(tag) = entry.parse::<Tag>() else {
                survey.fault(path, "not a tag's name");
                continue;
            };
            let image = Some((repository.clone(), tag.clone()));
            let what = match (kind, self.tagged(name, &entry)) {
                (tree::Kind::Directory, Ok(Some(digest))) => {
                    survey.tags.push(Tagged { repository: repository.clone(), tag, digest });
                    continue;
                }
                (tree::Kind::Directory, Ok(None)) => "the tag has no current/link: it means nothing".to_owned(),
                (tree::Kind::Directory, Err(error)) => {
                    survey.faults.push(Fault { path: links::of_tag(name, &entry), what: error.chain(), image });
                    continue;
                }
                _ => "not a directory, as every tag is".to_owned(),
            };
            survey.faults.push(Fault { path, what, image });
        }
        survey.repositories.push(repository);
        Ok(())
    }
}

impl Survey {
    fn fault(&mut self, path: String, what: impl Into<String>) {
        self.faults.push(Fault { path, what: what.into(), image: None });
    }
}
