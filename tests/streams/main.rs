//! Bundles in one pass: out of standard output, and in from a pipe.

mod ground;
mod out;
#[path = "../support/mod.rs"]
mod support;
