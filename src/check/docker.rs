//! `manifest.json`, which `docker load` goes by: it must tell the same story as the lock.
//!
//! # Threats
//! Its sums may be right and its story another one: under a name that somebody has looked at and allowed, `docker load`
//! would take what `manifest.json` says.

use serde_json::Value;

use super::{Problem, ProblemKind};
use crate::bundle::{BundleJson, DOCKER_JSON, docker_json};
use crate::oci::{Manifest, Role};
use crate::transport::layout::Layout;

/// The largest `manifest.json` that is read, in bytes: room for 100,000 images.
const MAX_DOCKER_JSON: u64 = 64 * 1024 * 1024;

/// Notes every entry that is not what the lock makes of one of its images. Images may be left out.
pub fn agrees(layout: &Layout, bundle: &BundleJson, problems: &mut Vec<Problem>) {
    // Missing is found where files are checked.
    let bytes = match layout.read(DOCKER_JSON, MAX_DOCKER_JSON) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return,
        Err(error) => {
            return problems.push(Problem::new(DOCKER_JSON, ProblemKind::Unreadable).found(error.chain()));
        }
    };
    let Ok(entries) = serde_json::from_slice::<Vec<Value>>(&bytes) else {
        let problem = Problem::new(DOCKER_JSON, ProblemKind::Malformed);
        return problems.push(problem.found("it is not a list of images as `docker save` writes it"));
    };
    // What cannot be read is found elsewhere.
    let Some(manifests) = manifests(layout, bundle) else { return };
    let expected = docker_json(&bundle.lock, &manifests);
    let expected = expected.as_array().map_or(&[][..], Vec::as_slice);
    for entry in entries.iter().filter(|entry| !expected.contains(entry)) {
        let found = format!("{} with config {}, which the lock does not say", entry["RepoTags"], entry["Config"]);
        problems.push(Problem::new(DOCKER_JSON, ProblemKind::Disagreement).found(found));
    }
}

/// The manifest of every image, and those an index of them lists, as far as they are carried.
fn manifests(layout: &Layout, bundle: &BundleJson) -> Option<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for image in &bundle.lock.images {
        let root = layout.manifest_by_digest(&image.digest, Some(&image.media_type)).ok()??;
        for child in root.children().iter().filter(|child| child.role == Role::Manifest) {
            let child = &child.descriptor;
            manifests.extend(layout.manifest_by_digest(&child.digest, Some(&child.media_type)).ok()?);
        }
        manifests.push(root);
    }
    Some(manifests)
}
