//! Tags of images that are not wanted any more. Only those that still mean what the parent had, and that nobody wants.

use std::collections::BTreeSet;

use crate::base::error::Result;
use crate::content::{Lookup, Sink};
use crate::oci::{Digest, Reference};

/// A tag that could go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Doomed {
    pub tag: Reference,
    pub digest: Digest,
}

/// Why one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is to be deleted.
    Deleted,
    /// It is not there.
    Gone,
    /// Another image has this name now.
    Moved,
    /// A policy of the target forbids reading what it means now.
    Blocked,
    /// An image of the bundle has this name.
    Wanted,
}

/// What is to become of `tag`, which meant `digest`; `wanted` are the names of the bundle's images.
///
/// # Errors
/// No clear answer from the target.
pub async fn judge(sink: &dyn Sink, doomed: &Doomed, wanted: &BTreeSet<Reference>) -> Result<Fate> {
    if wanted.contains(&doomed.tag) {
        return Ok(Fate::Wanted);
    }
    Ok(match sink.resolve(&doomed.tag).await? {
        Lookup::Absent => Fate::Gone,
        Lookup::Found(found) if found.digest == doomed.digest => Fate::Deleted,
        Lookup::Found(_) => Fate::Moved,
        Lookup::Blocked(_) => Fate::Blocked,
    })
}
