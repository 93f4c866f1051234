//! What becomes of an index of which only some platforms are carried, where nobody said.

use std::collections::HashMap;

use super::Wanted;
use crate::lock::{IndexMode, Lock};
use crate::oci::{Manifest, Platform, Reference};
use crate::select;

/// The entries of an earlier lock or bundle whose index was trimmed to one platform, which was the default once.
///
/// They keep that mode, so that the new default does not give their tags another digest.
#[derive(Debug, Default)]
pub struct Modes(HashMap<Reference, Vec<Platform>>);

impl Modes {
    /// What this lock says counts more than what was added before.
    pub fn add(&mut self, lock: &Lock) {
        for image in &lock.images {
            let trimmed = image.selection.as_ref().filter(|selection| selection.index == IndexMode::Trim);
            match trimmed.filter(|selection| selection.platforms.len() == 1) {
                Some(selection) => _ = self.0.insert(image.reference.clone(), selection.platforms.clone()),
                None => _ = self.0.remove(&image.reference),
            }
        }
    }

    fn trims(&self, wanted: &Wanted) -> bool {
        self.0.get(&wanted.reference).is_some_and(|platforms| *platforms == wanted.platforms)
    }
}

/// A mode, and whether only an earlier entry is the reason for it.
pub struct Mode {
    pub index: IndexMode,
    pub kept: bool,
}

/// `asked` counts most, then what was done before, then the default: `single` for the one manifest of one platform, so that
/// the tag has a digest that exists upstream; else `trim`.
pub fn decide(asked: Option<IndexMode>, earlier: &Modes, wanted: &Wanted, index: &Manifest) -> Mode {
    if let Some(index) = asked {
        return Mode { index, kept: false };
    }
    match select::default_mode(index, &wanted.platforms) {
        IndexMode::Single if earlier.trims(wanted) => Mode { index: IndexMode::Trim, kept: true },
        index => Mode { index, kept: false },
    }
}

/// Whether an entry of an earlier lock has the mode that is `asked` for, or one that it keeps or would get now.
pub fn fits(asked: Option<IndexMode>, wanted: &Wanted, found: IndexMode) -> bool {
    match (asked, found) {
        (Some(asked), found) => asked == found,
        (None, IndexMode::Trim) => true,
        (None, IndexMode::Single) => wanted.platforms.len() == 1,
        (None, IndexMode::Sparse) => false,
    }
}
