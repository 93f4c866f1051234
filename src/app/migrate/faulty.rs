//! Images that cannot be carried.

use super::collect::Collected;
use super::name::StoredName;
use crate::app::faults::reasons;
use crate::oci::Manifest;
use crate::transport::storage::Tagged;

/// An image that cannot be carried.
pub struct Faulty<'a> {
    pub name: String,
    /// `None`: its faults are all that is known of it.
    pub found: Option<&'a Tagged>,
    pub reasons: Vec<String>,
}

impl Faulty<'_> {
    /// What is known of it without its manifest.
    pub fn known(&self) -> StoredName {
        self.found.map_or_else(|| StoredName::by_name(&self.name), StoredName::of)
    }

    /// Its manifest, where that could be read.
    pub fn manifest<'c>(&self, collected: &'c Collected) -> Option<&'c Manifest> {
        collected.broken.get(&self.found?.digest)
    }
}

/// Every image that was wanted and is not whole.
pub fn faulty(collected: &Collected) -> Vec<Faulty<'_>> {
    let mut reasons = reasons(&collected.faults);
    let mut of = |name: String, found| Faulty { reasons: reasons.remove(&*name).unwrap_or_default(), name, found };
    let faulty = collected.images.iter().filter(|(_, image)| image.is_none());
    let mut all: Vec<Faulty> = faulty.map(|(found, _)| of(found.name(), Some(found))).collect();
    all.extend(collected.lost_names().into_iter().map(|name| of(name.to_owned(), None)));
    all
}
