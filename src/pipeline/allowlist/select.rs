//! What a rule selects.

use std::fmt;

use super::{Pattern, semver};
use crate::oci::{Digest, Reference, Repository, Tag};

/// One image, or tags of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// A reference with a tag, a digest or both.
    One(Reference),
    AllTags(Repository),
    /// Tags that the pattern matches.
    TagsMatching {
        repository: Repository,
        pattern: Pattern,
    },
    /// Tags that are versions in the range. Other tags are not selected.
    TagsInRange {
        repository: Repository,
        range: semver::VersionRange,
    },
}

impl Select {
    pub fn repository(&self) -> &Repository {
        match self {
            Select::One(reference) => &reference.repository,
            Select::AllTags(repository)
            | Select::TagsMatching { repository, .. }
            | Select::TagsInRange { repository, .. } => repository,
        }
    }

    /// Whether it selects a tag of [`Select::repository`]. A reference by digest alone selects none.
    pub fn matches(&self, tag: &Tag) -> bool {
        match self {
            Select::One(reference) => reference.tag.as_ref() == Some(tag),
            Select::AllTags(_) => true,
            Select::TagsMatching { pattern, .. } => pattern.is_match(tag.as_str()),
            Select::TagsInRange { range, .. } => range.contains_tag(tag.as_str()),
        }
    }

    /// Whether the selection, used as a permission, covers an image with this name and content.
    ///
    /// `digest` is the digest of its content, which a pinned digest must equal. An image without a tag is covered only
    /// by a pin or by a whole repository.
    pub fn covers(&self, reference: &Reference, digest: &Digest) -> bool {
        if *self.repository() != reference.repository {
            return false;
        }
        let tag = reference.tag.as_ref();
        match self {
            Select::One(own) => {
                let tag_fits = own.tag.is_none() || own.tag.as_ref() == tag;
                tag_fits && own.digest.is_none_or(|pinned| pinned == *digest)
            }
            Select::AllTags(_) => true,
            Select::TagsMatching { .. } | Select::TagsInRange { .. } => tag.is_some_and(|tag| self.matches(tag)),
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Select::One(reference) => write!(f, "{reference}"),
            Select::AllTags(repository) => write!(f, "{repository}, all tags"),
            Select::TagsMatching { repository, pattern } => write!(f, "{repository}, tags matching {pattern}"),
            Select::TagsInRange { repository, range } => write!(f, "{repository}, versions {range}"),
        }
    }
}
