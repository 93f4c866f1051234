//! Bundles in one pass: out of standard output, and in from a pipe.

mod compressed;
#[allow(dead_code)] // the tests of bundles use the rest
#[path = "../bundle/ground.rs"]
mod contents;
mod ground;
mod import;
mod out;
mod source;
#[path = "../support/mod.rs"]
mod support;
mod verify;
