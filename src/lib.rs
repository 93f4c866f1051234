pub mod content;
pub mod error;
pub mod graph;
pub mod lock;
pub mod oci;
pub mod progress;
pub mod select;
pub mod walk;

pub use error::{Error, Result};
