//! Private keys encrypted by cosign: JSON with a key derived from a passphrase (scrypt, RFC 7914) and a box (NaCl's secretbox:
//! XSalsa20-Poly1305) around PKCS#8. The format is that of go-securesystemslib's `encrypted` package, which cosign has used
//! since its first version; `skopeo generate-sigstore-key` writes the same.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::{AeadInPlace, KeyInit};
use crypto_secretbox::{Key, Nonce, Tag, XSalsa20Poly1305};
use serde::Deserialize;

use crate::credentials::Secret;

/// The costs (log2 of N) that go-securesystemslib has ever written: 2^15 at first, 2^16 since 0.7, 2^17 on request. More would
/// only fill the memory: 2^17 takes 128 MiB.
const COSTS: std::ops::RangeInclusive<u32> = 15..=17;
const BLOCK: u32 = 8;
const LANES: u32 = 1;
/// Maximum size in bytes; supported PKCS#8 keys have less than a tenth of it.
const MOST: usize = 16 * 1024;

#[derive(Deserialize)]
struct Document {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// An encrypted key.
pub struct Sealed {
    params: scrypt::Params,
    salt: Vec<u8>,
    nonce: [u8; 24],
    tag: [u8; 16],
    ciphertext: Vec<u8>,
}

impl Sealed {
    /// Parses the content of the PEM block. Errors say what is wrong and repeat none of it.
    pub fn parse(json: &[u8]) -> Result<Sealed, &'static str> {
        let document: Document =
            serde_json::from_slice(json).map_err(|_| "its encrypted part is not in cosign's form (JSON)")?;
        let Document { kdf, cipher, ciphertext } = document;
        if kdf.name != "scrypt" || cipher.name != "nacl/secretbox" {
            return Err("it is not encrypted with scrypt and nacl/secretbox, as cosign does");
        }
        let Params { n, r, p } = kdf.params;
        let cost = n.checked_ilog2().filter(|log| n.is_power_of_two() && COSTS.contains(log));
        let Some(cost) = cost.filter(|_| r == BLOCK && p == LANES) else {
            return Err("its scrypt parameters are not cosign's (N 32768, 65536 or 131072, r 8, p 1)");
        };
        let params = u8::try_from(cost).ok().and_then(|cost| scrypt::Params::new(cost, r, p, 32).ok());
        let bytes = |text: &str| STANDARD.decode(text).ok().filter(|bytes| bytes.len() <= MOST);
        let read = || {
            let (salt, sealed) = (bytes(&kdf.salt)?, bytes(&ciphertext)?);
            let nonce = bytes(&cipher.nonce)?.try_into().ok()?;
            // NaCl puts the tag before the text.
            let (tag, text) = sealed.split_first_chunk::<16>()?;
            Some(Sealed { params: params?, salt, nonce, tag: *tag, ciphertext: text.to_vec() })
        };
        read().ok_or("its salt, nonce or ciphertext is damaged")
    }

    /// Decrypts the key in PKCS#8.
    pub fn open(&self, passphrase: &Secret) -> Result<Vec<u8>, &'static str> {
        let mut key = Key::default();
        scrypt::scrypt(passphrase.expose().as_bytes(), &self.salt, &self.params, &mut key)
            .map_err(|_| "its scrypt parameters are not cosign's")?;
        let mut text = self.ciphertext.clone();
        let opened = XSalsa20Poly1305::new(&key).decrypt_in_place_detached(
            Nonce::from_slice(&self.nonce),
            &[],
            &mut text,
            Tag::from_slice(&self.tag),
        );
        opened.map(|()| text).map_err(|_| "the passphrase is wrong, or the key is damaged")
    }
}
