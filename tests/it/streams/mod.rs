//! Bundles in one pass, on standard output and from a pipe.

mod compressed;
mod fixture;
mod import;
mod out;
mod source;
mod verify;
