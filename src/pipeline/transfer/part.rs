//! Parts of a target that a refusal may extend to.

use std::fmt;

use crate::oci::Repository;

/// A registry, or a project in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetPart {
    registry: String,
    project: Option<String>,
}

impl TargetPart {
    /// The registry of this repository.
    pub fn registry(repository: &Repository) -> TargetPart {
        TargetPart { registry: repository.registry().to_owned(), project: None }
    }

    /// The project of this repository.
    pub fn project(repository: &Repository) -> TargetPart {
        TargetPart { project: Some(repository.project().to_owned()), ..TargetPart::registry(repository) }
    }
}

impl fmt::Display for TargetPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.project {
            Some(project) => write!(f, "{}/{project}", self.registry),
            None => f.write_str(&self.registry),
        }
    }
}
