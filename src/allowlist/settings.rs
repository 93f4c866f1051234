//! What a skopeo file says of a registry beside its images.

use std::fmt;
use std::path::PathBuf;

/// How to reach one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    pub credentials: Option<Credentials>,
    /// `tls-verify`; nothing said leaves it to the command line.
    pub tls_verify: Option<bool>,
    /// `cert-dir`: a directory of `*.crt`, `*.cert` and `*.key`, relative to the working directory.
    pub cert_dir: Option<PathBuf>,
}

/// Who to be at a registry: a user with a password, or an identity token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    User { username: String, password: Secret },
    IdentityToken(Secret),
}

/// A text that prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The secret itself, for the request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
