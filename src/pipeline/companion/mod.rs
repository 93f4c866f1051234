//! What accompanies an image: signatures, attestations, SBOMs.
//!
//! Pure values without I/O: [`Kind`] says what a companion is, [`merge`] joins lists of signatures that both sides of
//! the gap have added to.

mod kind;
mod merge;

pub use kind::Kind;
pub use merge::{Joined, Merge, NotMerged, Signatures, merge};
