//! What all modules above the vocabulary share: errors, progress events, durable file operations, positions in files.
//!
//! It may depend on the [vocabulary](crate::oci) and the operating system, and on nothing else.

pub mod blocking;
pub mod bounded;
pub mod canonical;
pub mod code;
pub mod document;
pub mod error;
pub mod fsops;
pub mod position;
pub mod progress;

pub use error::{Error, Result};
