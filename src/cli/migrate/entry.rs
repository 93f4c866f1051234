//! What documents say of an image, whole or faulty.

use serde_json::{Value, json};

use super::collect::Collected;
use super::faults;
use crate::oci::Manifest;
use crate::transport::storage::Tagged;

/// What is known of an image by its tag alone.
pub fn known(found: &Tagged) -> Value {
    json!({ "name": found.name(), "repository": found.repository.path(), "tag": found.tag, "digest": found.digest })
}

/// The keys of both objects.
pub fn merged(mut one: Value, other: Value) -> Value {
    if let (Some(one), Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}

/// An image that cannot be carried.
pub struct Faulty<'a> {
    pub name: String,
    /// `None`: its faults are all that is known of it.
    pub found: Option<&'a Tagged>,
    pub reasons: Vec<String>,
}

impl Faulty<'_> {
    /// What is known of it without its manifest.
    pub fn known(&self) -> Value {
        let by_name = || match self.name.rsplit_once(':') {
            Some((repository, tag)) if !repository.contains('@') => {
                json!({ "name": self.name, "repository": repository, "tag": tag })
            }
            _ => json!({ "name": self.name }),
        };
        self.found.map_or_else(by_name, known)
    }

    /// Its manifest, where that could be read.
    pub fn manifest<'c>(&self, collected: &'c Collected) -> Option<&'c Manifest> {
        collected.broken.get(&self.found?.digest)
    }
}

/// Every image that was wanted and is not whole.
pub fn faulty(collected: &Collected) -> Vec<Faulty<'_>> {
    let mut reasons = faults::reasons(&collected.faults);
    let mut of = |name: String, found| Faulty { reasons: reasons.remove(&*name).unwrap_or_default(), name, found };
    let faulty = collected.images.iter().filter(|(_, image)| image.is_none());
    let mut all: Vec<Faulty> = faulty.map(|(found, _)| of(found.name(), Some(found))).collect();
    all.extend(collected.lost_names().into_iter().map(|name| of(name.to_owned(), None)));
    all
}
