//! The name of an image in a storage.

use serde::Serialize;

use crate::oci::{Digest, Tag};
use crate::transport::storage::Tagged;

/// The name of an image in a storage.
#[derive(Clone, Debug, Serialize)]
pub struct StoredName {
    /// `REPOSITORY:TAG`, or `REPOSITORY@DIGEST`.
    pub name: String,
    /// The path of the repository. Absent if the name does not contain it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The tag. Absent for an untagged image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The digest. Absent if the tag leads to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl StoredName {
    pub fn of(found: &Tagged) -> StoredName {
        StoredName {
            name: found.name(),
            repository: Some(found.repository.path().to_owned()),
            tag: found.tag.as_ref().map(Tag::to_string),
            digest: Some(found.digest),
        }
    }

    /// An image known only by its name.
    pub fn by_name(name: &str) -> StoredName {
        let (repository, tag) = name.rsplit_once(':').filter(|(repository, _)| !repository.contains('@')).unzip();
        let (repository, tag) = (repository.map(str::to_owned), tag.map(str::to_owned));
        StoredName { name: name.to_owned(), repository, tag, digest: None }
    }
}
