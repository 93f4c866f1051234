//! Increments: what has arrived does not cross again, and nothing is believed to have arrived that has not.

#[path = "../support/mod.rs"]
mod support;

mod asked;
mod baseline;
mod chain;
mod ground;
#[allow(dead_code)] // the tests of signatures use the rest
#[path = "../signed/keys.rs"]
mod keys;
mod lacking;
mod orphans;
mod prune;
