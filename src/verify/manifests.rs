//! Reads the manifests of a layout, one at a time in memory.

use std::cell::Cell;

use crate::files::Layout;
use crate::oci::{Descriptor, Manifest};

/// Reads manifests and remembers whether one of them could not be read.
pub struct ManifestReader<'a> {
    layout: &'a Layout,
    has_failed: Cell<bool>,
}

impl<'a> ManifestReader<'a> {
    pub fn new(layout: &'a Layout) -> ManifestReader<'a> {
        ManifestReader { layout, has_failed: Cell::new(false) }
    }

    pub fn find(&self) -> impl Fn(&Descriptor) -> Option<Manifest> {
        |wanted| {
            let found = self.layout.manifest_by_digest(&wanted.digest, Some(&wanted.media_type));
            found.inspect_err(|_| self.has_failed.set(true)).ok().flatten()
        }
    }

    /// Whether every existing manifest could be read.
    pub fn is_sound(&self) -> bool {
        !self.has_failed.get()
    }
}
