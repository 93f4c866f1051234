//! Signed bundles, and bundles that are refused because no accepted key has signed them.

pub mod keys;
mod refused;
mod written;
