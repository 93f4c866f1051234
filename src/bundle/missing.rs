//! The list of what a bundle lacks, written on one side to be fetched on the other.
//!
//! # Threats
//! The file comes from elsewhere and may contain anything at any length. It is read up to a limit, with known keys and values
//! only, and all problems in it are reported at once. It only says what is wanted: what is fetched is proven by the digests of
//! the lock, and what enters a bundle by its `bundle.json`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::format::is_tool;
use super::format::{BUNDLE_JSON, CHUNKS, DOCKER_JSON, INDEX_JSON, OCI_LAYOUT, SUMS, SUMS512};
use crate::base::document::{Document, Unbounded};
use crate::base::error::{Error, Kind, Result};
use crate::content::chunks::{CHUNK, values_of};
use crate::oci::{Blake3, Digest, optional_bare_sha256};

/// The version of the file, the only one that is read and written.
pub const MISSING_VERSION: u32 = 1;
/// Maximum size in bytes.
pub const MAX_MISSING: u64 = 64 * 1024 * 1024;
/// Maximum number of values: a hundred thousand blobs, and a terabyte in chunks.
const MOST_VALUES: usize = 2_000_000;
/// The files other than blobs, without signatures, in tar order.
pub const METADATA: [&str; 7] = [OCI_LAYOUT, BUNDLE_JSON, INDEX_JSON, DOCKER_JSON, SUMS512, SUMS, CHUNKS];
/// More complaints than anyone would read.
const MOST_COMPLAINTS: usize = 20;

/// See `docs/format.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Missing {
    pub gapferry_missing: u32,
    /// The program that wrote it, for people.
    pub tool: String,
    /// The identity of the original bundle.
    pub identity: Digest,
    /// Paths of files other than blobs, in tar order.
    pub metadata: Vec<String>,
    /// Bad or missing tools. Only a copy of the same file can replace one, and no image needs it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<MissingTool>,
    /// By digest, each once.
    pub blobs: Vec<MissingBlob>,
}

/// A missing or bad tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingTool {
    /// `tools/NAME`.
    pub path: String,
    /// Its sha256, if known.
    #[serde(default, with = "optional_bare_sha256", skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// A missing or bad blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MissingBlob {
    pub digest: Digest,
    /// Size in bytes, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The bad ranges, in order, if known; empty for the whole blob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<MissingRange>,
}

/// Consecutive chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingRange {
    /// The first byte, at the start of a chunk.
    pub first: u64,
    /// The last byte, at the end of a chunk.
    pub last: u64,
    /// The chaining value of each chunk.
    pub values: Vec<Blake3>,
}

impl Document for Missing {
    const NAME: &'static str = "the list of missing files";
    const VERSION_KEY: &'static str = "gapferryMissing";
    const VERSION: u32 = MISSING_VERSION;
    const MAX_BYTES: u64 = MAX_MISSING;
    const MAX_VALUES: usize = MOST_VALUES;
    const KIND: Kind = Kind::Input;
    type Outline = Unbounded;
}

impl Missing {
    /// Parses it. `shown` is the name of the file in errors.
    ///
    /// # Errors
    /// It is not such a file, or contains impossible values: all of them are listed (`Input`).
    pub fn parse(bytes: &[u8], shown: &str) -> Result<Missing> {
        let missing = Missing::read(bytes, shown)?;
        match missing.complaints() {
            list if list.is_empty() => Ok(missing),
            list => Err(Error::input(format!("reading {} {shown}: {}", Missing::NAME, list.join("; ")))),
        }
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.tools.is_empty() && self.blobs.is_empty()
    }

    /// Whether it lists a file that is generated from the manifests of all images.
    pub fn needs_manifests(&self) -> bool {
        self.metadata.iter().any(|path| matches!(&**path, BUNDLE_JSON | INDEX_JSON | DOCKER_JSON))
    }

    /// Bytes needed for the repair without metadata, as far as sizes are known.
    pub fn bytes(&self) -> u64 {
        self.blobs.iter().map(MissingBlob::bytes).fold(0, u64::saturating_add)
    }

    fn complaints(&self) -> Vec<String> {
        let mut list = Vec::new();
        let mut unsaid = 0_usize;
        let mut complain = |text: String| match list.len() < MOST_COMPLAINTS {
            true => list.push(text),
            false => unsaid += 1,
        };
        let mut named = BTreeSet::new();
        for path in &self.metadata {
            if !METADATA.contains(&&**path) {
                complain(format!("{:?} is not a metadata file of a bundle", shortened(path)));
            } else if !named.insert(path) {
                complain(format!("{path} is listed twice"));
            }
        }
        for MissingTool { path, .. } in &self.tools {
            if !is_tool(path) {
                complain(format!("{:?} is not a tool", shortened(path)));
            } else if !named.insert(path) {
                complain(format!("{path} is listed twice"));
            }
        }
        let mut digests = BTreeSet::new();
        for blob in &self.blobs {
            if !digests.insert(blob.digest) {
                complain(format!("{} is listed twice", blob.digest));
            }
            if let Some(text) = blob.complaint() {
                complain(format!("{}: {text}", blob.digest));
            }
        }
        if unsaid > 0 {
            list.push(format!("and {unsaid} more"));
        }
        list
    }
}

impl MissingBlob {
    fn bytes(&self) -> u64 {
        match self.ranges.is_empty() {
            true => self.size.unwrap_or_default(),
            false => self
                .ranges
                .iter()
                .map(|r| r.last.saturating_sub(r.first).saturating_add(1))
                .fold(0, u64::saturating_add),
        }
    }

    fn complaint(&self) -> Option<String> {
        let size = match self.size {
            _ if self.ranges.is_empty() => return None,
            None => return Some("it has ranges and no size".to_owned()),
            Some(size) if values_of(size) == 0 => return Some("it is a single chunk and has ranges".to_owned()),
            Some(size) => size,
        };
        let mut from = 0;
        for MissingRange { first, last, values } in &self.ranges {
            let fits = *first >= from && first <= last && *last < size;
            if !fits || !first.is_multiple_of(CHUNK) || !((last + 1).is_multiple_of(CHUNK) || last + 1 == size) {
                return Some(format!(
                    "bytes {first}-{last} are not whole chunks of {size} bytes that start at byte \
                                     {from}"
                ));
            }
            let chunks = (last - first + 1).div_ceil(CHUNK);
            if chunks != values.len() as u64 {
                return Some(format!("bytes {first}-{last} need {chunks} values and have {}", values.len()));
            }
            from = last + 1;
        }
        None
    }
}

fn shortened(path: &str) -> String {
    path.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(blobs: Vec<MissingBlob>) -> Missing {
        Missing {
            gapferry_missing: MISSING_VERSION,
            tool: "t".to_owned(),
            identity: Digest::sha256(b"bundle.json"),
            metadata: vec![INDEX_JSON.to_owned()],
            tools: Vec::new(),
            blobs,
        }
    }

    fn blob(size: u64, ranges: &[(u64, u64)]) -> MissingBlob {
        let range = |(first, last): &(u64, u64)| {
            let chunks = usize::try_from((last - first + 1).div_ceil(CHUNK)).unwrap();
            MissingRange { first: *first, last: *last, values: vec![[10; 32].into(); chunks] }
        };
        let ranges = ranges.iter().map(range).collect();
        MissingBlob { digest: Digest::sha256(b"blob"), size: Some(size), ranges }
    }

    fn message(missing: &Missing) -> String {
        Missing::parse(missing.to_json().as_bytes(), "m.json").map(|_| String::new()).unwrap_or_else(|e| e.chain())
    }

    #[test]
    fn a_list_survives_its_file() {
        let whole = MissingBlob { digest: Digest::sha256(b"other"), size: None, ranges: vec![] };
        let part = blob(5 * CHUNK + 1, &[(0, CHUNK - 1), (3 * CHUNK, 5 * CHUNK)]);
        let mut written = missing(vec![whole, part]);
        written.tools = vec![MissingTool { path: "tools/gapferry".to_owned(), sha256: Some(Digest::sha256(b"x")) }];
        assert_eq!(Missing::parse(written.to_json().as_bytes(), "m.json").unwrap(), written);
        assert_eq!(written.bytes(), 3 * CHUNK + 1);
    }

    #[test]
    fn everything_impossible_is_reported_at_once() {
        let mut wrong = missing(vec![blob(5 * CHUNK, &[(1, CHUNK - 1)]), blob(5, &[(0, 4)])]);
        wrong.metadata = ["../passwd", SUMS, SUMS].map(str::to_owned).to_vec();
        let tool = |path: &str| MissingTool { path: path.to_owned(), sha256: None };
        wrong.tools = vec![tool("tools/../passwd"), tool("tools/x")];
        let text = message(&wrong);
        for words in [
            "\"../passwd\" is not a metadata file",
            "SHA256SUMS is listed twice",
            "\"tools/../passwd\" is not a tool",
            "not whole chunks",
            "is a single chunk",
            "listed twice",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        for ranges in [
            &[(0, CHUNK)][..],
            &[(0, 9 * CHUNK - 1)],
            &[(CHUNK, 2 * CHUNK - 1), (0, CHUNK - 1)],
            &[(0, CHUNK - 1), (0, CHUNK - 1)],
        ] {
            assert!(message(&missing(vec![blob(5 * CHUNK, ranges)])).contains("not whole chunks"), "{ranges:?}");
        }
        let mut short = missing(vec![blob(5 * CHUNK, &[(0, 2 * CHUNK - 1)])]);
        short.blobs[0].ranges[0].values.pop();
        assert!(message(&short).contains("need 2 values"));
        short.blobs[0].size = None;
        assert!(message(&short).contains("no size"));
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        let mut good = missing(vec![blob(5 * CHUNK, &[(0, CHUNK - 1)])]);
        good.tools = vec![MissingTool { path: "tools/x".to_owned(), sha256: Some(Digest::sha256(b"x")) }];
        let text = good.to_json();
        for digits in [Digest::sha256(b"x").hex(), "0a".repeat(32)] {
            let forged = text.replace(&digits, &digits[1..]);
            let message = Missing::parse(forged.as_bytes(), "m.json").unwrap_err().chain();
            assert!(message.contains("expected 64 lower-case hexadecimal digits at line "), "{message}");
        }
    }

    #[test]
    fn another_version_unknown_keys_and_endless_lists_are_refused() {
        let text = missing(vec![]).to_json();
        let message = |text: String| Missing::parse(text.as_bytes(), "m.json").unwrap_err().chain();
        assert!(message(text.replace("\"gapferryMissing\": 1", "\"gapferryMissing\": 2")).contains("version 2"));
        assert!(message(text.replace("\"tool\"", "\"more\": 1, \"tool\"")).contains("unknown field"));
        assert!(message("[".repeat(3_000_000)).contains("has at most 67108864 bytes and 2000000 values"));
        let many = missing(vec![blob(5, &[(0, 4)]); 100]);
        assert!(many.complaints().last().unwrap().contains("more"));
    }
}
