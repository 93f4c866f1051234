//! Everything below one manifest, and what is attached to it.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::content::{Cached, Source};
use crate::error::{Error, Kind, Result};
use crate::lock::{Absent, AbsentReason};
use crate::oci::{Child, Descriptor, Digest, Manifest, Repository, Role};

/// How deep indexes may nest. Real images have two levels.
const MAX_DEPTH: usize = 8;
/// How many children of one image are asked for at once; the connections of a host are bounded below.
const AT_ONCE: usize = 6;

/// The manifests of an image, level by level.
pub struct Tree {
    /// The image's own manifests, root first; parents before children.
    image: Vec<Manifest>,
    /// The same for each attached manifest, in the order they were added.
    attached: Vec<Vec<Manifest>>,
    holds: HashSet<Digest>,
    absent: HashSet<Digest>,
}

impl Tree {
    /// Reads everything below `root`, but for what `absent` names.
    pub async fn of(source: &Cached<'_>, repository: &Repository, root: Manifest, absent: &[Absent]) -> Result<Tree> {
        let absent = absent.iter().map(|absent| absent.digest).collect();
        let mut tree = Tree { image: Vec::new(), attached: Vec::new(), holds: HashSet::new(), absent };
        tree.image = tree.descend(source, repository, root).await?;
        Ok(tree)
    }

    /// Adds an attached manifest with everything below it; what is already there is not added again.
    pub async fn add(&mut self, source: &Cached<'_>, repository: &Repository, root: Manifest) -> Result<()> {
        let more = self.descend(source, repository, root).await?;
        self.attached.push(more);
        Ok(())
    }

    pub fn holds(&self, digest: Digest) -> bool {
        self.holds.contains(&digest)
    }

    /// Digests of all manifests so far: whatever may be a subject.
    pub fn digests(&self) -> Vec<Digest> {
        self.image.iter().chain(self.attached.iter().flatten()).map(Manifest::digest).collect()
    }

    /// Children before parents, attached manifests after their subjects.
    pub fn into_manifests(self) -> Vec<Manifest> {
        let attached = self.attached.into_iter().flat_map(|manifests| manifests.into_iter().rev());
        self.image.into_iter().rev().chain(attached).collect()
    }

    /// Every blob once, by first use; and, unless they are `wanted` too, the foreign layers left out.
    pub fn blobs(&self, foreign_wanted: bool) -> (Vec<Descriptor>, Vec<Absent>) {
        let mut seen = HashSet::new();
        let (mut blobs, mut foreign) = (Vec::new(), Vec::new());
        let manifests = self.image.iter().chain(self.attached.iter().flatten());
        let children: Vec<Child> = manifests.flat_map(Manifest::children).collect();
        // What one manifest calls foreign, another may need.
        let needed = |child: &&Child| matches!(child.role, Role::Config | Role::Layer);
        let needed: HashSet<Digest> = children.iter().filter(needed).map(|child| child.descriptor.digest).collect();
        for child in children {
            let Descriptor { digest, size, .. } = child.descriptor;
            if child.role == Role::Manifest || !seen.insert(digest) {
                continue;
            }
            match child.role {
                Role::ForeignLayer if !foreign_wanted && !needed.contains(&digest) => {
                    foreign.push(Absent { digest, size, reason: AbsentReason::ForeignLayer });
                }
                _ => blobs.push(child.descriptor),
            }
        }
        blobs.shrink_to_fit();
        (blobs, foreign)
    }

    /// `root` and everything below it that is not there yet, parents before children.
    async fn descend(&mut self, source: &Cached<'_>, repository: &Repository, root: Manifest) -> Result<Vec<Manifest>> {
        let mut order: Vec<Manifest> = Vec::new();
        let mut level = if self.holds.contains(&root.digest()) { vec![] } else { vec![root] };
        for _ in 0..MAX_DEPTH {
            if level.is_empty() {
                return Ok(order);
            }
            let mut next: Vec<Descriptor> = Vec::new();
            for manifest in level {
                next.extend(self.missing_children(&manifest));
                // Met again further down, it moves down: its parents must come before it.
                order.retain(|earlier| earlier.digest() != manifest.digest());
                self.holds.insert(manifest.digest());
                order.push(manifest);
            }
            let mut seen = HashSet::new();
            next.retain(|child| seen.insert(child.digest));
            level = stream::iter(next)
                .map(|child| fetch(source, repository, child))
                .buffered(AT_ONCE)
                .try_collect()
                .await?;
        }
        Err(Error::damaged(format!("its indexes nest deeper than {MAX_DEPTH} levels")))
    }

    fn missing_children(&self, manifest: &Manifest) -> Vec<Descriptor> {
        let children = manifest.children().into_iter().filter(|child| child.role == Role::Manifest);
        children.map(|child| child.descriptor).filter(|child| !self.absent.contains(&child.digest)).collect()
    }
}

async fn fetch(source: &Cached<'_>, repository: &Repository, child: Descriptor) -> Result<Manifest> {
    let platform = child.platform.as_ref().map(|platform| format!(" ({platform})")).unwrap_or_default();
    let reference = repository.with_digest(child.digest);
    let Some(manifest) = source.manifest(&reference).await? else {
        let text = format!("its index names {}{platform}, which {} does not have", child.digest, repository.registry());
        return Err(Error::new(Kind::NotFound, text));
    };
    if manifest.size() != child.size {
        let text = format!("its index says {} has {} bytes, it has {}", child.digest, child.size, manifest.size());
        return Err(Error::damaged(text));
    }
    Ok(manifest)
}
