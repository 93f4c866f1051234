//! Tags of images that are no longer wanted: only those that still mean what the parent had, and that nothing else
//! needs.

use std::collections::BTreeSet;

use crate::base::error::Result;
use crate::content::{Lookup, Sink};
use crate::oci::{Digest, Reference};

/// A tag that could be deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PruneCandidate {
    pub tag: Reference,
    pub digest: Digest,
}

/// What to do with a [`PruneCandidate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Delete it.
    Deleted,
    /// It does not exist.
    Gone,
    /// Another image has this name now.
    Moved,
    /// A policy of the target forbids reading what it means now.
    Blocked,
    /// An image of the bundle has this name.
    Wanted,
}

/// Decides about `candidate`; `wanted` are the names of the bundle's images.
///
/// # Errors
/// The target gives no clear answer.
pub async fn decide(sink: &dyn Sink, candidate: &PruneCandidate, wanted: &BTreeSet<Reference>) -> Result<Decision> {
    if wanted.contains(&candidate.tag) {
        return Ok(Decision::Wanted);
    }
    Ok(match sink.resolve(&candidate.tag).await? {
        Lookup::Absent => Decision::Gone,
        Lookup::Found(found) if found.digest == candidate.digest => Decision::Deleted,
        Lookup::Found(_) => Decision::Moved,
        Lookup::Blocked(_) => Decision::Blocked,
    })
}
