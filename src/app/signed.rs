//! Signatures of bundles that were written.

use std::path::Path;

use super::output::Output;
use crate::base::error::Result;
use crate::base::progress::{Event, Events};
use crate::bundle::chunks::MAX_CHUNKS;
use crate::bundle::{self, Bundle, CHUNKS, Finished, SignScope, check_signature};
use crate::files::Layout;
use crate::signing::{PrivateKey, PublicKey};

/// Returns the key that signed a written bundle. If the bundle already existed and lacks the signature of its sums or of
/// `chunks.b3`, it is signed now.
///
/// # Errors
/// The signature cannot be written.
pub fn add_signature(finished: &Finished, key: Option<&PrivateKey>, events: &Events) -> Result<Option<PublicKey>> {
    let Some(key) = key else { return Ok(None) };
    if finished.unchanged && !is_signed(&finished.path, key.public()) {
        bundle::sign(&finished.path, key, SignScope::Full, events)?;
    }
    Ok(Some(key.public().clone()))
}

/// Whether the key has signed both the sums of the bundle and `chunks.b3`, as when it writes a bundle.
pub fn is_signed(bundle: &Path, key: &PublicKey) -> bool {
    let signed = || -> Result<bool> {
        let layout = Layout::open(bundle)?;
        let proven = check_signature(&layout, std::slice::from_ref(key))?;
        // A larger `chunks.b3` is never used.
        if layout.size_of(CHUNKS).is_some_and(|size| size > MAX_CHUNKS) {
            return Ok(true);
        }
        let chunks = layout.read(CHUNKS, MAX_CHUNKS)?;
        chunks.map_or(Ok(false), |chunks| proven.has_signed(&layout, &chunks))
    };
    signed().unwrap_or_default()
}

/// Warns if a signed bundle was replaced by an unsigned one.
pub fn warn_if_unsigned(former_was_signed: bool, output: &Output, events: &Events) {
    let is_signed = || output.former().is_ok_and(|bundle| bundle.as_ref().is_some_and(Bundle::has_signature));
    if former_was_signed && !is_signed() {
        let text = "the replaced bundle was signed, and this one is not: sign it with --sign-key or `gapferry sign`";
        events.report(Event::Warning(format!("{}: {text}", output.path().display())));
    }
}
