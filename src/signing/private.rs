//! Private keys: reading them, and signing.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use super::public::PublicKey;
use super::{pem, sealed};
use crate::base::error::{Error, Result};
use crate::credentials::Secret;

/// The longest DER of an ECDSA P-256 signature, in bytes: two numbers of 33 bytes and what is around them.
const LONGEST_P256: usize = 72;
const ED25519: usize = 64;

/// An ECDSA P-256 or Ed25519 key that signs. Nothing prints it.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Reads a PEM file: `EC PRIVATE KEY` (SEC 1), `PRIVATE KEY` (PKCS#8), or cosign's encrypted keys, for which alone
    /// `passphrase` is asked. `name` is what errors call the file.
    ///
    /// # Errors
    /// It is no such key, with what it is instead; the passphrase is wrong, or there is none.
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

    /// PKCS#8, or SEC 1.
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

    /// The most bytes that a signature of this key has.
    pub fn longest_signature(&self) -> usize {
        if self.public.is_ed25519() { ED25519 } else { LONGEST_P256 }
    }

    /// Signs, and tries the signature: a fault of the machine must not travel, and would give the key away.
    ///
    /// # Errors
    /// No randomness was to be had, or the signature does not verify.
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
