//! The manifests of a layout, one at a time in memory.

use std::cell::Cell;

use crate::files::Layout;
use crate::oci::{Descriptor, Manifest};

/// See the module documentation.
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

    /// Whether each that is there could be read.
    pub fn is_sound(&self) -> bool {
        !self.has_failed.get()
    }
}
