//! Problems of a storage, as data.

use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A problem of the storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StorageProblem {
    /// Below the storage's root; empty for the tar as a whole.
    pub path: String,
    /// What is wrong, for programs.
    #[serde(rename = "code")]
    pub kind: StorageProblemKind,
    /// What is wrong, for people.
    #[serde(rename = "found")]
    pub what: String,
    /// The affected images, `repository:tag` or `repository@digest`, sorted.
    #[serde(serialize_with = "names")]
    pub images: Vec<Arc<str>>,
}

/// The index of a problem in the list.
pub(super) type At = usize;

/// The kind of a problem.
///
/// The order is that of summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageProblemKind {
    /// A link file is empty or does not contain the right digest.
    BadLink,
    /// A tag without `current/link`.
    TagWithoutLink,
    /// Something refers to content that does not exist.
    Missing,
    /// A child of an index is no longer in its repository.
    MissingChild,
    /// A blob has another size than its manifest states.
    WrongSize,
    /// Bytes do not match the digest in their name.
    WrongDigest,
    /// A directory, link or device in place of a file, or the reverse.
    WrongType,
    /// The file system cannot read it.
    Unreadable,
    /// It is not a manifest, or not one that can be carried.
    NotAManifest,
    /// Docker schema 1, which cannot be carried unchanged.
    Schema1,
    /// A digest has an unknown algorithm.
    UnknownAlgorithm,
    /// It is not a valid name of a repository, tag or digest.
    BadName,
    /// A file that does not belong there, for example from an interrupted write.
    Stray,
    /// A tar entry that programs read differently, or that leads elsewhere.
    Unsafe,
}

impl StorageProblemKind {
    /// The label for people.
    pub fn label(self) -> &'static str {
        match self {
            StorageProblemKind::BadLink => "bad link",
            StorageProblemKind::TagWithoutLink => "tag without a link",
            StorageProblemKind::Missing => "missing",
            StorageProblemKind::MissingChild => "missing child of an index",
            StorageProblemKind::WrongSize => "wrong size",
            StorageProblemKind::WrongDigest => "wrong digest",
            StorageProblemKind::WrongType => "wrong type of file",
            StorageProblemKind::Unreadable => "unreadable",
            StorageProblemKind::NotAManifest => "not a manifest",
            StorageProblemKind::Schema1 => "schema 1",
            StorageProblemKind::UnknownAlgorithm => "unknown algorithm",
            StorageProblemKind::BadName => "bad name",
            StorageProblemKind::Stray => "stray file",
            StorageProblemKind::Unsafe => "unsafe",
        }
    }
}

impl StorageProblem {
    pub fn new(path: impl Into<String>, kind: StorageProblemKind, what: impl Into<String>) -> StorageProblem {
        StorageProblem { path: path.into(), kind, what: what.into(), images: Vec::new() }
    }

    /// Whether it may affect images whose names are unknown: a repository or its tags cannot be read, or a tar is damaged.
    pub fn hides_images(&self) -> bool {
        let in_repository = self.path.split_once("/_").map(|(_, rest)| rest);
        let is_above_images = match in_repository {
            None => self.path.starts_with("repositories"),
            Some(rest) => matches!(rest, "manifests" | "manifests/tags" | "manifests/revisions"),
        };
        self.images.is_empty()
            && match self.kind {
                StorageProblemKind::Unsafe => true,
                StorageProblemKind::Unreadable | StorageProblemKind::WrongType => is_above_images,
                StorageProblemKind::BadName => in_repository.is_none() && is_above_images,
                _ => false,
            }
    }
}

fn names<S: Serializer>(images: &[Arc<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(images.iter().map(|name| &**name))
}
