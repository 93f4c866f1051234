//! What a walk is asked for, and with which options. Nothing here reads a source.

use std::collections::HashMap;

use crate::oci::{Digest, Platform, Reference};
use crate::pipeline::lock::{IndexMode, Rename};

/// One reference to carry, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Has a tag, a digest or both.
    pub reference: Reference,
    pub rename: Option<Rename>,
    /// The requested platforms. If empty, everything that the reference leads to.
    pub platforms: Vec<Platform>,
    /// Where and how the operator requested it, for messages. Can be empty.
    pub written: String,
}

impl Wanted {
    /// Returns its name for messages.
    pub fn shown(&self) -> String {
        match self.written.as_str() {
            "" => self.reference.to_string(),
            written => format!("{} ({written})", self.reference),
        }
    }
}

/// What travels with an image, and how platforms are selected from an index.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What an index becomes if only some of its platforms are carried. If `None`, see [`Modes`](super::Modes).
    pub index: Option<IndexMode>,
    /// Whether an image may lack requested platforms, as long as it has one of them.
    pub available_platforms: bool,
    pub referrers: Referrers,
    pub foreign_layers: bool,
}

/// Whether to look for signatures, SBOMs and other artifacts that refer to images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referrers {
    Leave,
    /// If a registry does not answer, the image is carried with what was found, and its lock entry says so.
    Look,
    /// If a registry does not answer, the image fails.
    Require,
}

/// The side that has the images of a lock. It decides what a platform selection means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOrigin {
    /// The registry that the lock was made from: a selection is applied to the original index.
    Registry,
    /// A bundle: it has only what was selected.
    Bundle,
}

/// The platforms of single images, by the digest of the manifest.
pub type Platforms = HashMap<Digest, Vec<Platform>>;
