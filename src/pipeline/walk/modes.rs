//! Decides what an index becomes if only some of its platforms are carried.

use std::collections::HashMap;

use super::Wanted;
use crate::oci::{Platform, Reference};
use crate::pipeline::lock::{AbsentReason, IndexMode, Lock};

/// The index modes of the entries of an earlier lock or bundle, each with the requested platforms.
///
/// Without a requested mode, entries keep theirs, so that a changed default never changes the digest of their tags.
#[derive(Debug, Default)]
pub struct Modes(HashMap<Reference, (Vec<Platform>, IndexMode)>);

impl Modes {
    /// Adds the entries of a lock. They take precedence over those added before.
    pub fn add(&mut self, lock: &Lock) {
        for image in &lock.images {
            let lacks_some = image.absent.iter().any(|absent| absent.reason == AbsentReason::NotFound);
            let mode = match &image.selection {
                Some(selection) => Some((selection.platforms.clone(), selection.index)),
                // The registry lacks part of a complete index. The index can then be carried only unchanged.
                None => lacks_some.then(|| (Vec::new(), IndexMode::Sparse)),
            };
            match mode {
                Some(mode) => _ = self.0.insert(image.reference.clone(), mode),
                None => _ = self.0.remove(&image.reference),
            }
        }
    }

    /// Returns the mode of the earlier entry, if that was requested in the same way as `wanted`.
    pub fn of(&self, wanted: &Wanted) -> Option<IndexMode> {
        let (platforms, mode) = self.0.get(&wanted.reference)?;
        (*platforms == wanted.platforms).then_some(*mode)
    }
}

/// A mode, and whether an earlier entry is the only reason for it.
pub struct Mode {
    pub index: IndexMode,
    pub kept: bool,
}

/// Decides the mode: the requested one (`asked`), then the `earlier` one, then the `default`.
pub fn decide(asked: Option<IndexMode>, earlier: Option<IndexMode>, default: IndexMode) -> Mode {
    match asked {
        Some(index) => Mode { index, kept: false },
        None => Mode { index: earlier.unwrap_or(default), kept: earlier.is_some_and(|earlier| earlier != default) },
    }
}

/// Whether an entry of an earlier lock has the requested mode (`asked`). If none is requested, any mode fits.
pub fn fits(asked: Option<IndexMode>, found: IndexMode) -> bool {
    asked.is_none_or(|asked| asked == found)
}
