//! The signature of a bundle that was written.

use std::path::Path;

use super::output::Output;
use crate::base::error::Result;
use crate::base::progress::{Event, Events};
use crate::bundle::chunks::MAX_CHUNKS;
use crate::bundle::{self, Bundle, CHUNKS, Finished, SignScope, check_signature};
use crate::files::Layout;
use crate::signing::{PrivateKey, PublicKey};

/// Whose signature a bundle has that was written with this key. One that was there already may lack the signature of its sums,
/// or that of `chunks.b3`, and gets them now.
///
/// # Errors
/// It cannot be written.
pub fn add_signature(finished: &Finished, key: Option<&PrivateKey>, events: &Events) -> Result<Option<PublicKey>> {
    let Some(key) = key else { return Ok(None) };
    if finished.unchanged && !is_signed(&finished.path, key.public()) {
        bundle::sign(&finished.path, key, SignScope::Full, events)?;
    }
    Ok(Some(key.public().clone()))
}

/// Whether the key has signed the sums of the bundle and `chunks.b3`, as it does when the bundle is written.
pub fn is_signed(bundle: &Path, key: &PublicKey) -> bool {
    let signed = || -> Result<bool> {
        let layout = Layout::open(bundle)?;
        let proven = check_signature(&layout, std::slice::from_ref(key))?;
        // Nothing uses a larger one.
        if layout.size_of(CHUNKS).is_some_and(|size| size > MAX_CHUNKS) {
            return Ok(true);
        }
        let chunks = layout.read(CHUNKS, MAX_CHUNKS)?;
        chunks.map_or(Ok(false), |chunks| proven.has_signed(&layout, &chunks))
    };
    signed().unwrap_or_default()
}

/// Warns where a bundle that was signed was replaced by one that is not.
pub fn warn_if_unsigned(former_was_signed: bool, output: &Output, events: &Events) {
    let is_signed = || output.former().is_ok_and(|bundle| bundle.as_ref().is_some_and(Bundle::has_signature));
    if former_was_signed && !is_signed() {
        let text =
            "the bundle that was replaced was signed, and this one is not: --sign-key or `gapferry sign` signs it";
        events.report(Event::Warning(format!("{}: {text}", output.path().display())));
    }
}
