//! Counts which tags of a storage are images, and which are tags of cosign or lists of referrers.

use std::collections::BTreeMap;

use crate::base::progress::units::count;
use crate::oci::{Digest, Repository};
use crate::pipeline::companion::Kind;
use crate::transport::storage::Tagged;

/// Numbers of tags by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub images: usize,
    companions: BTreeMap<Kind, usize>,
    /// Number of lists of referrers.
    lists: usize,
}

/// What a tag is, if it is not an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompanionTag {
    Cosign(Kind),
    ListOfReferrers,
}

/// Classifies the tag of `found`. It is a companion if its subject is in the same repository, according to `has`. `None`
/// for an image.
pub fn companion_tag(found: &Tagged, has: impl Fn(&Repository, &Digest) -> bool) -> Option<CompanionTag> {
    let tag = found.tag.as_ref()?;
    tag.companion_subject().filter(|subject| *subject != found.digest && has(&found.repository, subject))?;
    match tag.cosign_subject() {
        Some(_) => Some(CompanionTag::Cosign(Kind::of(Some(tag), None, None))),
        None => Some(CompanionTag::ListOfReferrers),
    }
}

impl Counted {
    pub fn add(&mut self, what: Option<CompanionTag>) {
        match what {
            None => self.images += 1,
            Some(CompanionTag::Cosign(kind)) => *self.companions.entry(kind).or_default() += 1,
            Some(CompanionTag::ListOfReferrers) => self.lists += 1,
        }
    }
}

impl FromIterator<Option<CompanionTag>> for Counted {
    fn from_iter<I: IntoIterator<Item = Option<CompanionTag>>>(all: I) -> Counted {
        all.into_iter().fold(Counted::default(), |mut counted, one| {
            counted.add(one);
            counted
        })
    }
}

/// `3 images, 2 signatures, 1 list of referrers`.
impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&count(self.images, "image"))?;
        self.companions.iter().try_for_each(|(kind, number)| write!(f, ", {}", kind.counted(*number)))?;
        match self.lists {
            0 => Ok(()),
            1 => f.write_str(", 1 list of referrers"),
            lists => write!(f, ", {lists} lists of referrers"),
        }
    }
}
