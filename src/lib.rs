pub mod allowlist;
pub mod bundle;
pub mod check;
pub mod content;
pub mod error;
pub mod graph;
pub mod lock;
pub mod naming;
pub mod oci;
pub mod plan;
pub mod progress;
pub mod receipt;
pub mod resolve;
pub mod select;
pub mod transfer;
pub mod transport;
pub mod walk;

pub use error::{Error, Result};
