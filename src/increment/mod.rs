//! Increments: what a bundle need not carry because the target has it, and the proof of that before anything is pushed.
//!
//! On the connected side a [`Baseline`] (receipts, inventories, earlier bundles) says what may be left out. On the isolated
//! side [`Expected`] is a source that has the rest of the images: what the bundle lacks is read from the target; and
//! [`Expected::prove`] finds each of these digests there, or says that it is missing. [`Asker`] makes a baseline of what a target
//! has; [`judge`] says which tags of images that nobody wants any more can go, and [`orphans`] which companions go with them. It knows content, receipts and bundles; no
//! concrete registry and no command line.

mod baseline;
mod expected;
mod inventory;
mod orphans;
mod prune;

pub use baseline::Baseline;
pub use expected::{Beside, Expected, Proof};
pub use inventory::{Asker, Holdings, Named, Unreadable};
pub use orphans::{Disclose, Disclosed, Orphan, Orphans, orphans};
pub use prune::{Doomed, Fate, judge};
