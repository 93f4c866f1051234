//! What is written piece by piece ends when the file system takes nothing more, and not once for each piece.

use std::sync::OnceLock;

use crate::base::error::{Error, Result};

/// The first error after which nothing more can be written, if there was one.
#[derive(Default)]
pub struct DiskFull(OnceLock<Error>);

impl DiskFull {
    /// Writes, unless that is over; the first error that ends it is kept.
    ///
    /// # Errors
    /// Those of `write`; once it is over, the one that ended it.
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

    /// # Errors
    /// What ended it.
    pub fn check(&self) -> Result<()> {
        self.0.get().map_or(Ok(()), |error| Err(error.clone()))
    }
}
