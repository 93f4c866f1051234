//! What can be wrong in a storage, as data.

use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Something wrong in the storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StorageProblem {
    /// Below the storage's root; empty when it is about a tar as a whole.
    pub path: String,
    /// What is wrong, for programs.
    #[serde(rename = "code")]
    pub kind: StorageProblemKind,
    /// What is wrong, for people.
    #[serde(rename = "found")]
    pub what: String,
    /// The images it costs, `repository:tag` or `repository@digest`, sorted.
    #[serde(serialize_with = "names")]
    pub images: Vec<Arc<str>>,
}

/// A problem by its place in the list.
pub(super) type At = usize;

/// What kind of problem it is.
///
/// The order is that of summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageProblemKind {
    /// A link file that is empty or holds something else than the digest it should.
    BadLink,
    /// A tag without `current/link`.
    TagWithoutLink,
    /// What something leads to is not there.
    Missing,
    /// What an index names is no longer in its repository.
    MissingChild,
    /// A blob has another size than its manifest says.
    WrongSize,
    /// Bytes have another digest than their name says.
    WrongDigest,
    /// A directory, a link or a device where a file should be, or the other way round.
    WrongType,
    /// The file system does not give it.
    Unreadable,
    /// It is not a manifest, or not one that can be carried.
    NotAManifest,
    /// Docker schema 1, which cannot be carried unchanged.
    Schema1,
    /// A digest is of an algorithm that this program does not know.
    UnknownAlgorithm,
    /// No repository, tag or digest can be called that.
    BadName,
    /// A file that does not belong there, such as what an interrupted write left.
    Stray,
    /// An entry of a tar that programs read differently, or that leads elsewhere.
    Unsafe,
}

impl StorageProblemKind {
    /// As a person reads it.
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

    /// Whether it may cost images whose names nobody can tell: a repository or its tags cannot be looked into, or a tar is
    /// not what it should be.
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
