//! A bundle on several media: written as volumes, read from them, and made again where some are lost.

mod export;
#[path = "../bundle/ground.rs"]
#[allow(dead_code)] // another test binary uses all of it
mod ground;
mod lost;
mod mended;
mod read;
mod recover;
mod split;
#[path = "../support/mod.rs"]
mod support;
