//! Signs an existing bundle.

use std::path::PathBuf;

use serde::Serialize;

use super::environment::Environment;
use super::outcome::{JsonReport, REPORT_VERSION};
use super::units::as_path;
use crate::base::error::Result;
use crate::bundle::{self, SignScope};
use crate::oci::Digest;
use crate::signing::{PrivateKey, PublicKey};

/// The bundle, and the key that signs it.
pub struct SignRequest {
    /// A directory or a tar.
    pub bundle: PathBuf,
    pub key: PrivateKey,
    pub scope: SignScope,
}

/// A bundle that was signed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SignReport {
    pub version: u32,
    pub ok: bool,
    /// The bundle.
    #[serde(serialize_with = "as_path")]
    pub bundle: PathBuf,
    /// Identity of the bundle.
    pub identity: Digest,
    /// The fingerprint of the key that signed the bundle.
    pub signed_by: Digest,
    /// The key itself.
    #[serde(skip)]
    pub key: PublicKey,
}

impl JsonReport for SignReport {}

/// Signs a bundle. Replaces only an existing signature by the same key.
///
/// # Errors
/// As for [`bundle::sign()`].
pub fn sign(request: SignRequest, environment: &Environment) -> Result<SignReport> {
    let SignRequest { bundle, key, scope } = request;
    let identity = bundle::sign(&bundle, &key, scope, &environment.events)?;
    let key = key.public().clone();
    Ok(SignReport { version: REPORT_VERSION, ok: true, bundle, identity, signed_by: key.fingerprint(), key })
}
