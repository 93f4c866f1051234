//! Digests that are written without their algorithm, as many thousands of files have them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Algorithm, Digest};

/// A text that is to be 64 lower-case hexadecimal digits: in memory 32 bytes, where it is. Any other text is kept as it was
/// written, so that it can be named.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex64(Value);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    Bytes([u8; 32]),
    Other(Box<str>),
}

impl Hex64 {
    /// The bytes, where it is what it is to be.
    pub fn bytes(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Value::Bytes(bytes) => Some(bytes),
            Value::Other(_) => None,
        }
    }

    /// The sha256 digest that it says.
    pub fn sha256(&self) -> Option<Digest> {
        self.bytes().map(|bytes| Digest::of_sha256(*bytes))
    }
}

impl From<[u8; 32]> for Hex64 {
    fn from(bytes: [u8; 32]) -> Hex64 {
        Hex64(Value::Bytes(bytes))
    }
}

impl From<&str> for Hex64 {
    fn from(text: &str) -> Hex64 {
        let digest = format!("{}:{text}", Algorithm::Sha256.name()).parse::<Digest>().ok();
        let bytes = digest.and_then(|digest| digest.raw().try_into().ok());
        Hex64(bytes.map_or_else(|| Value::Other(text.into()), Value::Bytes))
    }
}

/// The digits of a sha256 digest; of another, those of its own.
impl From<&Digest> for Hex64 {
    fn from(digest: &Digest) -> Hex64 {
        match digest.raw().try_into() {
            Ok(bytes) => Hex64(Value::Bytes(bytes)),
            Err(_) => Hex64(Value::Other(digest.hex().into())),
        }
    }
}

impl fmt::Display for Hex64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Value::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Hex64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for Hex64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex64, D::Error> {
        String::deserialize(deserializer).map(|text| text.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_as_it_was_written_and_a_sum_takes_little() {
        let sum = Digest::sha256(b"x");
        for text in [sum.hex(), sum.hex().to_uppercase(), "0".repeat(63), String::new(), "zz".repeat(32)] {
            let hex = Hex64::from(text.as_str());
            assert_eq!(hex.to_string(), text);
            assert_eq!(hex.sha256(), (text == sum.hex()).then_some(sum));
            let json = serde_json::to_string(&hex).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Hex64>(&json).unwrap(), hex);
        }
        assert_eq!(Hex64::from(&sum), sum.hex().as_str().into());
        assert!(size_of::<Option<Hex64>>() <= 40);
    }
}
