//! What a target says of a tag or digest.

use crate::oci::{Descriptor, Digest};

/// What a tag or digest means at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Absent,
    Found(Descriptor),
    /// It exists, or may exist, and the target does not let us read what it means: a policy forbids pulling it, or this account
    /// may only push. Says why, in the target's words. Pushing is allowed.
    Blocked(String),
}

impl Lookup {
    pub fn is_absent(&self) -> bool {
        *self == Lookup::Absent
    }

    /// Whether it is known to mean `digest`.
    pub fn means(&self, digest: &Digest) -> bool {
        matches!(self, Lookup::Found(found) if found.digest == *digest)
    }
}

impl From<Option<Descriptor>> for Lookup {
    fn from(found: Option<Descriptor>) -> Lookup {
        found.map_or(Lookup::Absent, Lookup::Found)
    }
}
