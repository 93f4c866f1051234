//! Images that cannot be migrated.

use super::collect::Collected;
use super::name::StoredName;
use crate::app::storage_problems::reasons;
use crate::oci::Manifest;
use crate::transport::storage::Tagged;

/// An image that cannot be migrated.
pub struct BrokenImage<'a> {
    pub name: String,
    /// `None` if the image is known only from its problems.
    pub found: Option<&'a Tagged>,
    pub reasons: Vec<String>,
}

impl BrokenImage<'_> {
    /// What is known about the image without its manifest.
    pub fn known(&self) -> StoredName {
        self.found.map_or_else(|| StoredName::by_name(&self.name), StoredName::of)
    }

    /// The manifest of the image, if it could be read.
    pub fn manifest<'c>(&self, collected: &'c Collected) -> Option<&'c Manifest> {
        collected.broken.get(&self.found?.digest)
    }
}

/// Returns every selected image that is damaged.
pub fn broken_images(collected: &Collected) -> Vec<BrokenImage<'_>> {
    let mut reasons = reasons(&collected.problems);
    let mut of = |name: String, found| BrokenImage { reasons: reasons.remove(&*name).unwrap_or_default(), name, found };
    let broken = collected.images.iter().filter(|(_, image)| image.is_none());
    let mut all: Vec<BrokenImage> = broken.map(|(found, _)| of(found.name(), Some(found))).collect();
    all.extend(collected.lost_names().into_iter().map(|name| of(name.to_owned(), None)));
    all
}
