//! Compares `index.json`, which containerd, podman and skopeo use, with the lock.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Problem, ProblemKind};
use crate::bundle::{BundleJson, INDEX_JSON, SUBJECT};
use crate::files::{IMAGE_NAME, Layout, REF_NAME};
use crate::oci::{Descriptor, Digest};
use crate::pipeline::lock::LockedImage;

/// Returns the differences between the names in `index.json` and in the lock. Only images that are complete in the bundle
/// are listed there.
pub fn compare(layout: &Layout, bundle: &BundleJson, partial: &BTreeSet<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let listed = match layout.index() {
        Ok(listed) => listed,
        // The check of files reports a missing or damaged file.
        Err(_) => {
            if layout.size_of(INDEX_JSON).is_some() {
                problems.push(Problem::new(INDEX_JSON, ProblemKind::Malformed).found("not an image index"));
            }
            return problems;
        }
    };
    let named = |d: &Descriptor, key: &str| d.annotations().get(key).map(|name| (name.clone(), d.digest));
    subjects_agree(bundle, listed, &mut problems);
    let mut expected: BTreeMap<String, Digest> = BTreeMap::new();
    // Companions may have a name, and need none.
    let mut companions: BTreeMap<String, Digest> = BTreeMap::new();
    for image in bundle.lock.images.iter().filter(|image| !partial.contains(&image.name())) {
        expected.insert(image.name(), image.digest);
        let tags = image.companion_tags(&image.reference.repository);
        companions.extend(tags.map(|(name, digest)| (name.to_string(), digest)));
    }
    for key in [REF_NAME, IMAGE_NAME] {
        let mut seen: BTreeMap<&str, Digest> = BTreeMap::new();
        for descriptor in listed {
            let Some(name) = descriptor.annotations().get(key) else { continue };
            // Readers differ in which of the two they use.
            if seen.insert(name, descriptor.digest).is_some_and(|former| former != descriptor.digest) {
                let found = format!("{name} is listed twice with different digests ({key})");
                problems.push(Problem::new(INDEX_JSON, ProblemKind::Disagreement).found(found));
            }
        }
        let found: BTreeMap<String, Digest> = listed.iter().filter_map(|d| named(d, key)).collect();
        let differs = expected.iter().find(|(name, digest)| found.get(*name) != Some(digest));
        let is_companion = |name: &str, digest: &Digest| companions.get(name) == Some(digest);
        let extra = found.iter().find(|(name, digest)| !expected.contains_key(*name) && !is_companion(name, digest));
        if let Some((name, digest)) = differs {
            let found = found.get(name).map_or_else(|| "nothing".to_owned(), Digest::to_string);
            let problem = Problem::new(INDEX_JSON, ProblemKind::Disagreement).expected(format!("{name} is {digest}"));
            problems.push(problem.found(format!("{found} ({key})")));
        }
        if let Some((name, digest)) = extra {
            let found = format!("{name} is {digest}, which is not in the lock ({key})");
            problems.push(Problem::new(INDEX_JSON, ProblemKind::Disagreement).found(found));
        }
    }
    problems
}

/// Checks that the subject a descriptor names is the one in the lock: containerd keeps the descriptor with that image.
fn subjects_agree(bundle: &BundleJson, listed: &[Descriptor], problems: &mut Vec<Problem>) {
    let companions = bundle.lock.images.iter().flat_map(LockedImage::companions);
    let known: HashSet<(Digest, String)> =
        companions.map(|companion| (companion.digest, companion.subject.to_string())).collect();
    for descriptor in listed {
        let Some(subject) = descriptor.annotations().get(SUBJECT) else { continue };
        if !known.contains(&(descriptor.digest, subject.clone())) {
            let found = format!("{} has the subject {subject}, which is not in the lock", descriptor.digest);
            problems.push(Problem::new(INDEX_JSON, ProblemKind::Disagreement).found(found));
        }
    }
}
