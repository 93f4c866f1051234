//! Manifests, as far as they matter for whether images are complete.

use super::problem::At;
use crate::oci::{Digest, Manifest, Role};

pub enum Node {
    /// `size` is its own, in bytes.
    Whole { parts: Vec<NodeChild>, size: u64 },
    /// The index of its problem in the list.
    Broken(At),
}

/// What a manifest points to.
pub struct NodeChild {
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    pub is_manifest: bool,
}

impl Node {
    pub fn parts(&self) -> &[NodeChild] {
        match self {
            Node::Whole { parts, .. } => parts,
            Node::Broken(_) => &[],
        }
    }
}

/// What must exist for it; foreign layers need not.
pub fn parts_of(manifest: &Manifest) -> Vec<NodeChild> {
    let children = manifest.children().into_iter().filter(|child| child.role != Role::ForeignLayer);
    let part = |digest, size, role| NodeChild { digest, size, is_manifest: role == Role::Manifest };
    children.map(|child| part(child.descriptor.digest, child.descriptor.size, child.role)).collect()
}
