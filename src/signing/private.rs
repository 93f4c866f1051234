//! Reads private keys, and signs with them.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use super::public::PublicKey;
use super::{pem, sealed};
use crate::base::error::{Error, Result};
use crate::credentials::Secret;

/// Maximum length of an ECDSA P-256 signature in DER in bytes: two numbers of 33 bytes and their framing.
const LONGEST_P256: usize = 72;
const ED25519: usize = 64;

/// An ECDSA P-256 or Ed25519 private key. It is never printed.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Parses a PEM file: `EC PRIVATE KEY` (SEC 1), `PRIVATE KEY` (PKCS#8), or an encrypted key of cosign, for which
    /// `passphrase` is called. `name` is the name of the file in errors.
    ///
    /// # Errors
    /// It is not such a key (the error says what it is instead), or the passphrase is wrong or missing.
    pub fn parse(file: &[u8], name: &str, passphrase: &dyn Fn() -> Result<Secret>) -> Result<PrivateKey> {
        let block = pem::first_block(file, name)?;
        let fail = |why: &str| Error::input(format!("reading the private key {name}: {why}"));
        let der = match block.label.as_str() {
            "PRIVATE KEY" | "EC PRIVATE KEY" => block.bytes,
            "ENCRYPTED COSIGN PRIVATE KEY" | "ENCRYPTED SIGSTORE PRIVATE KEY" => {
                let sealed = sealed::Sealed::parse(&block.bytes).map_err(fail)?;
                sealed.open(&passphrase()?).map_err(fail)?
            }
            _ => return Err(fail(pem::instead(&block, false))),
        };
        PrivateKey::from_der(&der).ok_or_else(|| fail(pem::other_algorithm(&der)))
    }

    /// Parses PKCS#8 or SEC 1.
    fn from_der(der: &[u8]) -> Option<PrivateKey> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            let public = PublicKey::ed25519(pair.public_key().as_ref())?;
            return Some(PrivateKey { pair: Pair::Ed25519(pair), public });
        }
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der).ok()?;
        let public = PublicKey::p256(pair.public_key().as_ref())?;
        Some(PrivateKey { pair: Pair::P256(pair), public })
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Maximum length of a signature by this key in bytes.
    pub fn longest_signature(&self) -> usize {
        if self.public.is_ed25519() { ED25519 } else { LONGEST_P256 }
    }

    /// Signs, and verifies the signature: a faulty signature must not be used, and could reveal the key.
    ///
    /// # Errors
    /// No random numbers are available, or the signature does not verify.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signed = match &self.pair {
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message),
            Pair::Ed25519(pair) => pair.try_sign(message),
        };
        let signature = signed.map_err(|e| Error::input("signing").because(e))?.as_ref().to_vec();
        match self.public.verifies(message, &signature) {
            true => Ok(signature),
            false => Err(Error::damaged("signing: the new signature does not verify")),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** of {:?}", self.public)
    }
}
