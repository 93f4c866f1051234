//! Keys of each kind, and files that are not keys.

use super::{MAX_KEY_FILE, PrivateKey, PublicKey, signature_in};
use crate::base::error::{Error, Result};
use crate::credentials::Secret;

/// Created from the description of the format with other implementations of scrypt (Python's) and secretbox.
const SEALED: &str = include_str!("../../fixtures/keys/cosign-format.key");
const SEALED_PUBLIC: &str = include_str!("../../fixtures/keys/cosign-format.pub");

fn passphrase(text: &'static str) -> impl Fn() -> Result<Secret> {
    move || Ok(Secret::new(text))
}

fn nobody() -> Result<Secret> {
    Err(Error::input("nobody was to be asked"))
}

fn pem(label: &str, bytes: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn a_key_that_cosign_encrypted_signs_with_its_passphrase_and_with_no_other() {
    let key = PrivateKey::parse(SEALED.as_bytes(), "k", &passphrase("correct horse")).unwrap();
    let public = PublicKey::parse(SEALED_PUBLIC.as_bytes(), "k.pub").unwrap();
    assert_eq!(*key.public(), public);
    let signature = key.sign(b"what is signed").unwrap();
    assert!(public.verifies(b"what is signed", &signature) && !public.verifies(b"something else", &signature));
    assert!(signature.len() <= key.longest_signature());
    let wrong = PrivateKey::parse(SEALED.as_bytes(), "k", &passphrase("incorrect horse")).unwrap_err();
    let message = "reading the private key k: the passphrase is wrong, or the key is damaged";
    assert_eq!(wrong.to_string(), message, "and no part of the passphrase");
    assert!(!format!("{key:?}").contains("horse"));
}

#[test]
fn parameters_that_would_fill_the_memory_are_refused_before_anybody_types_a_passphrase() {
    let document = |n: u64, r: u32, p: u32, name: &str| {
        let json = format!(
            r#"{{"kdf":{{"name":"{name}","params":{{"N":{n},"r":{r},"p":{p}}},"salt":"AAAA"}},
            "cipher":{{"name":"nacl/secretbox","nonce":"{}"}},"ciphertext":"{}"}}"#,
            "A".repeat(32),
            "A".repeat(64),
        );
        let error = PrivateKey::parse(pem("ENCRYPTED COSIGN PRIVATE KEY", json.as_bytes()).as_bytes(), "k", &nobody);
        error.unwrap_err().to_string()
    };
    assert!(document(32768, 8, 1, "scrypt").contains("nobody was to be asked"));
    for (n, r, p) in [(1 << 30, 8, 1), (32767, 8, 1), (0, 8, 1), (32768, 1 << 20, 1), (32768, 8, 1 << 20), (2, 8, 1)] {
        assert!(document(n, r, p, "scrypt").contains("not cosign's"), "{n} {r} {p}");
    }
    assert!(document(u64::MAX, 8, 1, "scrypt").contains("not in cosign's form"));
    assert!(document(32768, 8, 1, "argon2").contains("not encrypted with scrypt"));
}

#[test]
fn what_is_no_key_is_reported_for_what_it_is() {
    let rsa = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let p384 = [0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    let old = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let too_large = "-----BEGIN PUBLIC KEY-----\n".to_owned() + &"A".repeat(MAX_KEY_FILE as usize);
    for (file, public, private) in [
        (String::new(), "it is empty", "it is empty"),
        ("hello".to_owned(), "not a key in PEM form", "not a key in PEM form"),
        ("0\u{3}".to_owned(), "key in DER", "key in DER"),
        ("ssh-ed25519 AAAA me".to_owned(), "OpenSSH", "OpenSSH"),
        (too_large, "more than 65536 bytes", "more than 65536 bytes"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA".to_owned(), "cut off", "cut off"),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----".to_owned(), "not base64", "not base64"),
        (old.to_owned(), "an old format of OpenSSL", "an old format of OpenSSL"),
        (pem("CERTIFICATE", b"x"), "openssl x509", "it is a certificate"),
        (pem("RSA PRIVATE KEY", b"x"), "it is a private key", "an RSA key"),
        (pem("ENCRYPTED PRIVATE KEY", b"x"), "it is a private key", "openssl pkcs8"),
        (pem("OPENSSH PRIVATE KEY", b"x"), "OpenSSH", "OpenSSH"),
        (pem("PGP PUBLIC KEY BLOCK", b"x"), "OpenPGP", "OpenPGP"),
        (pem("PUBLIC KEY", &rsa), "an RSA key", "it is a public key"),
        (pem("PUBLIC KEY", &p384), "another elliptic curve", "it is a public key"),
        (pem("PRIVATE KEY", &rsa), "it is a private key", "an RSA key"),
        (pem("EC PRIVATE KEY", &p384), "it is a private key", "another elliptic curve"),
        (SEALED.to_owned(), "cosign public-key", "nobody was to be asked"),
    ] {
        let found = PublicKey::parse(file.as_bytes(), "FILE").unwrap_err().to_string();
        assert!(found.contains(public), "as a public key: {found}");
        let found = PrivateKey::parse(file.as_bytes(), "FILE", &nobody).unwrap_err().to_string();
        assert!(found.contains(private), "as a private key: {found}");
    }
}

#[test]
fn a_signature_is_taken_as_it_is_and_in_base64() {
    assert_eq!(signature_in(b"TUVN\n"), b"MEM");
    assert_eq!(signature_in(&[0x30, 0x45, 0x02]), [0x30, 0x45, 0x02]);
}
