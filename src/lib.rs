pub mod content;
pub mod error;
pub mod oci;
pub mod progress;

pub use error::{Error, Result};
