pub mod content;
pub mod error;
pub mod lock;
pub mod oci;
pub mod progress;

pub use error::{Error, Result};
