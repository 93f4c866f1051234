//! The position of everything in a volume. Lengths are final before any digest is known.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::format::{Segment, VOLUME_VERSION, VolumeFile, VolumeJson};
use super::names::{Part, SegmentNumber, stored_path};
use crate::base::error::Result;
use crate::bundle::tar_plan::TarPlan;
use crate::bundle::{is_signature, sums};
use crate::content::chunks::{CHAINED, Chunks, values_of};
use crate::oci::{Blake3, Digest};

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    /// From 1.
    pub number: u32,
    pub of: u32,
    /// Without metadata and manifests, in tar order.
    pub files: Vec<Held>,
    /// Size of the file in bytes.
    pub length: u64,
    /// Fingerprint of its layout.
    pub(super) fingerprint: Digest,
    pub(super) common: Arc<Common>,
}

/// What all volumes of a set have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub metadata: Vec<(String, u64)>,
    pub manifests: Vec<(String, u64)>,
    pub limit: u64,
    pub recovery: u32,
}

impl VolumePlan {
    /// The layout of the volume. It is not kept, because every volume contains thousands of manifests.
    ///
    /// # Errors
    /// The sizes overflow.
    pub fn tar(&self) -> Result<TarPlan> {
        lay_out(&self.common, self)
    }

    /// The positions of the bytes of its [files](VolumePlan::files), which come last.
    ///
    /// # Errors
    /// As for [`VolumePlan::tar`].
    pub fn places(&self) -> Result<Vec<u64>> {
        let tar = self.tar()?;
        let first = tar.files.len().saturating_sub(self.files.len());
        Ok(tar.files[first..].iter().map(|file| file.data).collect())
    }
}

/// A file of the bundle, or a piece of one, in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The path in the bundle.
    pub path: String,
    /// Bytes in this volume.
    pub size: u64,
    /// `None` for a whole file.
    pub cut: Option<Cut>,
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Its number, from 1.
    pub number: u32,
    pub of: u32,
    /// Its first byte in the file.
    pub first: u64,
}

impl Held {
    /// Its entry in the tar.
    pub fn stored_path(&self) -> String {
        stored_path(&self.path, self.cut.map(|cut| SegmentNumber { number: cut.number, of: cut.of }))
    }

    /// Bytes about it in `volumes/003.b3`.
    pub(super) fn chained(&self) -> u64 {
        values_of(self.size) * CHAINED as u64
    }
}

/// What is known about the content of a volume when all of it is there.
#[derive(Clone, Debug)]
pub struct HeldDigests {
    pub sha256: Digest,
    pub chunks: Chunks,
}

impl Held {
    fn segment(&self, sha256: Digest) -> Option<Segment> {
        let cut = self.cut?;
        Some(Segment { number: cut.number, of: cut.of, first: cut.first, size: self.size, sha256 })
    }

    fn describe(&self, known: Option<&HeldDigests>) -> VolumeFile {
        let blake3 = known.map_or(Blake3::ZEROS, |known| (*known.chunks.root()).into());
        let segment = self.segment(known.map_or(Digest::ZEROS, |known| known.sha256));
        VolumeFile { path: self.path.clone(), blake3, segment: segment.map(Box::new) }
    }
}

/// The descriptions of the files of a volume, generated one by one while they are written.
pub(super) struct DescribedFiles<'a> {
    held: &'a [Held],
    /// In the same order; without it, zeros take its place.
    known: Option<&'a [HeldDigests]>,
}

impl Serialize for DescribedFiles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let known = |at: usize| self.known.and_then(|known| known.get(at));
        serializer.collect_seq(self.held.iter().enumerate().map(|(at, held)| held.describe(known(at))))
    }
}

/// The description of a volume; `limit` and `recovery` are those of the set.
pub(super) fn volume_json<'a>(
    volume: &'a VolumePlan,
    limit: u64,
    recovery: u32,
    identity: Digest,
    known: Option<&'a [HeldDigests]>,
) -> VolumeJson<DescribedFiles<'a>> {
    let VolumePlan { number, of, .. } = *volume;
    let files = DescribedFiles { held: &volume.files, known };
    VolumeJson { gapferry_volume: VOLUME_VERSION, identity, number, of, recovery, limit, files }
}

/// Lays out the volume. Lengths are final before any digest is known.
fn lay_out(common: &Common, volume: &VolumePlan) -> Result<TarPlan> {
    let Common { metadata, manifests, limit, recovery } = common;
    let part = Part::Volume(volume.number);
    let of = volume.of;
    let json = volume_json(volume, *limit, *recovery, Digest::sha256(b""), None).length()?;
    let chunks = volume.files.iter().map(Held::chained).sum::<u64>();
    let stored: Vec<(String, u64)> = volume.files.iter().map(|held| (held.stored_path(), held.size)).collect();
    let own = [(part.json(of), json), (part.chunks(of), chunks)];
    let summed = own.iter().chain(metadata).chain(manifests).chain(&stored).filter(|(path, _)| !is_signature(path));
    let sums = summed.map(|(path, _)| sums::LINE + path.len() as u64).sum::<u64>();
    let [json, chunks] = own;
    let before = std::iter::once(json).chain(metadata.iter().cloned());
    let own = [chunks, (part.sums(of), sums)];
    TarPlan::new(before.chain(own).chain(manifests.iter().cloned()).chain(stored))
}
