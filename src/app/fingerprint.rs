//! Shows the identity of a bundle as words.

use std::path::PathBuf;

use serde::Serialize;

use super::outcome::{JsonReport, REPORT_VERSION};
use super::units::as_path;
use crate::base::error::Result;
use crate::bundle::Bundle;
use crate::oci::Digest;
use crate::signing::FingerprintWords;

/// The bundle.
pub struct FingerprintRequest {
    /// A directory, a tar, or any volume of a set.
    pub bundle: PathBuf,
}

/// The identity of a bundle.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FingerprintReport {
    pub version: u32,
    pub ok: bool,
    /// The bundle, as named in the request.
    #[serde(serialize_with = "as_path")]
    pub bundle: PathBuf,
    pub identity: Digest,
    /// The words and digits as one text.
    pub fingerprint: String,
    /// Eight words.
    pub words: [&'static str; 8],
    /// Six digits.
    pub digits: String,
}

impl JsonReport for FingerprintReport {}

/// Reads the identity of a bundle. Whether its files match `bundle.json` is checked by [`verify`](super::verify()).
///
/// # Errors
/// `bundle` is not a bundle, or cannot be read.
pub fn fingerprint(request: FingerprintRequest) -> Result<FingerprintReport> {
    let FingerprintRequest { bundle } = request;
    let identity = Bundle::open_any(std::slice::from_ref(&bundle))?.identity();
    let in_words = FingerprintWords::of(&identity);
    let (fingerprint, FingerprintWords { words, digits }) = (in_words.to_string(), in_words);
    Ok(FingerprintReport { version: REPORT_VERSION, ok: true, bundle, identity, fingerprint, words, digits })
}
