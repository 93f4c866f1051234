//! Bundles in one pass: out of standard output, and in from a pipe.

mod ground;
mod import;
mod out;
#[path = "../support/mod.rs"]
mod support;
mod verify;
