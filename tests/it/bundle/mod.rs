//! The bundle on its own: what is written can be read without gapferry, what was interrupted is continued, and what is in
//! the way is not destroyed. No network, no registry.

mod again;
pub mod fixture;
mod interrupted;
mod written;
