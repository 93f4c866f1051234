//! What a skopeo file says about a registry besides its images.

use std::path::PathBuf;

use crate::credentials::Credentials;

/// How to reach one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    pub credentials: Option<Credentials>,
    /// `tls-verify`. `None` leaves it to the command line.
    pub tls_verify: Option<bool>,
    /// `cert-dir`: a directory of `*.crt`, `*.cert` and `*.key`, relative to the working directory.
    pub cert_dir: Option<PathBuf>,
}
