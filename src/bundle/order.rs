//! The order of manifests and blobs in a bundle, which follows from the lock and the manifests alone.

use std::collections::{HashMap, HashSet};

use super::format::BundleJson;
use super::loaders::Find;
use crate::oci::{Descriptor, Digest, Manifest, Role};
use crate::pipeline::lock::{Attached, Lock};

/// The content of a bundle in tar order.
pub struct Ordered {
    pub manifests: Vec<Manifest>,
    /// Configs come first: they are small, and needed first by readers.
    pub blobs: Vec<Descriptor>,
}

/// Something that a walk has reached.
enum Met {
    Manifest(Digest),
    Blob(Digest),
}

/// Walks the images in the order of the lock, each depth-first from its manifest and then from its attached manifests. Content
/// is placed where it is first reached, and a manifest precedes what it refers to. What is `assumed` is left out with
/// everything below it. It does not matter that one image leaves out what another contains: the position follows from the
/// content of the whole bundle.
pub fn order(lock: &Lock, content: Ordered, assumed: &HashSet<Digest>) -> Ordered {
    let Ordered { manifests: mut all, mut blobs } = content;
    all.retain(|manifest| !assumed.contains(&manifest.digest()));
    blobs.retain(|blob| !assumed.contains(&blob.digest));
    let by_digest: HashMap<Digest, &Manifest> = all.iter().map(|manifest| (manifest.digest(), manifest)).collect();
    let carried: HashMap<Digest, &Descriptor> = blobs.iter().map(|blob| (blob.digest, blob)).collect();
    let (mut manifests, mut met) = (Vec::new(), Vec::new());
    let (mut seen, mut noted, mut configs) = (HashSet::new(), HashSet::new(), HashSet::new());
    for image in &lock.images {
        let attached = image.companions().iter().map(|attached| attached.digest);
        let roots = std::iter::once(image.digest).chain(attached).map(Met::Manifest);
        // The next item is last.
        let mut open: Vec<Met> = roots.collect();
        open.reverse();
        while let Some(next) = open.pop() {
            match next {
                Met::Manifest(digest) => {
                    let Some(manifest) = by_digest.get(&digest).filter(|_| seen.insert(digest)) else { continue };
                    manifests.push((*manifest).clone());
                    configs.extend(manifest.config().map(|config| config.digest));
                    open.extend(manifest.children().into_iter().rev().map(|child| match child.role {
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
    // What the lock does not lead to; nothing, if the content belongs to this lock.
    manifests.extend(all.iter().filter(|manifest| seen.insert(manifest.digest())).cloned());
    met.extend(blobs.iter().filter(|blob| noted.insert(blob.digest)).cloned());
    met.retain(|blob| !seen.contains(&blob.digest));
    let (mut ordered, others): (Vec<Descriptor>, Vec<Descriptor>) =
        met.into_iter().partition(|blob| configs.contains(&blob.digest));
    ordered.extend(others);
    Ordered { manifests, blobs: ordered }
}

/// The groups of files below `blobs/`, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Manifest,
    /// The config of an image manifest.
    Config,
    Other,
}

/// The first file below `blobs/` that follows one of a later group. Files that the walk does not reach may be anywhere, unless
/// `is_manifest` says otherwise: a manifest of an image may be missing.
pub fn problem_of_order(bundle: &BundleJson, is_manifest: impl Fn(&Digest) -> bool, find: &Find<'_>) -> Option<String> {
    let groups = groups(&bundle.lock, find);
    let mut last = Group::Manifest;
    for file in bundle.files.iter().filter(|file| file.path.starts_with("blobs/")) {
        let group = if is_manifest(&file.digest) { Some(Group::Manifest) } else { groups.get(&file.digest).copied() };
        let Some(group) = group else { continue };
        if group < last {
            let order = "manifests come first, then configs, then all other blobs";
            return Some(format!("{:?} is out of order: {order}", file.path));
        }
        last = group;
    }
    None
}

/// The group of everything that the walk of [`order()`] reaches.
fn groups(lock: &Lock, find: &Find<'_>) -> HashMap<Digest, Group> {
    let (mut groups, mut seen) = (HashMap::new(), HashSet::new());
    let mut note = |digest: Digest, group: Group| {
        let known = groups.entry(digest).or_insert(group);
        *known = group.min(*known);
    };
    for image in &lock.images {
        let attached = image.companions().iter().map(Attached::descriptor);
        let mut open: Vec<Descriptor> = std::iter::once(image.descriptor()).chain(attached).collect();
        while let Some(next) = open.pop() {
            let Some(manifest) = seen.insert(next.digest).then(|| find(&next)).flatten() else { continue };
            note(next.digest, Group::Manifest);
            for child in manifest.children() {
                match child.role {
                    Role::Manifest => open.push(child.descriptor),
                    Role::Config => note(child.descriptor.digest, Group::Config),
                    Role::Layer | Role::ForeignLayer => note(child.descriptor.digest, Group::Other),
                }
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::oci::media_type;
    use crate::pipeline::lock::{Absent, AbsentReason, LockedImage};

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

    fn blob(media_type: &str, text: &str) -> Descriptor {
        Descriptor::new(media_type, Digest::sha256(text.as_bytes()), text.len() as u64)
    }

    fn parse(json: Value) -> Manifest {
        Manifest::parse(json.to_string().into(), None, None).unwrap()
    }

    fn image(config: &str, layers: &[&str]) -> Manifest {
        let layers: Vec<Descriptor> = layers.iter().map(|layer| blob(LAYER, layer)).collect();
        parse(json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": blob(media_type::OCI_CONFIG, config), "layers": layers }))
    }

    fn index(children: &[&Manifest]) -> Manifest {
        let children: Vec<Descriptor> = children.iter().map(|child| child.descriptor()).collect();
        parse(json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children }))
    }

    fn locked(name: &str, root: &Manifest, absent: &[Digest]) -> LockedImage {
        let absent =
            absent.iter().map(|digest| Absent { digest: *digest, size: 1, reason: AbsentReason::PlatformNotSelected });
        LockedImage {
            reference: name.parse().unwrap(),
            rename: None,
            source: "registry.test".to_owned(),
            digest: root.digest(),
            media_type: root.media_type().to_owned(),
            size: root.size(),
            total_size: root.size(),
            platforms: Vec::new(),
            selection: None,
            absent: absent.collect(),
            attached: Some(Vec::new()),
            attached_unknown: false,
        }
    }

    /// Two programs that write the same lock must write the same bytes, however they obtained the content.
    #[test]
    fn the_order_follows_from_lock_and_manifests_and_not_from_how_they_were_read() {
        let (one, two, three) = (image("c1", &["x", "shared"]), image("c2", &["shared", "y"]), image("c3", &["z"]));
        let inner = index(&[&two]);
        let outer = index(&[&inner, &one, &three]);
        let images = vec![locked("r.test/a:1", &outer, &[three.digest()]), locked("r.test/b:1", &three, &[])];
        let created = "2026-11-21T04:00:00Z".parse().unwrap();
        let lock = Lock { version: 1, created, load_platform: None, images, missing: Vec::new() };
        let manifests = [&outer, &inner, &two, &one, &three].map(Manifest::clone).to_vec();
        let blobs: Vec<Descriptor> = ["c2", "c1", "c3"].iter().map(|text| blob(media_type::OCI_CONFIG, text)).collect();
        let layers = ["shared", "y", "x", "z"].iter().map(|text| blob(LAYER, text));
        let expected: Vec<Digest> = blobs.iter().cloned().chain(layers).map(|blob| blob.digest).collect();
        let all: Vec<Descriptor> =
            blobs.into_iter().chain(["shared", "y", "x", "z"].map(|text| blob(LAYER, text))).collect();
        let digests = |ordered: &Ordered| -> (Vec<Digest>, Vec<Digest>) {
            let manifests = ordered.manifests.iter().map(Manifest::digest).collect();
            (manifests, ordered.blobs.iter().map(|blob| blob.digest).collect())
        };
        for turn in 0..5 {
            let (mut manifests, mut blobs) = (manifests.clone(), all.clone());
            manifests.rotate_left(turn);
            blobs.reverse();
            blobs.rotate_left(turn);
            let ordered = order(&lock, Ordered { manifests, blobs }, &HashSet::new());
            let roots = [&outer, &inner, &two, &one, &three].map(|manifest| manifest.digest()).to_vec();
            assert_eq!(digests(&ordered), (roots, expected.clone()));
        }
        // Content below something assumed is placed where something else refers to it.
        let assumed: HashSet<Digest> =
            [two.digest(), Digest::sha256(b"c2"), Digest::sha256(b"y")].into_iter().collect();
        let ordered = order(&lock, Ordered { manifests, blobs: all }, &assumed);
        let left = ["c1", "c3", "x", "shared", "z"].map(|text| Digest::sha256(text.as_bytes())).to_vec();
        let roots = [&outer, &inner, &one, &three].map(|manifest| manifest.digest()).to_vec();
        assert_eq!(digests(&ordered), (roots, left));
    }
    /// Two programs that write the same lock must write the same bytes, with configs before all other blobs.
    #[test]
    fn of_one_index_with_two_selections_both_stand_where_the_index_has_them() {
        let (one, two) = (image("c1", &["x"]), image("c2", &["y"]));
        let both = index(&[&one, &two]);
        let images = vec![locked("r.test/a:1", &both, &[one.digest()]), locked("r.test/a:2", &both, &[two.digest()])];
        let created = "2026-11-21T04:00:00Z".parse().unwrap();
        let lock = Lock { version: 1, created, load_platform: None, images, missing: Vec::new() };
        let manifests = vec![two.clone(), one.clone(), both.clone()];
        let blobs = vec![blob(LAYER, "y"), blob(LAYER, "x"), blob(LAYER, "c2"), blob(LAYER, "c1")];
        let ordered = order(&lock, Ordered { manifests, blobs }, &HashSet::new());
        let digests = [both.digest(), one.digest(), two.digest()];
        assert_eq!(ordered.manifests.iter().map(Manifest::digest).collect::<Vec<_>>(), digests);
        let blobs = ["c1", "c2", "x", "y"].map(|text| Digest::sha256(text.as_bytes()));
        assert_eq!(ordered.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(), blobs);
    }
}
