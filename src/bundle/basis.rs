//! What an increment builds on, as its `bundle.json` says it.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci::{Digest, Reference, Repository};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Rename;

/// All that an increment says of what it does not carry. Empty in a bundle that is complete in itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    pub parents: Vec<Parent>,
    /// In the order in which the tar would have them.
    pub assumed: Vec<Assumed>,
    pub removed: Vec<Removed>,
}

/// Who said that something is at the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    pub kind: ParentKind,
    /// The identity of the bundle, or of that which the receipt is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// `HOST[:PORT][/PREFIX]`; a bundle has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When the receipt or inventory was finished, or the bundle made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Full names of repositories at the target where something was confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Repository>,
}

/// What says that something is at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParentKind {
    /// What an import confirmed.
    Receipt,
    /// What the target was found to have.
    Inventory,
    /// What should have arrived: an assumption.
    Bundle,
}

/// Something that is expected at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assumed {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub kind: AssumedKind,
}

/// What is expected at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssumedKind {
    Manifest,
    Blob,
}

/// An image that a parent had, and that is not wanted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// As in a lock.
    pub reference: Reference,
    /// As in a lock.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<Rename>,
    /// What the parent had under this name.
    pub digest: Digest,
    /// The name it had at the target, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Reference>,
}

impl Basis {
    /// The graph without what is assumed: what is carried of it.
    pub fn left_of(&self, mut graph: Graph) -> Graph {
        let assumed: HashSet<Digest> = self.assumed.iter().map(|assumed| assumed.digest).collect();
        for image in &mut graph.images {
            image.manifests.retain(|manifest| !assumed.contains(&manifest.digest()));
            image.blobs.retain(|blob| !assumed.contains(&blob.digest));
        }
        graph
    }

    /// Bytes of all that is assumed.
    pub fn assumed_bytes(&self) -> u64 {
        self.assumed.iter().map(|assumed| assumed.size).fold(0, u64::saturating_add)
    }
}

/// As it is told: `the receipt of harbor.internal/mirror (2026-11-21T04:00:00Z)`.
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
