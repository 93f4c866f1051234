//! Keys and signatures, which show who made a bundle.
//!
//! It supports PEM files from openssl and cosign, and signatures that both verify: ECDSA on P-256 with SHA-256 (in the ASN.1
//! form of RFC 3279) and Ed25519 (RFC 8032, over the message itself and not a hash of it). It must not depend on what is
//! signed: no bundles, no files, no command line.
//!
//! # Threats
//! A key file may be anything: something else with the same extension, far too large, or built to cost hours and gigabytes
//! when its passphrase is tried. Files are therefore bounded ([`MAX_KEY_FILE`]), only the parameters that cosign itself uses
//! are accepted, and errors say what a file is instead of a key without repeating any of it. A private key is never printed,
//! and a passphrase is a [`Secret`](crate::credentials::Secret).

mod pem;
mod private;
mod public;
mod sealed;
#[cfg(test)]
mod tests;
mod wordlist;

pub use private::PrivateKey;
pub use public::PublicKey;
pub use wordlist::FingerprintWords;

/// Maximum size of a key file in bytes; those of openssl and cosign have less than a thousand.
pub const MAX_KEY_FILE: u64 = 64 * 1024;

/// The bytes of a signature from a file that contains them directly or in base64, as `cosign sign-blob` writes it.
pub fn signature_in(file: &[u8]) -> Vec<u8> {
    use base64::Engine;
    if is_well_formed(file) {
        return file.to_vec();
    }
    let text: Vec<u8> = file.iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(text);
    decoded.unwrap_or_else(|_| file.to_vec())
}

/// Whether the bytes can be a signature of either kind: 64 bytes, or the DER of two positive numbers.
pub fn is_well_formed(signature: &[u8]) -> bool {
    signature.len() == ED25519 || is_ecdsa(signature)
}

/// Length of an Ed25519 signature in bytes.
const ED25519: usize = 64;
/// Maximum length of a number in a P-256 signature in bytes.
const LONGEST_NUMBER: usize = 33;

fn is_ecdsa(signature: &[u8]) -> bool {
    let numbers = || {
        let rest = element(0x30, signature).filter(|(_, rest)| rest.is_empty())?.0;
        let (first, rest) = element(0x02, rest)?;
        let (second, rest) = element(0x02, rest)?;
        rest.is_empty().then_some([first, second])
    };
    let is_positive =
        |number: &&[u8]| number.first().is_some_and(|byte| *byte < 0x80) && number.len() <= LONGEST_NUMBER;
    numbers().is_some_and(|numbers| numbers.iter().all(is_positive))
}

/// The content of a DER element of less than 128 bytes, and what follows it.
fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = bytes else { return None };
    (*found == tag && *length < 0x80).then(|| rest.split_at_checked(usize::from(*length)))?
}
