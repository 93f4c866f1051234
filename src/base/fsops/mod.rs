//! Everything that gives, takes or locks a name in the file system, reserves room in it or waits until names are on the
//! medium. No other room does any of this itself, except for `content::checkpoint`: its file may fail without an error. Open files
//! are written and synced by those who hold them.
//!
//! The room knows names and bytes, not what they mean.
//!
//! # Durability
//! A file is written under a temporary name. [`publish`] syncs its bytes, renames it, and syncs the directory, in this order:
//! no reader sees half a file, and after a power cut the name leads to the old file or to the new one.
//!
//! # Threats
//! A directory may belong to another user, or be writable for one. Then any name in it can change between two system calls.
//! So a directory is opened once ([`Dir`]), and everything happens relative to the open directory, one name at a time. Links
//! are followed in the path that the user gave to open it, and nowhere below.

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
