//! Lists the contents of a storage.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::broken::broken_images;
use super::collect::Collected;
use super::counted::{self, CompanionTag, Counted};
use super::name::StoredName;
use super::report::{StorageList, StoredImage, StoredState};
use crate::app::outcome::REPORT_VERSION;
use crate::app::storage_problems::problem_counts;
use crate::oci::{Digest, Manifest, Repository, media_type};
use crate::pipeline::graph::Image;
use crate::transport::storage::Tagged;

/// The size of each piece of content, and the number of images that have it.
struct Shares(HashMap<Digest, (u64, usize)>);

impl Shares {
    fn of(collected: &Collected) -> Shares {
        let mut shares: HashMap<Digest, (u64, usize)> = HashMap::new();
        for image in collected.images.iter().filter_map(|(_, image)| image.as_ref()) {
            for (digest, size) in content(image) {
                shares.entry(digest).or_insert((size, 0)).1 += 1;
            }
        }
        Shares(shares)
    }

    /// Bytes of this image that another image has too.
    fn shared(&self, image: &Image) -> u64 {
        let is_shared = |digest: &Digest| self.0.get(digest).is_some_and(|(_, images)| *images > 1);
        content(image).filter(|(digest, _)| is_shared(digest)).map(|(_, size)| size).fold(0, u64::saturating_add)
    }

    fn total(&self) -> u64 {
        self.0.values().map(|(size, _)| *size).fold(0, u64::saturating_add)
    }
}

fn content(image: &Image) -> impl Iterator<Item = (Digest, u64)> {
    let manifests = image.manifests.iter().map(|manifest: &Manifest| (manifest.digest(), manifest.size()));
    manifests.chain(image.blobs.iter().map(|blob| (blob.digest, blob.size)))
}

/// The manifests of each repository, as far as they were read.
struct Inside<'a>(HashSet<(&'a Repository, Digest)>);

impl Inside<'_> {
    fn of(collected: &Collected) -> Inside<'_> {
        let manifests = |(found, image): &'_ (Tagged, Option<Image>)| -> Vec<Digest> {
            let read = image.iter().flat_map(|image| &image.manifests).map(Manifest::digest);
            read.chain([found.digest]).collect()
        };
        let all = collected.images.iter();
        Inside(all.flat_map(|one| manifests(one).into_iter().map(|digest| (&one.0.repository, digest))).collect())
    }

    fn companion_tag(&self, found: &Tagged) -> Option<CompanionTag> {
        counted::companion_tag(found, |repository, digest| self.0.contains(&(repository, *digest)))
    }
}

/// The sort key of images: all images of a repository come together, before repositories below its path.
fn place(name: &str) -> String {
    name.replace([':', '@'], "\0")
}

/// Describes a manifest in a word. Without `docker` in the word, it is an OCI type.
fn type_of(manifest: &Manifest) -> &'static str {
    let is_artifact = || {
        let config = manifest.config().map(|config| config.media_type.as_str());
        manifest.artifact_type().is_some() || !config.is_some_and(media_type::is_image_config)
    };
    match manifest.media_type() {
        media_type::DOCKER_LIST => "docker list",
        media_type if media_type::is_index(media_type) => "index",
        _ if is_artifact() => "artifact",
        media_type::DOCKER_MANIFEST => "docker",
        _ => "image",
    }
}

/// Lists every selected image and all problems. `storage` is the path as named in the request.
pub fn list(storage: &Path, collected: &Collected) -> StorageList {
    let shares = Shares::of(collected);
    let whole = collected.whole().map(|(found, image)| StoredImage {
        name: StoredName::of(found),
        media_type: Some(image.locked.media_type.clone()),
        platforms: Some(image.locked.platforms.clone()),
        size: Some(image.total_size()),
        shared: Some(shares.shared(image)),
        state: StoredState::Ok,
        type_name: image.root().map(type_of),
    });
    let broken = broken_images(collected).into_iter().map(|broken| {
        let manifest = broken.manifest(collected);
        StoredImage {
            name: broken.known(),
            media_type: manifest.map(|manifest| manifest.media_type().to_owned()),
            platforms: None,
            size: None,
            shared: None,
            state: StoredState::Damaged,
            type_name: manifest.map(type_of),
        }
    });
    let mut images: Vec<StoredImage> = whole.chain(broken).collect();
    images.sort_by_cached_key(|image| place(&image.name.name));
    let inside = Inside::of(collected);
    let mut counted: Counted = collected.images.iter().map(|(found, _)| inside.companion_tag(found)).collect();
    counted.images += collected.lost();
    StorageList {
        version: REPORT_VERSION,
        ok: true,
        storage: storage.to_owned(),
        repository_count: collected.repositories,
        manifest_count: collected.revisions,
        size: shares.total(),
        images,
        problems: collected.problems.clone(),
        counts: problem_counts(&collected.problems),
        counted,
    }
}
