//! What is in a storage, as a table or as JSON.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;

use super::collect::Collected;
use crate::cli::context::Context;
use crate::cli::table;
use crate::error::Result;
use crate::graph::Image;
use crate::oci::{Digest, Manifest, Platform};
use crate::progress::units::{bytes, count};
use crate::transport::storage::{Fault, Tagged};

/// How many images have each piece of content.
struct Shares(HashMap<Digest, (u64, usize)>);

impl Shares {
    fn of(collected: &Collected) -> Shares {
        let mut shares: HashMap<Digest, (u64, usize)> = HashMap::new();
        for image in collected.images.iter().filter_map(|(_, image)| image.as_ref().ok()) {
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

fn name(found: &Tagged) -> String {
    format!("{}:{}", found.repository.path(), found.tag)
}

/// The image that a fault costs, as the list calls it.
fn costs(fault: &Fault) -> Option<String> {
    fault.image.as_ref().map(|(repository, tag)| format!("{}:{tag}", repository.path()))
}

pub fn print(collected: &Collected, context: &Context) -> Result<()> {
    let shares = Shares::of(collected);
    let rows: Vec<Vec<String>> = collected.images.iter().map(|(found, image)| row(found, image, &shares)).collect();
    let mut text = table::render(&["IMAGE", "PLATFORMS", "SIZE", "SHARED", "DIGEST", "STATE"], &rows);
    let faulty = collected.images.iter().filter_map(|(_, image)| Some(image.as_ref().err()?.chain() + "\n"));
    let faulty: Vec<String> = faulty.collect();
    let odd = collected.faults.iter().map(|fault| match costs(fault) {
        Some(image) => format!("image {image}: {}: {}\n", fault.path, fault.what),
        None => format!("{}: {}\n", fault.path, fault.what),
    });
    let odd: Vec<String> = odd.collect();
    let wrong = faulty.len() + odd.len();
    if wrong > 0 {
        text.push('\n');
        faulty.iter().chain(&odd).for_each(|line| text.push_str(line));
    }
    let images = count(collected.images.len(), "image");
    let repositories = match collected.repositories {
        1 => "1 repository".to_owned(),
        number => format!("{number} repositories"),
    };
    let faults = if wrong == 0 { "nothing wrong".to_owned() } else { format!("{wrong} wrong") };
    text.push_str(&format!("\n{images} in {repositories}, {}, {faults}\n", bytes(shares.total())));
    context.print(&text)
}

fn row(found: &Tagged, image: &Result<Image>, shares: &Shares) -> Vec<String> {
    let (platforms, size, shared, state) = match image {
        Ok(image) => {
            let platforms: Vec<String> = image.locked.platforms.iter().map(Platform::to_string).collect();
            let platforms = if platforms.is_empty() { "-".to_owned() } else { platforms.join(",") };
            (platforms, bytes(image.total_size()), bytes(shares.shared(image)), "ok")
        }
        Err(_) => ("-".to_owned(), "-".to_owned(), "-".to_owned(), "faulty"),
    };
    vec![name(found), platforms, size, shared, found.digest.short(), state.to_owned()]
}

pub fn print_json(storage: &Path, collected: &Collected, context: &Context) -> Result<()> {
    let shares = Shares::of(collected);
    let images: Vec<serde_json::Value> = collected
        .images
        .iter()
        .map(|(found, image)| {
            let known = json!({
                "name": name(found), "repository": found.repository.path(), "tag": found.tag, "digest": found.digest,
            });
            let more = match image {
                Ok(image) => json!({
                    "mediaType": image.locked.media_type, "platforms": image.locked.platforms,
                    "size": image.total_size(), "shared": shares.shared(image), "state": "ok",
                }),
                Err(error) => json!({ "state": "faulty", "fault": error.chain() }),
            };
            merged(known, more)
        })
        .collect();
    let faults: Vec<serde_json::Value> = collected
        .faults
        .iter()
        .map(|fault| json!({ "path": fault.path, "what": fault.what, "image": costs(fault) }))
        .collect();
    context.print_json(&json!({
        "storage": storage, "repositories": collected.repositories, "size": shares.total(),
        "images": images, "faults": faults,
    }))
}

fn merged(mut one: serde_json::Value, other: serde_json::Value) -> serde_json::Value {
    if let (Some(one), serde_json::Value::Object(other)) = (one.as_object_mut(), other) {
        one.extend(other);
    }
    one
}
