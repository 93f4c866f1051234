//! The files by which other programs load a bundle: `index.json` (containerd, podman, skopeo) and `manifest.json` (`docker
//! load`, `podman load`). Both follow from the lock and the manifests in the bundle.
//!
//! `ctr image import` unpacks every named descriptor of `index.json` in order, and stops at the first that is not an image.
//! Companions therefore have no name, and artifacts follow all images.

use std::collections::HashSet;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::files::{IMAGE_NAME, REF_NAME};
use crate::oci::{Child, Described, Descriptor, Digest, Kind, Manifest, Platform, Role, media_type};
use crate::pipeline::lock::{Attached, Lock, LockedImage};
use crate::pipeline::select::offered_platform;

/// The annotation that tells containerd 2.2 and later that a descriptor is not an image but refers to one
/// (`client/import.go`).
pub const SUBJECT: &str = "io.containerd.manifest.subject";

/// Returns a manifest of the bundle.
pub type Find<'a> = dyn Fn(&Descriptor) -> Option<Manifest> + 'a;

/// The platform that `manifest.json` selects from an index with several.
pub fn load_platform(lock: &Lock) -> Platform {
    lock.load_platform.clone().unwrap_or_else(Platform::linux_amd64)
}

/// `index.json`: a descriptor for each image under its full name, then companions without a name, then artifacts under their
/// names.
pub fn index_json<'a>(images: &[&'a LockedImage], find: &Find<'_>) -> impl Serialize + 'a {
    let mut named_before: HashSet<String> = HashSet::new();
    let named_once = images.iter().filter(|image| named_before.insert(image.name()));
    let (loadable, artifacts): (Vec<&LockedImage>, Vec<&LockedImage>) =
        named_once.partition(|image| find(&image.descriptor()).is_some_and(|root| is_image(&root, find)));
    // A signature can also be an image of the allowlist.
    let mut listed: HashSet<Digest> = images.iter().map(|image| image.digest).collect();
    let attached = images.iter().flat_map(|image| image.companions());
    let attached: Vec<&Attached> = attached.filter(|companion| listed.insert(companion.digest)).collect();
    let manifests = Descriptors { loadable, attached, artifacts };
    Index { schema_version: 2, media_type: media_type::OCI_INDEX, manifests }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Descriptors<'a>,
}

/// Generated one at a time while they are written.
struct Descriptors<'a> {
    loadable: Vec<&'a LockedImage>,
    attached: Vec<&'a Attached>,
    artifacts: Vec<&'a LockedImage>,
}

impl Serialize for Descriptors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let under_its_name = |image: &&LockedImage| named(&image.descriptor(), &image.name());
        let with_subject = |companion: &&Attached| {
            let mut value = plain(&companion.descriptor());
            value["annotations"] = json!({ SUBJECT: companion.subject });
            value
        };
        let (loadable, artifacts) =
            (self.loadable.iter().map(under_its_name), self.artifacts.iter().map(under_its_name));
        serializer.collect_seq(loadable.chain(self.attached.iter().map(with_subject)).chain(artifacts))
    }
}

/// The images that need nothing from the target if `assumed` is expected there. `index.json` and `manifest.json` list only
/// these.
pub fn whole_images<'a>(lock: &'a Lock, assumed: &HashSet<Digest>, find: &Find<'_>) -> Vec<&'a LockedImage> {
    let is_whole = |image: &&LockedImage| {
        let attached = image.companions().iter().map(Attached::descriptor);
        let mut ahead: Vec<Descriptor> = std::iter::once(image.descriptor()).chain(attached).collect();
        let mut seen = HashSet::new();
        while let Some(next) = ahead.pop() {
            if assumed.contains(&next.digest) {
                return false;
            }
            let Some(manifest) = seen.insert(next.digest).then(|| find(&next)).flatten() else { continue };
            let children = manifest.children();
            let mut blobs = children.iter().filter(|child| child.role != Role::Manifest);
            if blobs.any(|child| assumed.contains(&child.descriptor.digest)) {
                return false;
            }
            ahead.extend(
                children.into_iter().filter(|child| child.role == Role::Manifest).map(|child| child.descriptor),
            );
        }
        true
    };
    lock.images.iter().filter(|image| assumed.is_empty() || is_whole(image)).collect()
}

fn plain(descriptor: &Descriptor) -> Value {
    let Described { media_type, digest, size, .. } = &**descriptor;
    let mut value = json!({ "mediaType": media_type, "digest": digest, "size": size });
    if let Some(artifact_type) = descriptor.artifact_type() {
        value["artifactType"] = json!(artifact_type);
    }
    value
}

fn named(descriptor: &Descriptor, name: &str) -> Value {
    let mut value = plain(descriptor);
    value["annotations"] = json!({ REF_NAME: name, IMAGE_NAME: name });
    value
}

/// Whether a container runtime can unpack it: an image config and file system layers, or, for an index, any such child.
fn is_image(manifest: &Manifest, find: &Find<'_>) -> bool {
    let children = manifest.children();
    if manifest.kind() == Kind::Index {
        let mut below = children.iter().filter_map(|child| find(&child.descriptor));
        return below.any(|child| child.kind() == Kind::Image && is_image(&child, find));
    }
    let is_config = |config: &Descriptor| media_type::is_image_config(&config.media_type);
    manifest.config().is_some_and(is_config) && children.iter().all(is_config_or_layer)
}

fn is_config_or_layer(child: &Child) -> bool {
    match child.role {
        Role::Config | Role::ForeignLayer => true,
        Role::Layer => media_type::is_image_layer(&child.descriptor.media_type),
        Role::Manifest => false,
    }
}

/// `manifest.json`, in the format of `docker save`: the images for which a manifest of one platform can be named.
pub fn docker_json<'a>(images: &'a [&LockedImage], platform: &'a Platform, find: &'a Find<'a>) -> impl Serialize + 'a {
    DockerList { images, platform, find }
}

/// Generated one at a time while they are written: thousands of images may share thousands of layers.
struct DockerList<'a> {
    images: &'a [&'a LockedImage],
    platform: &'a Platform,
    find: &'a Find<'a>,
}

impl Serialize for DockerList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |image: &&LockedImage| docker_entry(image, self.platform, self.find);
        serializer.collect_seq(self.images.iter().filter_map(entry))
    }
}

/// The entry of an image in `manifest.json`, if it has one.
pub fn docker_entry(image: &LockedImage, platform: &Platform, find: &Find<'_>) -> Option<Value> {
    let manifest = one_platform(find(&image.descriptor())?, platform, find)?;
    is_image(&manifest, find).then(|| described(image, &manifest))?
}

fn described(image: &LockedImage, manifest: &Manifest) -> Option<Value> {
    let config = manifest.config()?.digest.blob_path();
    let children = manifest.children();
    let foreign = children.iter().any(|child| child.role == Role::ForeignLayer);
    let layers = children.iter().filter(|child| child.role == Role::Layer);
    let layers: Vec<String> = layers.map(|child| child.descriptor.digest.blob_path()).collect();
    let tags: Vec<String> = image.reference.tag.iter().map(|_| image.name()).collect();
    (!foreign).then(|| json!({ "Config": config, "RepoTags": tags, "Layers": layers }))
}

/// The manifest itself, or the child of an index for `platform`, or its only child.
fn one_platform(root: Manifest, platform: &Platform, find: &Find<'_>) -> Option<Manifest> {
    if root.kind() == Kind::Image {
        return Some(root);
    }
    let children = root.children();
    let offered = children.iter().filter_map(|child| Some((child, offered_platform(child)?)));
    let asked = platform.best(offered).into_iter().find_map(|child| find(&child.descriptor));
    let chosen = asked.or_else(|| only(&children).and_then(|child| find(&child.descriptor)));
    chosen.filter(|manifest| manifest.kind() == Kind::Image)
}

/// The only child with a platform.
fn only(children: &[Child]) -> Option<&Child> {
    let mut real = children.iter().filter(|child| offered_platform(child).is_some());
    real.next().filter(|_| real.next().is_none())
}
