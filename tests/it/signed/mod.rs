//! Who made it: bundles that are signed, and those that are refused because they are not by whom they should be.

pub mod keys;
mod refused;
mod written;
