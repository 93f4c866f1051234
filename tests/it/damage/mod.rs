//! Damaged and hostile bundles: accidents are found and named, forgeries are harmless, and neither ever reaches a
//! registry.

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
