//! `manifest.json`, which `docker load` goes by: it must tell the same story as the lock.
//!
//! # Threats
//! Its sums may be right and its story another one: under a name that somebody has looked at and allowed, `docker load`
//! would take what `manifest.json` says.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use super::manifests::ManifestReader;
use super::{Problem, ProblemKind};
use crate::bundle::{BundleJson, DOCKER_JSON, MAX_DOCKER_JSON, MOST_DOCKER_VALUES, docker_entry, load_platform};
use crate::files::Layout;
use crate::oci::{Digest, has_at_most_values};

/// Notes every entry that is not what the lock makes of one of its images.
pub fn compare(layout: &Layout, bundle: &BundleJson, partial: &BTreeSet<String>) -> Vec<Problem> {
    // Missing is found where files are checked.
    let bytes = match layout.read(DOCKER_JSON, MAX_DOCKER_JSON) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Vec::new(),
        Err(error) => {
            return vec![Problem::new(DOCKER_JSON, ProblemKind::Unreadable).found(error.chain())];
        }
    };
    let malformed = |found: &str| vec![Problem::new(DOCKER_JSON, ProblemKind::Malformed).found(found)];
    if !has_at_most_values(&bytes, MOST_DOCKER_VALUES) {
        return malformed("it has more entries than any bundle");
    }
    let Ok(entries) = serde_json::from_slice::<Vec<Value>>(&bytes) else {
        return malformed("it is not a list of images as `docker save` writes it");
    };
    // What cannot be read is found elsewhere.
    let Some(expected) = expected(layout, bundle, partial) else { return Vec::new() };
    let others = entries.iter().filter(|entry| fingerprint(entry).is_none_or(|known| !expected.contains(&known)));
    let problem = |entry: &Value| {
        let found = format!("{} with config {}, which the lock does not say", entry["RepoTags"], entry["Config"]);
        Problem::new(DOCKER_JSON, ProblemKind::Disagreement).found(found)
    };
    others.map(problem).collect()
}

/// The fingerprints of all entries that the lock makes; one manifest in memory at a time.
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

/// The same for entries that say the same, in whatever order; `None` for what says less or more.
fn fingerprint(entry: &Value) -> Option<Digest> {
    let fields = entry.as_object().filter(|fields| fields.len() == 3)?;
    let entry = json!([fields.get("Config")?, fields.get("RepoTags")?, fields.get("Layers")?]);
    Some(Digest::sha256(entry.to_string().as_bytes()))
}
