//! Who made it: bundles that are signed, and those that are refused because they are not by whom they should be.

mod keys;
mod refused;
#[path = "../support/mod.rs"]
mod support;
mod written;
