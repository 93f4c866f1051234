//! Keys and signatures: who made a bundle, shown by a key that never was on the way.
//!
//! The vocabulary is PEM files as openssl and cosign write them, and signatures as both verify them: ECDSA on P-256 with
//! SHA-256 (in the ASN.1 form of RFC 3279) and Ed25519 (RFC 8032, the message itself and not a hash of it).
//! It must not know what is signed: no bundles, no files, no command line.
//!
//! # Threats
//! A key file may be anything: something else of the same ending, far too large, or made to cost hours and gigabytes when
//! its passphrase is tried. So files are bounded ([`MAX_KEY_FILE`]), only the parameters that cosign itself uses are worked
//! on, and what a file is instead of a key is told without repeating a byte of it. A private key is never printed, and a
//! passphrase is a [`Secret`](crate::credentials::Secret).

mod pem;
mod policy;
mod private;
mod public;
mod sealed;
mod spoken;
#[cfg(test)]
mod tests;

pub use policy::{MAX_CONFIG, Policy};
pub use private::PrivateKey;
pub use public::PublicKey;
pub use spoken::Spoken;

/// The largest key file that is read, in bytes; those of openssl and cosign have less than one thousand.
pub const MAX_KEY_FILE: u64 = 64 * 1024;

/// The bytes of a signature, from a file that holds them or their base64, as `cosign sign-blob` writes it.
pub fn signature_in(file: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let decoded = base64::engine::general_purpose::STANDARD.decode(file.trim_ascii());
    decoded.unwrap_or_else(|_| file.to_vec())
}
