//! What accompanies an image: signatures, attestations, SBOMs.
//!
//! Pure values, no I/O: [`Kind`] says what a companion is.

mod kind;

pub use kind::Kind;
