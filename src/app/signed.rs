//! The signature of a bundle that was written.

use crate::base::error::Result;
use crate::base::progress::Events;
use crate::bundle::{self, Finished, Scope};
use crate::files::Layout;
use crate::signing::PrivateKey;

/// Gives a bundle that was already what was wanted the signature that it lacks.
///
/// # Errors
/// It cannot be written.
pub fn add_signature(finished: &Finished, key: Option<&PrivateKey>, events: &Events) -> Result<()> {
    let Some(key) = key.filter(|_| finished.unchanged) else { return Ok(()) };
    let has_it = || bundle::check_signature(&Layout::open(&finished.path)?, std::slice::from_ref(key.public()));
    if has_it().is_err() {
        bundle::sign(&finished.path, key, Scope::Sums, events)?;
    }
    Ok(())
}
