//! What an index becomes by default if only some of its platforms are carried.

use std::collections::HashMap;

use super::Wanted;
use crate::oci::{Platform, Reference};
use crate::pipeline::lock::{AbsentReason, IndexMode, Lock};

/// The index modes of the entries of an earlier lock or bundle, each with the requested platforms.
///
/// They keep that mode if none is requested, so that a default never changes the digest of their tags.
#[derive(Debug, Default)]
pub struct Modes(HashMap<Reference, (Vec<Platform>, IndexMode)>);

impl Modes {
    /// What this lock says takes precedence over what was added before.
    pub fn add(&mut self, lock: &Lock) {
        for image in &lock.images {
            let lacks_some = image.absent.iter().any(|absent| absent.reason == AbsentReason::NotFound);
            let mode = match &image.selection {
                Some(selection) => Some((selection.platforms.clone(), selection.index)),
                // A whole index of which the registry lacks something is carried only unchanged.
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

/// A mode, and whether only an earlier entry is the reason for it.
pub struct Mode {
    pub index: IndexMode,
    pub kept: bool,
}

/// `asked` takes precedence, then what was done before, then the `default`.
pub fn decide(asked: Option<IndexMode>, earlier: Option<IndexMode>, default: IndexMode) -> Mode {
    match asked {
        Some(index) => Mode { index, kept: false },
        None => Mode { index: earlier.unwrap_or(default), kept: earlier.is_some_and(|earlier| earlier != default) },
    }
}

/// Whether an entry of an earlier lock has the mode that is `asked` for. It keeps its own if no mode is requested.
pub fn fits(asked: Option<IndexMode>, found: IndexMode) -> bool {
    asked.is_none_or(|asked| asked == found)
}
