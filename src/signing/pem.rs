//! Reads PEM (RFC 7468) as far as key files need it, and recognizes files that are not keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::MAX_KEY_FILE;
use crate::base::error::{Error, Result};

/// The object identifier of RSA keys (RFC 8017) in DER.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// That of keys on any elliptic curve (RFC 5480).
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// That of P-256.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A `-----BEGIN …-----` block and its content.
pub struct Block {
    pub label: String,
    pub bytes: Vec<u8>,
}

/// The first block of a file that is a key or otherwise of interest.
///
/// # Errors
/// No such block exists, or it is encrypted in OpenSSL's legacy format. `name` is the name of the file in errors.
pub fn first_block(file: &[u8], name: &str) -> Result<Block> {
    let fail = |why: &str| Err(Error::input(format!("reading the key {name}: {why}")));
    if file.len() as u64 > MAX_KEY_FILE {
        return fail(&format!("it has more than {MAX_KEY_FILE} bytes, so it cannot be a key"));
    }
    let Some(text) = std::str::from_utf8(file).ok().filter(|text| text.contains("-----BEGIN ")) else {
        return fail(not_pem(file));
    };
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let Some((label, after)) = after.split_once("-----") else { break };
        let Some((body, after)) = after.split_once(&format!("-----END {label}-----")) else {
            return fail("it is cut off: a `-----BEGIN` line has no matching `-----END` line");
        };
        rest = after;
        // `openssl ecparam -genkey` writes the name of the curve before the key.
        if label == "EC PARAMETERS" {
            continue;
        }
        if body.contains("Proc-Type:") {
            return fail("it is encrypted in an old format of OpenSSL; `openssl pkey -in FILE -out PLAIN` decrypts it");
        }
        let packed: String = body.split_ascii_whitespace().collect();
        let Ok(bytes) = STANDARD.decode(packed) else { return fail("the text between its lines is not base64") };
        return Ok(Block { label: label.to_owned(), bytes });
    }
    fail("it contains no key")
}

fn not_pem(file: &[u8]) -> &'static str {
    if file.trim_ascii().is_empty() {
        "it is empty"
    } else if file.starts_with(&[0x30]) {
        "it is not PEM; if it is a key in DER, `openssl pkey -inform DER` (with -pubin if public) converts it to PEM"
    } else if file.starts_with(b"ssh-") || file.starts_with(b"ecdsa-sha2-") {
        "it is an OpenSSH key; use a key from openssl or cosign"
    } else if file.starts_with(b"untrusted comment:") {
        "it is a minisign or signify key; use a key from openssl or cosign"
    } else {
        "it is not a key in PEM form (`-----BEGIN …-----`)"
    }
}

/// What a block is instead of the expected key; `public` says that a public key was expected.
pub fn instead(block: &Block, public: bool) -> &'static str {
    match block.label.as_str() {
        "CERTIFICATE" | "TRUSTED CERTIFICATE" if public => {
            "it is a certificate, not a key; `openssl x509 -in FILE -noout -pubkey` gives the public key in it"
        }
        "CERTIFICATE" | "TRUSTED CERTIFICATE" => "it is a certificate, not a private key",
        "PUBLIC KEY" => "it is a public key; signing needs the private key",
        label if public && label.ends_with("PRIVATE KEY") && !label.starts_with("OPENSSH") => {
            "it is a private key, which only the signer needs; give its public key (`openssl pkey -in FILE -pubout`, \
             `cosign public-key --key FILE`)"
        }
        "RSA PRIVATE KEY" | "RSA PUBLIC KEY" => "it is an RSA key; ECDSA P-256 or Ed25519 is needed",
        "ENCRYPTED PRIVATE KEY" => {
            "it is encrypted PKCS#8; `openssl pkcs8 -in FILE -out PLAIN` decrypts it; a key from cosign may stay \
             encrypted"
        }
        "OPENSSH PRIVATE KEY" => "it is an OpenSSH key; use a key from openssl or cosign",
        label if label.starts_with("PGP ") => "it is an OpenPGP key; use a key from openssl or cosign",
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => "it is a certificate request, not a key",
        _ => "it is PEM of another kind and not a key from openssl or cosign",
    }
}

/// The kind of an unsupported key in DER.
pub fn other_algorithm(der: &[u8]) -> &'static str {
    let names = |oid: &[u8]| der.windows(oid.len()).any(|window| window == oid);
    if names(RSA) {
        "it is an RSA key; ECDSA P-256 or Ed25519 is needed"
    } else if names(P256) {
        "it is a P-256 key in an unsupported form (a compressed point?) or damaged; `openssl ec -conv_form \
         uncompressed` writes the common form"
    } else if names(EC) {
        "it is on another elliptic curve than P-256; use ECDSA P-256 or Ed25519"
    } else {
        "it is neither ECDSA P-256 nor Ed25519, or it is damaged"
    }
}
