//! What is in a storage, as a table or as JSON.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::json;

use super::collect::Collected;
use super::counted::{self, Beside, Counted};
use super::entry::{Faulty, faulty, known, merged};
use super::faults;
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count};
use crate::cli::context::Context;
use crate::cli::table;
use crate::oci::{Digest, Manifest, Platform, Repository, media_type};
use crate::pipeline::graph::Image;
use crate::transport::storage::Tagged;

/// How many images have each piece of content.
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

    /// Bytes that another image has too.
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

/// The manifests that are in each repository, as far as they were read.
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

    fn beside(&self, found: &Tagged) -> Option<Beside> {
        counted::beside(found, |repository, digest| self.0.contains(&(repository, *digest)))
    }
}

/// `all`: no image was left out by its name.
pub fn print(collected: &Collected, all: bool, context: &Context) -> Result<()> {
    let shares = Shares::of(collected);
    let mut rows: Vec<Vec<String>> = collected.whole().map(|(found, image)| row(found, image, &shares)).collect();
    rows.extend(faulty(collected).iter().map(|faulty| faulty_row(faulty, collected)));
    rows.sort_by_cached_key(|row| row.first().map(|name| place(name)));
    let mut text = table::render(&["IMAGE", "TYPE", "PLATFORMS", "SIZE", "SHARED", "DIGEST", "STATE"], &rows);
    if !collected.faults.is_empty() {
        text.push('\n');
        collected.faults.iter().for_each(|fault| text.push_str(&faults::shown(fault)));
    }
    let inside = Inside::of(collected);
    let mut images: Counted = collected.images.iter().map(|(found, _)| inside.beside(found)).collect();
    images.images += collected.lost();
    let repositories = match collected.repositories {
        1 => "1 repository".to_owned(),
        number => format!("{number} repositories"),
    };
    let faults = faults::counted(&collected.faults);
    text.push_str(&format!("\n{images} in {repositories}, {}, {faults}\n", bytes(shares.total())));
    if rows.is_empty() && collected.revisions > 0 && all {
        let manifests = count(collected.revisions, "manifest");
        text.push_str(&format!(
            "{manifests} without any tag: Harbor 2.15 and later keep tags in their database only (--untagged, --tags-from)\n"
        ));
    }
    context.print(&text)
}

/// By which images are sorted: all of a repository stand together, before what lies below it.
fn place(name: &str) -> String {
    name.replace([':', '@'], "\0")
}

fn row(found: &Tagged, image: &Image, shares: &Shares) -> Vec<String> {
    let platforms: Vec<String> = image.locked.platforms.iter().map(Platform::to_string).collect();
    let platforms = if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") };
    let (size, shared) = (bytes(image.total_size()), bytes(shares.shared(image)));
    let of_type = image.root().map_or("-", type_of).to_owned();
    vec![found.name(), of_type, platforms, size, shared, found.digest.short(), "ok".to_owned()]
}

fn faulty_row(faulty: &Faulty<'_>, collected: &Collected) -> Vec<String> {
    let none = || "-".to_owned();
    let of_type = faulty.manifest(collected).map_or("-", type_of).to_owned();
    let digest = faulty.found.map_or_else(none, |found| found.digest.short());
    vec![faulty.name.clone(), of_type, none(), none(), none(), digest, "faulty".to_owned()]
}

/// In a word; where it says nothing else, it is OCI's.
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

pub fn print_json(storage: &Path, collected: &Collected, context: &Context) -> Result<()> {
    let shares = Shares::of(collected);
    let whole = collected.whole().map(|(found, image)| {
        let more = json!({
            "mediaType": image.locked.media_type, "platforms": image.locked.platforms,
            "size": image.total_size(), "shared": shares.shared(image), "state": "ok",
        });
        merged(known(found), more)
    });
    let faulty = faulty(collected).into_iter().map(|faulty| {
        let more = match faulty.manifest(collected) {
            Some(manifest) => json!({ "mediaType": manifest.media_type(), "state": "faulty" }),
            None => json!({ "state": "faulty" }),
        };
        merged(faulty.known(), more)
    });
    let mut images: Vec<serde_json::Value> = whole.chain(faulty).collect();
    images.sort_by_cached_key(|image| image["name"].as_str().map(place));
    context.print_json(&json!({
        "storage": storage, "repositories": collected.repositories, "manifests": collected.revisions, "size": shares.total(),
        "images": images, "faults": collected.faults, "counts": faults::counts(&collected.faults),
    }))
}
