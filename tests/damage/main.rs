//! Damaged and hostile bundles: what happens to files by accident is found and named, what somebody made on purpose is
//! harmless, and neither ever reaches a registry.

mod bundle;
mod cut;
mod during;
mod export_over;
mod hostile;
mod matrix;
#[path = "../support/mod.rs"]
mod support;
