pub mod content;
pub mod error;
pub mod lock;
pub mod oci;
pub mod progress;
pub mod select;

pub use error::{Error, Result};
