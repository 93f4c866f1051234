//! Damaged and hostile bundles: accidental damage is found and named, deliberate damage is harmless, and neither
//! reaches a registry.

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
