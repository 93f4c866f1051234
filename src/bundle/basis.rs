//! What an increment builds on, as recorded in its `bundle.json`.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, Reference, Repository};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Rename;

/// Everything that an increment records about content it does not contain. Empty for a complete bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    pub parents: Vec<Parent>,
    /// In tar order.
    pub assumed: Vec<Assumed>,
    pub removed: Vec<Removed>,
}

/// The evidence that something is at the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    pub kind: ParentKind,
    /// The identity of the bundle, or of the bundle that the receipt is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// `HOST[:PORT][/PREFIX]`; a bundle has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When the receipt or inventory was finished, or the bundle was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Repositories at the target in which something was confirmed, as full names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
}

/// The kind of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParentKind {
    /// A receipt: what an import confirmed.
    Receipt,
    /// An inventory: what the target was found to have.
    Inventory,
    /// A bundle that should have arrived: an assumption.
    Bundle,
}

/// Content that is expected at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumed {
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    pub kind: AssumedKind,
}

/// The kind of expected content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssumedKind {
    Manifest,
    Blob,
}

/// An image that a parent had and that is no longer wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// As in a lock.
    pub reference: Reference,
    /// As in a lock.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<Rename>,
    /// Its digest in the parent.
    pub digest: Digest,
    /// Its name at the target, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Reference>,
}

impl Basis {
    /// The part of the graph that is not assumed.
    pub fn left_of(&self, mut graph: Graph) -> Graph {
        let assumed: HashSet<Digest> = self.assumed.iter().map(|assumed| assumed.digest).collect();
        for image in &mut graph.images {
            image.manifests.retain(|manifest| !assumed.contains(&manifest.digest()));
            image.blobs.retain(|blob| !assumed.contains(&blob.digest));
        }
        graph
    }

    /// Bytes of everything that is assumed.
    pub fn assumed_bytes(&self) -> u64 {
        self.assumed.iter().map(|assumed| assumed.size).fold(0, u64::saturating_add)
    }
}

/// For messages: `the receipt of harbor.internal/mirror (2026-11-21T04:00:00Z)`.
impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, &self.target, &self.bundle) {
            (ParentKind::Receipt, Some(target), _) => write!(f, "a receipt of {target}")?,
            (ParentKind::Inventory, Some(target), _) => write!(f, "an inventory of {target}")?,
            (ParentKind::Bundle, _, Some(bundle)) => write!(f, "the bundle {}", bundle.short())?,
            (ParentKind::Receipt, None, _) => f.write_str("a receipt")?,
            (ParentKind::Inventory, None, _) => f.write_str("an inventory")?,
            (ParentKind::Bundle, _, None) => f.write_str("a bundle")?,
        }
        self.time.map_or(Ok(()), |time| write!(f, " ({time:.0})"))
    }
}
