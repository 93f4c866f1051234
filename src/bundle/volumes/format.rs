//! The descriptions in the volumes of a set: `volumes/003.json` and `volumes/r01.json`. See `docs/format.md`.
//!
//! # Threats
//! Both may be forged. Their size, number of values and number of volumes are bounded; they can name only files that a bundle
//! can have, and every number is checked against the others. What they state about bytes is left to the reader to prove.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::{SegmentNumber, stored_path};
use super::parity::{UNIT, supports};
use crate::base::canonical;
use crate::base::document::{Document, Outline};
use crate::base::error::{Error, Kind, Result};
use crate::bundle::is_tool;
use crate::oci::{Amount, Blake3, Count, Digest, Totals, bare_sha256, fits_in_memory, optional_bare_sha256};

/// The version of both files, the only one that is read and written.
pub const VOLUME_VERSION: u32 = 1;
/// Maximum number of volumes in a set, and of recovery volumes.
pub const MOST_VOLUMES: u32 = 9_999;
/// Maximum size of either file in bytes: far more than the largest number of files takes.
pub const MAX_VOLUME_JSON: u64 = 128 * 1024 * 1024;
/// Maximum size of `volumes/r01.json`: enough for [`MOST_VOLUMES`].
const MAX_RECOVERY_JSON: u64 = 4 * 1024 * 1024;
/// Maximum size of `volumes/r01.b3`, which is kept in memory: enough for volumes of 8 TiB in total.
pub const MAX_RECOVERY_CHUNKS: u64 = 256 * 1024 * 1024;
/// Bytes that a file, or a segment of one, takes while a volume is verified: its description and the results.
const MEMORY_OF_FILE: u64 = 768;
const MEMORY_OF_SEGMENT: u64 = 2_400;
/// Maximum number of values: far more than the largest number of files takes.
const MOST_VALUES: usize = 10_000_000;

/// `volumes/003.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeJson<F = Vec<VolumeFile>> {
    pub gapferry_volume: u32,
    /// The identity of the bundle.
    pub identity: Digest,
    /// The number of this volume, from 1.
    pub number: u32,
    /// The number of volumes in the set, without recovery volumes.
    pub of: u32,
    /// The number of recovery volumes in the set.
    pub recovery: u32,
    /// Maximum size of a volume of the set in bytes.
    pub limit: u64,
    /// Its content other than metadata and manifests, in tar order.
    pub files: F,
}

/// A file of the bundle, or a segment of one, in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct VolumeFile {
    /// Its path in `bundle.json`.
    pub path: String,
    /// BLAKE3 of the bytes in this volume.
    pub blake3: Blake3,
    /// `None` if the whole file is here, as for most files.
    pub segment: Option<Box<Segment>>,
}

/// A piece of a file that is larger than a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its number, from 1.
    pub number: u32,
    /// The number of segments of the file.
    pub of: u32,
    /// Its first byte in the file.
    pub first: u64,
    /// Size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// [`VolumeFile`] as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    path: String,
    blake3: Blake3,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segment: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segments: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, with = "optional_bare_sha256", skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
}

impl From<VolumeFile> for Written {
    fn from(VolumeFile { path, blake3, segment }: VolumeFile) -> Written {
        let whole = Written { path, blake3, segment: None, segments: None, first: None, size: None, sha256: None };
        let Some(segment) = segment else { return whole };
        let Segment { number, of, first, size, sha256 } = *segment;
        let (segment, segments) = (Some(number), Some(of));
        Written { segment, segments, first: Some(first), size: Some(size), sha256: Some(sha256), ..whole }
    }
}

impl TryFrom<Written> for VolumeFile {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<VolumeFile, &'static str> {
        let Written { path, blake3, segment, segments, first, size, sha256 } = written;
        let segment = match (segment, segments, first, size, sha256) {
            (None, None, None, None, None) => None,
            (Some(number), Some(of), Some(first), Some(size), Some(sha256)) => {
                Some(Box::new(Segment { number, of, first, size, sha256 }))
            }
            _ => return Err("a segment needs all of segment, segments, first, size and sha256"),
        };
        Ok(VolumeFile { path, blake3, segment })
    }
}

impl VolumeFile {
    /// Its entry in the tar.
    pub fn stored_path(&self) -> String {
        let number = |segment: &Segment| SegmentNumber { number: segment.number, of: segment.of };
        stored_path(&self.path, self.segment.as_deref().map(number))
    }

    fn fault(&self) -> Option<&'static str> {
        if !is_tool(&self.path) && Digest::of_blob_path(&self.path).is_none() {
            return Some("cannot be a file of a volume");
        }
        let Segment { number, of, first, size, sha256: _ } = self.segment.as_deref()?;
        if !(1..=*of).contains(number) || !(2..=MOST_VOLUMES).contains(of) {
            return Some("is an impossible segment");
        }
        let end = first.checked_add(*size).filter(|end| *size > 0 && *end <= i64::MAX as u64);
        let is_impossible = end.is_none() || (*number == 1) != (*first == 0);
        is_impossible.then_some("is a segment with an impossible range of bytes")
    }
}

impl VolumeJson {
    /// Parses it. `shown` is the name of the file in errors, and its volume has this many `entries`. A description that lists
    /// more takes no more than [`MOST_MEMORY`](crate::oci::MOST_MEMORY).
    ///
    /// # Errors
    /// It has another version (`Input`), or contains what such a file cannot contain (`Damaged`).
    pub fn parse(bytes: &[u8], shown: &str, entries: usize) -> Result<VolumeJson> {
        let mut json = VolumeJson::read_checked(bytes, shown, |outline, texts| {
            let files = outline.files.number;
            let is_held = files <= entries && fits_in_memory(texts, &[]);
            match outline.check(texts) {
                Err(why) if !is_held => Err(format!("{why}, more than a volume with {entries} entries can have")),
                _ => Ok(()),
            }
        })?;
        json.files.shrink_to_fit();
        match json.fault() {
            Some(fault) => Err(Error::damaged(format!("reading {shown}: {fault}"))),
            None => Ok(json),
        }
    }

    fn fault(&self) -> Option<String> {
        let VolumeJson { number, of, recovery, limit, .. } = *self;
        if !(1..=of).contains(&number) || of > MOST_VOLUMES || recovery > MOST_VOLUMES || limit > i64::MAX as u64 {
            return Some(format!(
                "volume {number} of {of} with {recovery} for recovery and {limit} bytes is impossible"
            ));
        }
        let mut paths: HashSet<&str> = HashSet::new();
        let mut files = self.files.iter();
        let file = files.find(|file| file.fault().is_some() || !paths.insert(&file.path))?;
        Some(format!("{:?} {}", file.path, file.fault().unwrap_or("comes twice")))
    }
}

impl<F: Serialize> VolumeJson<F> {
    /// Its serialized size in bytes.
    ///
    /// # Errors
    /// No input can cause one.
    pub fn length(&self) -> Result<u64> {
        canonical::length(self).map_err(undescribed)
    }

    /// Serializes it.
    ///
    /// # Errors
    /// No input can cause one.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        canonical::to_bytes(self).map_err(undescribed)
    }
}

fn undescribed(error: serde_json::Error) -> Error {
    Error::input("describing a volume").because(error)
}

/// `volumes/r01.json`: describes a recovery volume and every volume of the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecoveryJson {
    pub gapferry_recovery: u32,
    /// The identity of the bundle.
    pub identity: Digest,
    /// The time of the bundle; used in the headers of the tar.
    pub created: Timestamp,
    /// The number of this recovery volume, from 1.
    pub number: u32,
    /// The number of recovery volumes in the set.
    pub of: u32,
    /// Maximum size in bytes of a volume of the set, including recovery volumes.
    pub limit: u64,
    /// Bytes of a shard: the size of the largest volume, rounded up to a multiple of 64.
    pub shard: u64,
    /// The ordinary volumes, in order.
    pub volumes: Vec<WholeVolume>,
}

/// A volume as a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WholeVolume {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the whole file.
    #[serde(with = "bare_sha256")]
    pub sha256: Digest,
}

impl WholeVolume {
    /// Whether a file of this size with this sha256 is the volume from which the recovery volumes were computed.
    pub fn is(&self, size: u64, sha256: &Digest) -> bool {
        self.size == size && self.sha256 == *sha256
    }
}

impl RecoveryJson {
    /// Parses it. `shown` is the name of the file in errors.
    ///
    /// # Errors
    /// As for [`VolumeJson::parse`].
    pub fn parse(bytes: &[u8], shown: &str) -> Result<RecoveryJson> {
        let json = RecoveryJson::read(bytes, shown)?;
        match json.fault() {
            Some(fault) => Err(Error::damaged(format!("reading {shown}: {fault}"))),
            None => Ok(json),
        }
    }

    fn fault(&self) -> Option<String> {
        let RecoveryJson { number, of, limit, shard, .. } = *self;
        if !(1..=of).contains(&number) || of > MOST_VOLUMES || limit > i64::MAX as u64 {
            return Some(format!("recovery volume {number} of {of} with {limit} bytes is impossible"));
        }
        if self.volumes.is_empty() || self.volumes.len() > MOST_VOLUMES as usize {
            return Some(format!("a set cannot have {} volumes", self.volumes.len()));
        }
        let wrong = |volume: &WholeVolume| volume.size == 0 || volume.size > limit;
        if let Some(at) = self.volumes.iter().position(wrong) {
            return Some(format!("its entry for volume {} is impossible", at + 1));
        }
        let longest = self.volumes.iter().map(|volume| volume.size).max().unwrap_or_default();
        if Some(shard) != longest.checked_next_multiple_of(UNIT) || shard > limit {
            return Some(format!("a shard cannot have {shard} bytes"));
        }
        if self.chunks_length() > MAX_RECOVERY_CHUNKS {
            return Some("its volumes are too large in total for recovery volumes".to_owned());
        }
        let (volumes, of) = (self.volumes.len(), of as usize);
        (!supports(volumes, of)).then(|| format!("parity of {volumes} volumes in {of} is impossible"))
    }

    /// Serializes it.
    ///
    /// # Errors
    /// No input can cause one.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        canonical::to_bytes(self).map_err(undescribed)
    }
}

impl Document for VolumeJson {
    const NAME: &'static str = "the description of a volume";
    const VERSION_KEY: &'static str = "gapferryVolume";
    const VERSION: u32 = VOLUME_VERSION;
    const MAX_BYTES: u64 = MAX_VOLUME_JSON;
    const MAX_VALUES: usize = MOST_VALUES;
    const KIND: Kind = Kind::Damaged;
    type Outline = VolumeOutline;
}

impl Document for RecoveryJson {
    const NAME: &'static str = "the description of a recovery volume";
    const VERSION_KEY: &'static str = "gapferryRecovery";
    const VERSION: u32 = VOLUME_VERSION;
    const MAX_BYTES: u64 = MAX_RECOVERY_JSON;
    const MAX_VALUES: usize = MOST_VALUES;
    const KIND: Kind = Kind::Damaged;
    type Outline = RecoveryOutline;
}

/// How much a volume lists.
#[derive(Deserialize)]
pub struct VolumeOutline {
    #[serde(default)]
    files: Totals<OutlinedFile>,
}

#[derive(Deserialize)]
struct OutlinedFile {
    #[serde(default)]
    segment: Option<u32>,
}

impl Amount for OutlinedFile {
    fn amount(&self) -> u64 {
        if self.segment.is_some() { MEMORY_OF_SEGMENT } else { MEMORY_OF_FILE }
    }
}

impl Outline for VolumeOutline {
    fn check(&self, texts: u64) -> Result<(), String> {
        let Totals { number, amount, .. } = self.files;
        let fits = fits_in_memory(texts, &[amount]);
        fits.then_some(()).ok_or_else(|| format!("it lists {number} files in {texts} bytes"))
    }
}

/// How much a recovery volume lists.
#[derive(Deserialize)]
pub struct RecoveryOutline {
    #[serde(default)]
    volumes: Count,
}

impl Outline for RecoveryOutline {
    fn check(&self, _: u64) -> Result<(), String> {
        let number = self.volumes.number;
        let is_possible = number <= MOST_VOLUMES as usize;
        is_possible.then_some(()).ok_or_else(|| format!("a set cannot have {number} volumes"))
    }
}

#[cfg(test)]
mod tests;
