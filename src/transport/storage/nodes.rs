//! Manifests as far as it matters to whether images are whole. What is wrong elsewhere is not its business.

use super::problem::At;
use crate::oci::{Digest, Manifest, Role};

pub enum Node {
    /// `size`: its own, in bytes.
    Whole { parts: Vec<NodeChild>, size: u64 },
    /// By the place of its problem in the list.
    Broken(At),
}

/// What a manifest points to.
pub struct NodeChild {
    pub digest: Digest,
    /// In bytes.
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

/// What has to be there for it; foreign layers have not.
pub fn parts_of(manifest: &Manifest) -> Vec<NodeChild> {
    let children = manifest.children().into_iter().filter(|child| child.role != Role::ForeignLayer);
    let part = |digest, size, role| NodeChild { digest, size, is_manifest: role == Role::Manifest };
    children.map(|child| part(child.descriptor.digest, child.descriptor.size, child.role)).collect()
}
