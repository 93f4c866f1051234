//! Facts of errors from this module ([`Error::find`](crate::base::error::Error::find)), for decisions and hints, which read no
//! text.

use crate::base::error::Fact;
use crate::oci::Digest;

/// A response with an unexpected status.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{words}")]
pub struct UnexpectedStatus {
    pub status: u16,
    /// Whether the body is a web page, of the registry or a proxy.
    pub is_page: bool,
    pub symptom: Option<Symptom>,
    /// The status and the body as text for people.
    pub words: String,
}

impl Fact for UnexpectedStatus {}

/// What the words of a refusal suggest. They follow no specification, so little more than a hint depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// A disk of the registry is full.
    DiskFull,
    Quota,
    ReadOnly,
    /// The account lacks permission to pull.
    NoPullRight,
}

/// A web page came with a successful status.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a web page came in place of the answer")]
pub struct WebPage;

impl Fact for WebPage {}

/// What is special about a blob that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobFault {
    #[error("the registry does not have blob {0}, which a manifest of its own names")]
    Lost(Digest),
    /// The registry leaves it to an address in its manifest.
    #[error("the registry does not have the foreign layer {0}")]
    Foreign(Digest),
}

impl Fact for BlobFault {}

/// Why there was no response.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct NoAnswer {
    pub reason: String,
    /// The TLS problem of either side.
    pub tls: Option<TlsProblem>,
    /// Whether the server speaks TLS, and one side does not trust the other.
    pub spoke_tls: bool,
    /// Whether the host name could not be resolved.
    pub is_unresolved: bool,
}

impl Fact for NoAnswer {}

/// The problem of a TLS server, as far as the remedy depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// Its certificate names no host or has an old version of X.509; or the two sides have no version or cipher in common.
    Outdated,
    Expired,
    NotYetValid,
    WrongName,
    /// Its certificate is not signed by a trusted authority, or is otherwise invalid.
    Untrusted,
    /// It requires a client certificate.
    ClientCertificateDemanded,
    Other,
}
