//! What every room above the vocabulary shares: errors, progress events, durable file operations, positions in files.
//!
//! It may know the [vocabulary](crate::oci) and the operating system. It must not know formats, transports or stages.

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
