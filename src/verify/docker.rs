//! Compares `manifest.json`, which `docker load` uses, with the lock.
//!
//! # Threats
//! The file can have the right sums and different contents: `docker load` would then load something else under a name that
//! was reviewed and allowed.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use super::manifests::ManifestReader;
use super::{Problem, ProblemKind};
use crate::bundle::{BundleJson, DOCKER_JSON, MAX_DOCKER_JSON, MOST_DOCKER_VALUES, docker_entry, load_platform};
use crate::files::Layout;
use crate::oci::{Digest, has_at_most_values};

/// Returns a problem for every entry that does not follow from an image of the lock.
pub fn compare(layout: &Layout, bundle: &BundleJson, partial: &BTreeSet<String>) -> Vec<Problem> {
    // The check of files reports a missing file.
    let bytes = match layout.read(DOCKER_JSON, MAX_DOCKER_JSON) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Vec::new(),
        Err(error) => {
            return vec![Problem::new(DOCKER_JSON, ProblemKind::Unreadable).found(error.chain())];
        }
    };
    let malformed = |found: &str| vec![Problem::new(DOCKER_JSON, ProblemKind::Malformed).found(found)];
    if !has_at_most_values(&bytes, MOST_DOCKER_VALUES) {
        return malformed("more entries than a bundle can have");
    }
    let Ok(entries) = serde_json::from_slice::<Vec<Value>>(&bytes) else {
        return malformed("not a list of images as `docker save` writes it");
    };
    // Other checks report manifests that cannot be read.
    let Some(expected) = expected(layout, bundle, partial) else { return Vec::new() };
    let others = entries.iter().filter(|entry| fingerprint(entry).is_none_or(|known| !expected.contains(&known)));
    let problem = |entry: &Value| {
        let found = format!("{} with config {}, which is not in the lock", entry["RepoTags"], entry["Config"]);
        Problem::new(DOCKER_JSON, ProblemKind::Disagreement).found(found)
    };
    others.map(problem).collect()
}

/// Returns the fingerprints of all entries that follow from the lock. Holds one manifest in memory at a time.
fn expected(layout: &Layout, bundle: &BundleJson, partial: &BTreeSet<String>) -> Option<HashSet<Digest>> {
    let found = ManifestReader::new(layout);
    let find = found.find();
    let platform = load_platform(&bundle.lock);
    let mut expected = HashSet::new();
    for image in bundle.lock.images.iter().filter(|image| !partial.contains(&image.name())) {
        layout.size_of(&image.digest.blob_path())?;
        expected.extend(docker_entry(image, &platform, &find).iter().filter_map(fingerprint));
    }
    found.is_sound().then_some(expected)
}

/// A digest that is equal for entries with the same values, whatever the order of their fields. `None` if fields are
/// missing or added.
fn fingerprint(entry: &Value) -> Option<Digest> {
    let fields = entry.as_object().filter(|fields| fields.len() == 3)?;
    let entry = json!([fields.get("Config")?, fields.get("RepoTags")?, fields.get("Layers")?]);
    Some(Digest::sha256(entry.to_string().as_bytes()))
}
