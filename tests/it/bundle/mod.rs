//! Bundles alone: other programs can read what was written, interrupted runs continue, and existing files are not
//! destroyed. No network, no registry.

mod again;
pub mod fixture;
mod interrupted;
mod written;
