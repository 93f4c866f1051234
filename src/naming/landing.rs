//! Who lands where: two images under one name are one image, or an error before any push.

use std::collections::BTreeMap;
use std::fmt;

use crate::lock::LockedImage;
use crate::oci::{Digest, Reference};

/// Two or more different images that would land on one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collision {
    pub target: Reference,
    /// The images' references at the source and what is carried for them, in the order of the bundle.
    pub images: Vec<(Reference, Digest)>,
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

/// What [`landing`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Landing {
    /// By target name.
    pub collisions: Vec<Collision>,
    /// Names that several references of one digest share: nothing wrong, worth showing.
    pub notices: Vec<String>,
}

/// Looks for images that share a target name.
pub fn landing<'a>(names: impl IntoIterator<Item = (&'a Reference, &'a LockedImage)>) -> Landing {
    let mut by_target: BTreeMap<&Reference, Vec<(Reference, Digest)>> = BTreeMap::new();
    for (target, image) in names {
        by_target.entry(target).or_default().push((image.reference.clone(), image.digest));
    }
    let mut found = Landing::default();
    for (target, images) in by_target {
        let differ = images.windows(2).any(|pair| matches!(pair, [(_, a), (_, b)] if a != b));
        if differ {
            found.collisions.push(Collision { target: target.clone(), images });
        } else if images.len() > 1 {
            let sources: Vec<String> = images.iter().map(|(source, _)| source.to_string()).collect();
            found.notices.push(format!("{} are one image and land on {target}", sources.join(" and ")));
        }
    }
    found
}
