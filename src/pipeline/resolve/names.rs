//! Names that two entries share, in the bundle and at the target.

use std::collections::HashMap;

use super::{LeaveOut, Missing};
use crate::base::error::Error;
use crate::base::position::ReferencePositions;
use crate::base::progress::{Event, Events};
use crate::oci::Digest;
use crate::pipeline::graph::Image;
use crate::pipeline::lock::{LockedImage, MissingImage};

/// Images by name, each with its index in a list.
type Named = HashMap<String, usize>;

/// `name:tag` and `name:tag@digest` are one name: one image if they are the same; otherwise the first one, and an
/// error. The same holds for images that should have one name at the target (`as=`), because nothing on the other side
/// could separate them. `written` says where they were requested.
pub(super) fn merge(
    found: Vec<Image>,
    written: &ReferencePositions,
    leave_out: LeaveOut,
    missing: &mut Vec<(MissingImage, Error)>,
    failures: &mut Vec<Error>,
    events: &Events,
) -> Vec<Image> {
    let (mut names, mut new_names) = (Named::new(), Named::new());
    let mut merged: Vec<Image> = Vec::with_capacity(found.len());
    let shown = |image: &Image| written.shown(&image.locked.reference);
    for image in found {
        let LockedImage { reference, rename, digest, .. } = &image.locked;
        let (name, at) = (image.locked.name(), merged.len());
        let first = *names.entry(name.clone()).or_insert(at);
        if let Some(first) = merged.get(first).map(|first| first.locked.digest) {
            if first == *digest {
                events.report(Event::Notice(format!("{reference} is {name}, which is already carried")));
                continue;
            }
            let text = "and another entry have the same name and different digests";
            let error = Error::input(format!("{reference} {text}, {first} and {digest}"));
            let (reference, rename, images) = (reference.clone(), rename.clone(), &mut *missing);
            leave_out.sort(Missing { reference, rename, images, failures }, error, events);
            continue;
        }
        if let Some(new_name) = new_name(&image) {
            let first = merged.get(*new_names.entry(new_name.clone()).or_insert(at));
            if let Some(first) = first.filter(|first| first.locked.digest != *digest) {
                let (one, other) = (shown(first), shown(&image));
                let text = format!("{other} and {one} would both be {new_name} at the target and are different images");
                let error = Error::input(format!("{text}: give one of them another name (as=)"));
                let (reference, rename, images) = (reference.clone(), rename.clone(), &mut *missing);
                names.remove(&name);
                leave_out.sort(Missing { reference, rename, images, failures }, error, events);
                continue;
            }
        }
        merged.push(image);
    }
    warn_of_usual_names(&merged, &new_names, &shown, events);
    merged
}

/// Returns the name that an import gives it, if the allowlist says so.
fn new_name(image: &Image) -> Option<String> {
    let LockedImage { reference, rename, digest, .. } = &image.locked;
    let rename = rename.as_ref()?;
    Some(below(&rename.path, rename.tag.as_ref().or(reference.tag.as_ref()).map(|tag| tag.as_str()), digest))
}

fn below(path: &str, tag: Option<&str>, digest: &Digest) -> String {
    tag.map_or_else(|| format!("{path}@{digest}"), |tag| format!("{path}:{tag}"))
}

/// An image that keeps its name may share it with the new name of another. At the target, a rule can still separate
/// them.
fn warn_of_usual_names(images: &[Image], new_names: &Named, shown: &dyn Fn(&Image) -> String, events: &Events) {
    for image in images.iter().filter(|image| image.locked.rename.is_none()) {
        let LockedImage { reference, digest, .. } = &image.locked;
        let name = below(reference.repository.path(), reference.tag.as_ref().map(|tag| tag.as_str()), digest);
        let other = new_names.get(&name).and_then(|at| images.get(*at));
        if let Some(other) = other.filter(|other| other.locked.digest != *digest) {
            let (one, other) = (shown(image), shown(other));
            events.report(Event::Warning(format!(
                "{one} and {other} would both be {name} at the target and are different images: `import` refuses them, unless --scoped \
                 or a rule of --map keeps them apart; or give one of them another name (as=)"
            )));
        }
    }
}
