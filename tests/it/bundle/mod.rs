//! The bundle by itself, without network or registry: other programs can read it, interrupted writes resume, and
//! nothing in the way is destroyed.

mod again;
pub mod fixture;
mod interrupted;
mod written;
