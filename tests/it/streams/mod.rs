//! Bundles in one pass: out of standard output, and in from a pipe.

mod compressed;
mod fixture;
mod import;
mod out;
mod source;
mod verify;
