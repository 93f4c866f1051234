//! Digests without their algorithm, as lists of thousands of files have them: 64 lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::digest::{DigestError, bytes_of_hex, hex_of_bytes};

/// A BLAKE3 value: the digest of some bytes, or the chaining value of a part of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blake3([u8; 32]);

impl Blake3 {
    /// Stands for a value that is not yet known.
    pub const ZEROS: Blake3 = Blake3([0; 32]);

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Blake3 {
    fn from(bytes: [u8; 32]) -> Blake3 {
        Blake3(bytes)
    }
}

impl FromStr for Blake3 {
    type Err = DigestError;

    /// Accepts exactly the output of [`Display`](fmt::Display).
    fn from_str(text: &str) -> Result<Blake3, DigestError> {
        bytes_of_hex(text).map(Blake3)
    }
}

/// In the form that `b3sum` prints.
impl fmt::Display for Blake3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex_of_bytes(&self.0))
    }
}

impl fmt::Debug for Blake3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Blake3 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Blake3 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blake3, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// For a field with a sha256 digest that is written without the algorithm.
pub mod bare_sha256 {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::oci::{Algorithm, Digest};

    /// Serializes the digest.
    ///
    /// # Errors
    /// It is not a sha256 digest.
    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        match digest.algorithm() {
            Algorithm::Sha256 => serializer.serialize_str(&digest.hex()),
            Algorithm::Sha512 => Err(serde::ser::Error::custom(format!("{digest} is not a sha256 digest"))),
        }
    }

    /// Parses the digest.
    ///
    /// # Errors
    /// It is not 64 lower-case hexadecimal digits.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let hex = String::deserialize(deserializer)?;
        super::bytes_of_hex(&hex).map(Digest::of_sha256).map_err(serde::de::Error::custom)
    }
}

/// The same for an optional field.
pub mod optional_bare_sha256 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::bare_sha256;
    use crate::oci::Digest;

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Bare(#[serde(with = "bare_sha256")] Digest);

    /// Serializes the digest.
    ///
    /// # Errors
    /// As for [`bare_sha256::serialize`].
    pub fn serialize<S: Serializer>(digest: &Option<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
        digest.map(Bare).serialize(serializer)
    }

    /// Parses the digest.
    ///
    /// # Errors
    /// As for [`bare_sha256::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
        Ok(Option::<Bare>::deserialize(deserializer)?.map(|Bare(digest)| digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Algorithm, Digest};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "bare_sha256")]
        one: Digest,
        #[serde(default, with = "optional_bare_sha256", skip_serializing_if = "Option::is_none")]
        other: Option<Digest>,
        blake3: Blake3,
    }

    #[test]
    fn what_is_written_is_read_again_and_any_other_text_is_refused() {
        let digest = Digest::sha256(b"x");
        for other in [None, Some(digest)] {
            let both = Both { one: digest, other, blake3: [10; 32].into() };
            let json = serde_json::to_string(&both).unwrap();
            assert!(json.starts_with(&format!("{{\"one\":\"{}\"", digest.hex())), "{json}");
            assert!(json.ends_with(&format!("\"blake3\":\"{}\"}}", "0a".repeat(32))), "{json}");
            assert_eq!(serde_json::from_str::<Both>(&json).unwrap(), both);
        }
        for text in [digest.hex().to_uppercase(), "0".repeat(63), "0".repeat(128), digest.to_string(), String::new()] {
            let json = |one: &str, blake3: &str| format!("{{\"one\":{one:?},\"blake3\":{blake3:?}}}");
            assert!(serde_json::from_str::<Both>(&json(&text, &digest.hex())).is_err(), "{text}");
            assert!(serde_json::from_str::<Both>(&json(&digest.hex(), &text)).is_err(), "{text}");
            assert!(text.parse::<Blake3>().is_err(), "{text}");
        }
        let long = Both { one: Digest::of(Algorithm::Sha512, b"x"), other: None, blake3: Blake3::ZEROS };
        assert!(serde_json::to_string(&long).is_err());
    }

    #[test]
    fn a_value_takes_its_bytes_and_no_more() {
        assert!(size_of::<Blake3>() == 32 && size_of::<Option<Blake3>>() <= 33);
    }
}
