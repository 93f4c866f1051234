//! The order of manifests and blobs in a bundle: it follows from the lock and the manifests alone.

use std::collections::{HashMap, HashSet};

use crate::oci::{Descriptor, Digest, Manifest, Role};
use crate::pipeline::lock::Lock;

/// What a bundle carries, in the order of the tar.
pub struct Ordered {
    pub manifests: Vec<Manifest>,
    /// Configs first: small, and needed first to look into the bundle.
    pub blobs: Vec<Descriptor>,
}

/// Something that a walk has met.
enum Met {
    Manifest(Digest),
    Blob(Digest),
}

/// Walks the images in the order of the lock, each depth first from its manifest, then from its attached manifests. Content
/// stands where it is met first; a manifest stands before what it names. What is `assumed` is left out, with all below it.
pub fn order(lock: &Lock, content: Ordered, assumed: &HashSet<Digest>) -> Ordered {
    let Ordered { manifests: mut all, mut blobs } = content;
    all.retain(|manifest| !assumed.contains(&manifest.digest()));
    blobs.retain(|blob| !assumed.contains(&blob.digest));
    let by_digest: HashMap<Digest, &Manifest> = all.iter().map(|manifest| (manifest.digest(), manifest)).collect();
    let carried: HashMap<Digest, &Descriptor> = blobs.iter().map(|blob| (blob.digest, blob)).collect();
    let (mut manifests, mut met) = (Vec::new(), Vec::new());
    let (mut seen, mut noted, mut configs) = (HashSet::new(), HashSet::new(), HashSet::new());
    for image in &lock.images {
        let absent: HashSet<Digest> = image.absent.iter().map(|absent| absent.digest).collect();
        let attached = image.companions().iter().map(|attached| attached.digest);
        let roots = std::iter::once(image.digest).chain(attached).map(Met::Manifest);
        // What is next is at the end.
        let mut open: Vec<Met> = roots.collect();
        open.reverse();
        while let Some(next) = open.pop() {
            match next {
                Met::Manifest(digest) => {
                    let Some(manifest) = by_digest.get(&digest).filter(|_| seen.insert(digest)) else { continue };
                    manifests.push((*manifest).clone());
                    configs.extend(manifest.config().map(|config| config.digest));
                    let children = manifest.children().into_iter().rev();
                    let children = children.filter(|child| !absent.contains(&child.descriptor.digest));
                    open.extend(children.map(|child| match child.role {
                        Role::Manifest => Met::Manifest(child.descriptor.digest),
                        Role::Config | Role::Layer | Role::ForeignLayer => Met::Blob(child.descriptor.digest),
                    }));
                }
                Met::Blob(digest) => {
                    if let Some(blob) = carried.get(&digest).filter(|_| noted.insert(digest)) {
                        met.push((*blob).clone());
                    }
                }
            }
        }
    }
    // What the lock does not lead to; nothing, if the content is that of this lock.
    manifests.extend(all.iter().filter(|manifest| seen.insert(manifest.digest())).cloned());
    met.extend(blobs.iter().filter(|blob| noted.insert(blob.digest)).cloned());
    met.retain(|blob| !seen.contains(&blob.digest));
    let (mut ordered, others): (Vec<Descriptor>, Vec<Descriptor>) =
        met.into_iter().partition(|blob| configs.contains(&blob.digest));
    ordered.extend(others);
    Ordered { manifests, blobs: ordered }
}
