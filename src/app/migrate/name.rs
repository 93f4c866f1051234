//! What an image in a storage is called.

use serde::Serialize;

use crate::oci::{Digest, Tag};
use crate::transport::storage::Tagged;

/// What an image in a storage is called.
#[derive(Clone, Debug, Serialize)]
pub struct StoredName {
    /// `REPOSITORY:TAG`, or `REPOSITORY@DIGEST`.
    pub name: String,
    /// Its path. Absent: its name does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Absent: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Absent: its tag means nothing.
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

    /// Of one that has a name alone.
    pub fn by_name(name: &str) -> StoredName {
        let (repository, tag) = name.rsplit_once(':').filter(|(repository, _)| !repository.contains('@')).unzip();
        let (repository, tag) = (repository.map(str::to_owned), tag.map(str::to_owned));
        StoredName { name: name.to_owned(), repository, tag, digest: None }
    }
}
