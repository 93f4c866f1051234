//! Increments: what has arrived does not cross again, and nothing is believed to have arrived that has not.

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod baseline;
mod chain;
mod ground;
mod lacking;
mod prune;
