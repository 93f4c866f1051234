//! What a target answers about a tag or digest.

use crate::oci::{Descriptor, Digest};

/// What a tag or digest refers to at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Absent,
    Found(Descriptor),
    /// It exists or may exist, but the target does not let us see what it refers to: a policy forbids pulling it, or this
    /// account may only push. Contains the target's explanation. Pushing is allowed.
    Blocked(String),
}

impl Lookup {
    pub fn is_absent(&self) -> bool {
        *self == Lookup::Absent
    }

    /// Whether it is known to refer to `digest`.
    pub fn means(&self, digest: &Digest) -> bool {
        matches!(self, Lookup::Found(found) if found.digest == *digest)
    }
}

impl From<Option<Descriptor>> for Lookup {
    fn from(found: Option<Descriptor>) -> Lookup {
        found.map_or(Lookup::Absent, Lookup::Found)
    }
}
