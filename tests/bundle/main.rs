//! The bundle on its own: what is written can be read without gapferry, what was interrupted is continued, and what is in
//! the way is not destroyed. No network, no registry.

mod again;
mod ground;
mod interrupted;
#[path = "../support/mod.rs"]
mod support;
mod written;
