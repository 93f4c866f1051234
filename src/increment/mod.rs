//! Increments: what a bundle need not carry because the target has it, and the proof of that before anything is pushed.
//!
//! On the connected side a [`Baseline`] (receipts, inventories, earlier bundles) says what may be left out. On the
//! isolated side [`TargetBackedSource`] is a source that has the rest of the images: it reads from the target what the
//! bundle lacks. [`TargetBackedSource::find_all`] finds each of these digests there, or says that it is missing.
//! [`InventoryBuilder`] makes a baseline from what a target has. [`decide`] says which tags of unwanted images can be
//! deleted, and [`orphans`] which companions go with them. The module knows content, receipts and bundles, and neither
//! a concrete registry nor the command line.

mod baseline;
mod inventory;
mod orphans;
mod prune;
mod target_backed;

pub use baseline::Baseline;
pub use inventory::{Holdings, InventoryBuilder, Named, UnreadableImage};
pub use orphans::{Disclose, Disclosed, Orphan, Orphans, orphans};
pub use prune::{Decision, PruneCandidate, decide};
pub use target_backed::{AssumedProof, RepairSource, TargetBackedSource};
