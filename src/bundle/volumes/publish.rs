//! In which order finished volumes get their names.

use crate::base::error::Result;
use crate::base::fsops::Synced;

/// Gives volumes their names, the first of them last: once that is there, all are.
///
/// # Errors
/// The system refuses; some may have their names.
pub fn publish(mut volumes: Vec<Synced>) -> Result<()> {
    let others = volumes.split_off(volumes.len().min(1));
    Synced::publish(others)?;
    Synced::publish(volumes)
}
