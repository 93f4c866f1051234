//! Finds different images with the same target name; that is an error before any push.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use crate::oci::{Digest, Reference, Tag};
use crate::pipeline::lock::LockedImage;

/// Two or more different images that would get one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    pub target: Reference,
    /// The images' references at the source and their carried digests, in the order of the bundle.
    pub images: Vec<(Reference, Digest)>,
    /// Whether several of them got this name from the allowlist (`as=`), so that no rule at the target can separate
    /// them.
    pub is_of_allowlist: bool,
}

impl fmt::Display for Collision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} would be", self.target)?;
        for (index, (source, digest)) in self.images.iter().enumerate() {
            write!(f, "{} {source} ({})", if index == 0 { "" } else { " and" }, digest.short())?;
        }
        Ok(())
    }
}

/// The result of [`find_collisions`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collisions {
    /// By target name.
    pub collisions: Vec<Collision>,
    /// Names that several references with the same digest share: not wrong, but worth showing.
    pub notices: Vec<String>,
}

/// Finds images that share a target name, and companions with tags of their own, such as cosign's. Lists of signatures
/// and of referrers may share one: their tag gets all of them.
pub fn find_collisions<'a>(names: impl IntoIterator<Item = (&'a Reference, &'a LockedImage)>) -> Collisions {
    let names: Vec<_> = names.into_iter().collect();
    let mut by_target: BTreeMap<Reference, Vec<(Reference, Digest)>> = BTreeMap::new();
    for (target, image) in &names {
        by_target.entry((*target).clone()).or_default().push((image.reference.clone(), image.digest));
    }
    let notices = by_target.iter().filter_map(|(target, images)| shared(target, images)).collect();
    for (target, image) in &names {
        let source = image.companion_tags(&image.reference.repository);
        for ((from, digest), (to, _)) in source.zip(image.companion_tags(&target.repository)) {
            let landed = by_target.entry(to).or_default();
            // Tags of one image share their companions, even if the allowlist lists these as images.
            if !landed.iter().any(|(known, _)| *known == from) {
                landed.push((from, digest));
            }
        }
    }
    let renamed: HashSet<&Reference> =
        names.iter().filter(|(_, image)| image.rename.is_some()).map(|(_, image)| &image.reference).collect();
    let is_list = |target: &Reference| target.digest.is_none() && target.tag.as_ref().is_some_and(Tag::is_list);
    let collides = |(target, images): &(Reference, Vec<_>)| differ(images) && !is_list(target);
    let collisions = by_target.into_iter().filter(collides).map(|(target, images)| {
        let of_allowlist: Vec<_> = images.iter().filter(|(source, _)| renamed.contains(source)).cloned().collect();
        Collision { target, is_of_allowlist: differ(&of_allowlist), images }
    });
    Collisions { collisions: collisions.collect(), notices }
}

fn differ(images: &[(Reference, Digest)]) -> bool {
    images.windows(2).any(|pair| matches!(pair, [(_, a), (_, b)] if a != b))
}

fn shared(target: &Reference, images: &[(Reference, Digest)]) -> Option<String> {
    let sources: Vec<String> = images.iter().map(|(source, _)| source.to_string()).collect();
    let is_one = images.len() > 1 && !differ(images);
    is_one.then(|| format!("{} are one image and land on {target}", sources.join(" and ")))
}
