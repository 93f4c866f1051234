//! Every operation that names, removes or locks files, reserves space, or syncs names. No other module does this itself,
//! except `content::checkpoint`, whose file may fail without an error. The owner of an open file writes and syncs its content.
//!
//! The module knows names and bytes, not what they mean.
//!
//! # Durability
//! A file is written under a temporary name. [`publish`] syncs its content, renames it and syncs the directory, in this order.
//! No reader sees a partial file, and after a power failure the name leads to the old file or the new one.
//!
//! # Threats
//! A directory may belong to another user or be writable for one. Any name in it can then change between two system calls. A
//! directory is therefore opened once ([`Dir`]), and everything happens relative to the open directory, one component at a
//! time. Links are followed in the path that the user gave, and nowhere below it.

mod dir;
mod entry;
mod identity;
mod links;
mod lock;
mod names;
mod owner;
mod publish;
mod read;
mod remove;
mod replacement;
mod space;
#[cfg(test)]
mod tests;
mod walk;

pub use dir::{Dir, Made, Open};
pub use entry::{Entry, refuse_other_than_directory, refuse_other_than_file};
pub use identity::{Identity, Occupant, Stat};
pub use links::{Linkable, Linked};
pub use lock::{LockedDir, LockedFile, WriteLock};
pub use names::{beside, canonicalize, is_mount_point, parent};
pub use owner::Owner;
pub use publish::{Synced, publish, publish_over, replace_directory};
pub use read::{open_plain, plain, without_waiting};
pub use replacement::Replacement;
pub use space::{begin_writing_out, free_space, reserve};
