//! Bundles in one pass: to standard output, and from a pipe.

mod compressed;
mod fixture;
mod import;
mod out;
mod source;
mod verify;
