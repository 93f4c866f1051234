//! Which mirror served what, for the plan and the report.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::context::Context;
use crate::base::progress::units::{bytes, count};
use crate::oci::Repository;
use crate::pipeline::lock::{Lock, LockedImage};
use crate::transport::registry::Registries;

/// Where the manifest of an image was read, if not at the place its name says.
fn place(image: &LockedImage, registries: &Registries) -> Option<Repository> {
    let digest = image.selection.as_ref().map_or(image.digest, |selection| selection.original.digest);
    registries.served_by(&image.reference.repository, &digest)
}

/// A line for each image that a mirror serves, or the place its registry has moved to.
pub fn plan(lock: &Lock, registries: &Registries) -> String {
    let served = lock.images.iter().filter_map(|image| Some((image.name(), place(image, registries)?)));
    served.map(|(name, place)| format!("{name} is read from {place}\n")).collect()
}

/// The same as an object: image to place.
pub fn plan_json(lock: &Lock, registries: &Registries) -> Value {
    let served = lock.images.iter().filter_map(|image| Some((image.name(), place(image, registries)?)));
    Value::Object(served.map(|(name, place)| (name, json!(place))).collect::<Map<_, _>>())
}

/// A line for each registry with mirrors and each place that served something of it.
pub fn tell(registries: &Registries, context: &Context) {
    let mut sums: BTreeMap<(String, String), [u64; 3]> = BTreeMap::new();
    for served in registries.served() {
        let places = (served.repository.registry().to_owned(), served.from.registry().to_owned());
        let sum = sums.entry(places).or_default();
        for (sum, more) in sum.iter_mut().zip([served.manifests, served.blobs, served.bytes]) {
            *sum = sum.saturating_add(more);
        }
    }
    for ((registry, from), [manifests, blobs, size]) in sums {
        let items = |number: u64, what: &str| count(usize::try_from(number).unwrap_or(usize::MAX), what);
        let (manifests, blobs, size) = (items(manifests, "manifest"), items(blobs, "blob"), bytes(size));
        context.say(&format!("{registry} read from {from}: {manifests}, {blobs}, {size}"));
    }
}

/// The same, repository by repository.
pub fn report_json(registries: &Registries) -> Value {
    let served = registries.served().into_iter().map(|served| {
        json!({
            "repository": served.repository, "from": served.from,
            "manifests": served.manifests, "blobs": served.blobs, "bytes": served.bytes,
        })
    });
    Value::Array(served.collect())
}
