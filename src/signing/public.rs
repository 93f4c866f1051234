//! Reads public keys, and verifies signatures.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey};

use super::pem;
use crate::base::error::{Error, Result};
use crate::oci::Digest;

/// What precedes the 65 bytes of an uncompressed P-256 point in a SubjectPublicKeyInfo (RFC 5480).
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What precedes the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An ECDSA P-256 or Ed25519 public key.
#[derive(Clone)]
pub struct PublicKey {
    /// SubjectPublicKeyInfo.
    der: Vec<u8>,
    parsed: ParsedPublicKey,
}

impl PublicKey {
    /// Parses a PEM file (`PUBLIC KEY`). `name` is the name of the file in errors.
    ///
    /// # Errors
    /// It is not such a key; the error says what it is instead.
    pub fn parse(file: &[u8], name: &str) -> Result<PublicKey> {
        let block = pem::first_block(file, name)?;
        let fail = |why: &str| Error::input(format!("reading the public key {name}: {why}"));
        if block.label != "PUBLIC KEY" {
            return Err(fail(pem::instead(&block, true)));
        }
        PublicKey::from_der(block.bytes.clone()).ok_or_else(|| fail(pem::other_algorithm(&block.bytes)))
    }

    fn from_der(der: Vec<u8>) -> Option<PublicKey> {
        let parsed = if let Some(point) = der.strip_prefix(P256_PREFIX) {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).ok()?
        } else {
            ParsedPublicKey::new(&ED25519, der.strip_prefix(ED25519_PREFIX)?).ok()?
        };
        Some(PublicKey { der, parsed })
    }

    /// From an uncompressed P-256 point.
    pub(super) fn p256(point: &[u8]) -> Option<PublicKey> {
        PublicKey::from_der([P256_PREFIX, point].concat())
    }

    /// From the 32 bytes of an Ed25519 key.
    pub(super) fn ed25519(bytes: &[u8]) -> Option<PublicKey> {
        PublicKey::from_der([ED25519_PREFIX, bytes].concat())
    }

    /// SHA-256 of the key in DER (SubjectPublicKeyInfo): `openssl pkey -pubin -in FILE -outform DER | sha256sum`.
    pub fn fingerprint(&self) -> Digest {
        Digest::sha256(&self.der)
    }

    /// The algorithm, for people.
    pub fn algorithm(&self) -> &'static str {
        if self.is_ed25519() { "Ed25519" } else { "ECDSA P-256" }
    }

    pub(super) fn is_ed25519(&self) -> bool {
        self.der.starts_with(ED25519_PREFIX)
    }

    /// Whether `signature` is a signature of `message` by this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

/// Fingerprint and algorithm.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fingerprint(), self.algorithm())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &PublicKey) -> bool {
        self.der == other.der
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), self.fingerprint())
    }
}
