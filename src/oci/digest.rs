//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>`. SHA-2 is computed only here.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest as lc;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::long::{Long, TOO_MANY};

/// The digest algorithms that the OCI image specification registers (image-spec, `descriptor.md`, "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// The name before the colon of a digest, and of the directory below `blobs/`.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// A validated content digest. It is cheap to copy and prints as `algorithm:hex`.
///
/// It takes 33 bytes, because a run may hold a million of them several times. The rare sha512 digests are indexes into a
/// table.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(Value);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    Sha256([u8; 32]),
    Sha512(Long),
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {text:?}: {reason}")]
pub struct DigestError {
    /// The offending text, shortened to 200 characters.
    pub text: String,
    reason: &'static str,
}

impl DigestError {
    fn new(text: &str, reason: &'static str) -> DigestError {
        DigestError { text: text.chars().take(200).collect(), reason }
    }

    /// Whether it is a valid digest, but there are too many of them.
    pub fn is_too_many(&self) -> bool {
        self.reason == TOO_MANY
    }
}

impl Digest {
    /// Stands for content without a digest in progress reports.
    pub const ZEROS: Digest = Digest(Value::Sha256([0; 32]));

    /// The sha256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` under `algorithm`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether `bytes` have this digest.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        self.prove(bytes).is_ok()
    }

    /// Proves bytes in memory. A [`Slice`](crate::content::Slice) is proven by [`crate::content::proof`].
    ///
    /// # Errors
    /// They have another digest, which is returned.
    pub fn prove(&self, bytes: &[u8]) -> Result<(), Digest> {
        match Digest::of(self.algorithm(), bytes) {
            found if found == *self => Ok(()),
            found => Err(found),
        }
    }

    /// The sha256 digest with these bytes.
    pub(super) fn of_sha256(bytes: [u8; 32]) -> Digest {
        Digest(Value::Sha256(bytes))
    }

    /// Parses a digest without allocating. Parsing a sha512 digest for the first time takes memory until the program ends, so
    /// digests requested by strangers are looked up first. Returns `None` for a valid sha512 digest that no content, manifest
    /// or reference of this process has.
    ///
    /// # Errors
    /// As for [`str::parse`].
    pub fn known(text: &str) -> Result<Option<Digest>, DigestError> {
        Digest::read(text, Long::find)
    }

    /// `long` gives a sha512 digest its place in the table, if it has one.
    fn read(text: &str, long: impl FnOnce(&[u8; 64]) -> Option<Long>) -> Result<Option<Digest>, DigestError> {
        let fail = |reason| DigestError::new(text, reason);
        let malformed = || fail("expected 64 (sha256) or 128 (sha512) lower-case hexadecimal digits");
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| fail("expected algorithm:hex"))?;
        let value = match algorithm {
            "sha256" => Some(Value::Sha256(decode(hex).ok_or_else(malformed)?)),
            "sha512" => long(&decode(hex).ok_or_else(malformed)?).map(Value::Sha512),
            _ => return Err(fail("only sha256 and sha512 are supported")),
        };
        Ok(value.map(Digest))
    }

    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The lower-case hexadecimal part, without the algorithm.
    pub fn hex(&self) -> String {
        hex_of_bytes(self.raw())
    }

    /// `sha256:` and the first twelve hex digits: enough to tell digests apart on a screen.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(self.algorithm().name().len() + 13);
        text
    }

    /// The path of the content in an OCI image layout (image-spec `image-layout.md`): `blobs/<algorithm>/<hex>`.
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm().name(), self.hex())
    }

    /// The digest for a path such as [`Digest::blob_path`] returns.
    pub fn of_blob_path(path: &str) -> Option<Digest> {
        let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
        format!("{algorithm}:{hex}").parse().ok()
    }

    /// Its bytes: 32 or 64.
    pub fn raw(&self) -> &[u8] {
        match &self.0 {
            Value::Sha256(raw) => raw,
            Value::Sha512(long) => long.bytes(),
        }
    }
}

/// By algorithm, then by the bytes.
impl Ord for Digest {
    fn cmp(&self, other: &Digest) -> Ordering {
        self.algorithm().cmp(&other.algorithm()).then_with(|| self.raw().cmp(other.raw()))
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Digest) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Accepts exactly `sha256:` or `sha512:` and lower-case hex of the right length. Upper case is rejected, as the
    /// specification requires, so that content has only one name.
    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let too_many = || DigestError { text: text.to_owned(), reason: TOO_MANY };
        Digest::read(text, Long::named)?.ok_or_else(too_many)
    }
}

/// Lower-case hexadecimal, two digits per byte.
pub(super) fn hex_of_bytes(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(DIGITS[usize::from(byte >> 4)] as char);
        hex.push(DIGITS[usize::from(byte & 15)] as char);
    }
    hex
}

/// Parses 32 bytes in hexadecimal.
///
/// # Errors
/// It is not the output of [`hex_of_bytes`] for 32 bytes.
pub(super) fn bytes_of_hex(hex: &str) -> Result<[u8; 32], DigestError> {
    decode(hex).ok_or_else(|| DigestError::new(hex, "expected 64 lower-case hexadecimal digits"))
}

fn decode<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let hex = hex.as_bytes();
    if hex.len() != N * 2 {
        return None;
    }
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut raw = [0; N];
    for (byte, pair) in raw.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(raw)
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest piece by piece.
///
/// aws-lc selects its implementation by CPU at start (SHA extensions, AVX2, NEON).
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: lc::Context,
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Hasher {
        let implementation = match algorithm {
            Algorithm::Sha256 => &lc::SHA256,
            Algorithm::Sha512 => &lc::SHA512,
        };
        Hasher { algorithm, context: lc::Context::new(implementation) }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub fn finish(self) -> Digest {
        let sum = self.context.finish();
        match self.algorithm {
            Algorithm::Sha256 => Digest(Value::Sha256(fixed(sum.as_ref()))),
            Algorithm::Sha512 => Digest(Value::Sha512(Long::computed(&fixed(sum.as_ref())))),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm.name())
    }
}

/// The output has the length of the algorithm by contract.
fn fixed<const N: usize>(sum: &[u8]) -> [u8; N] {
    let mut raw = [0; N];
    raw.copy_from_slice(sum);
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_has_one_digest() {
        let digest = Digest::sha256(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(digest.short(), "sha256:e3b0c44298fc");
        assert!(text.to_uppercase().parse::<Digest>().is_err());
        assert!(text.replace("sha256:e", "sha256:E").parse::<Digest>().is_err());
    }

    #[test]
    fn bytes_have_their_own_digest_of_either_algorithm_and_no_other() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"a");
            assert!(digest.is_of(b"a") && !digest.is_of(b"b"));
            assert_eq!(digest.prove(b"b"), Err(Digest::of(algorithm, b"b")));
        }
    }

    #[test]
    fn a_digest_that_could_leave_the_blobs_directory_is_refused() {
        for text in ["", "sha256", "sha256:", "md5:00", "sha256:../../etc/passwd", "sha256:e3b0", "../:00", "sha256:é"]
        {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_can_hold_many_digests() {
        assert!(size_of::<Digest>() <= 33 && size_of::<Option<Digest>>() <= 34);
    }

    #[test]
    fn digests_are_ordered_by_algorithm_and_bytes() {
        let long = |content: &[u8]| Digest::of(Algorithm::Sha512, content);
        let mut digests = [long(b"b"), Digest::sha256(b"b"), long(b"a"), Digest::sha256(b"a")];
        digests.sort();
        let mut names: Vec<String> = digests.iter().map(Digest::to_string).collect();
        assert!(names.is_sorted());
        names.dedup();
        assert_eq!(names.len(), 4);
    }

    #[test]
    fn sha512_round_trips() {
        let digest = Digest::of(Algorithm::Sha512, b"gapferry");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.hex().len(), 128);
    }
}
