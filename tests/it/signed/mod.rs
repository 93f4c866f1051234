//! Signed bundles, and bundles refused because the required signature is missing or wrong.

pub mod keys;
mod refused;
mod written;
