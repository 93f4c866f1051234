//! What an error of this room may be found to know ([`Error::find`](crate::base::error::Error::find)): for decisions and hints, which
//! read no text.

use crate::base::error::Fact;
use crate::oci::Digest;

/// An answer with another status than those that were wanted.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{words}")]
pub struct UnexpectedStatus {
    pub status: u16,
    /// The body is a web page: of the registry, or of what stands before it.
    pub is_page: bool,
    pub symptom: Option<Symptom>,
    /// The status and what the body says, for a person.
    pub words: String,
}

impl Fact for UnexpectedStatus {}

/// What the words of a refusal point to. They are of no specification, so they decide little more than the advice to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// A disk of the registry has no room.
    DiskFull,
    Quota,
    ReadOnly,
    /// The account lacks the right to pull.
    NoPullRight,
}

/// A web page came with a status of success.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a web page came in place of the answer")]
pub struct WebPage;

impl Fact for WebPage {}

/// What is special about a blob that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobFault {
    #[error("the registry does not have blob {0}, which a manifest of its own names")]
    Lost(Digest),
    /// The registry leaves it to an address that its manifest names.
    #[error("the registry does not have the foreign layer {0}")]
    Foreign(Digest),
}

impl Fact for BlobFault {}

/// Why no answer was to be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct NoAnswer {
    pub reason: String,
    /// What TLS has against the other side, or that against us.
    pub tls: Option<TlsFault>,
    /// The other side does speak TLS, and one of us does not trust the other.
    pub spoke_tls: bool,
    /// No address is known for the host's name.
    pub is_unresolved: bool,
}

impl Fact for NoAnswer {}

/// What is wrong with a TLS server, as far as it makes a difference to what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// Its certificate names no host, or is of an old version of X.509; or the two sides have no version or cipher in common.
    Outdated,
    Expired,
    NotYetValid,
    WrongName,
    /// No authority that is trusted has signed its certificate, or something else is wrong with that.
    Untrusted,
    /// It demands a certificate of ours.
    ClientCertificateDemanded,
    Other,
}
