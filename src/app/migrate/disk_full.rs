//! Ends the writing of many pieces at the first error after which the file system accepts no more data.

use std::sync::OnceLock;

use crate::base::error::{Error, Result};

/// The first error after which nothing more can be written, if one occurred.
#[derive(Default)]
pub struct DiskFull(OnceLock<Error>);

impl DiskFull {
    /// Calls `write` unless such an error occurred before. Records the first such error.
    ///
    /// # Errors
    /// The errors of `write`, or the recorded error.
    pub fn unless<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.0.get() {
            Some(error) => Err(error.clone()),
            None => write().inspect_err(|error| {
                if error.is_disk_closed() {
                    let _ = self.0.set(error.clone());
                }
            }),
        }
    }

    /// Checks whether writing is still possible.
    ///
    /// # Errors
    /// The recorded error.
    pub fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}
