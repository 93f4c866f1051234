//! Increments: what has arrived does not cross again, and nothing is believed to have arrived that has not.

#[path = "../support/mod.rs"]
mod support;

mod chain;
mod ground;
