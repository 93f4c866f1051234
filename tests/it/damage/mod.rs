//! Damaged and hostile bundles: what happens to files by accident is found and named, what somebody made on purpose is
//! harmless, and neither ever reaches a registry.

mod bundle;
mod chunks;
mod commands;
mod companions;
mod cut;
mod during;
mod export_over;
mod forged;
mod hostile;
mod manifests;
mod matrix;
mod memory;
mod missing;
mod repair;
mod repair_places;
mod repair_signatures;
