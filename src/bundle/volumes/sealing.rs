//! What a volume says of itself, once it is known what it holds.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use super::format::{Segment, VOLUME_VERSION, VolumeFile, VolumeJson};
use super::names::Part;
use super::plan::{Common, Held, SetPlan, VolumePlan};
use crate::bundle::SIGNATURE;
use crate::bundle::offsets::TarPlan;
use crate::content::chunks::{Chunks, to_hex};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::spool::Kept;

/// What is known of the bytes that a volume holds, when all of them are there.
#[derive(Clone, Debug)]
pub struct Known {
    pub sha256: Digest,
    pub chunks: Chunks,
}

/// A file that is written as a whole.
pub type Small = (String, Vec<u8>);
/// A file that every volume repeats: metadata, and manifests, of which there may be many.
pub type Repeated = (String, Kept);

impl Held {
    pub(super) fn segment(&self, sha256: String) -> Option<Segment> {
        let cut = self.cut?;
        Some(Segment { number: cut.number, of: cut.of, first: cut.first, size: self.size, sha256 })
    }

    fn said(&self, known: Option<&Known>) -> VolumeFile {
        let zeros = || "0".repeat(64);
        let blake3 = known.map_or_else(zeros, |known| to_hex(known.chunks.root()));
        let segment = self.segment(known.map_or_else(zeros, |known| known.sha256.hex()));
        VolumeFile { path: self.path.clone(), blake3, segment }
    }
}

fn json(volume: &VolumePlan, limit: u64, recovery: u32, identity: Digest, files: Vec<VolumeFile>) -> Result<Vec<u8>> {
    let VolumePlan { number, of, .. } = *volume;
    VolumeJson { gapferry_volume: VOLUME_VERSION, identity, number, of, recovery, limit, files }.to_bytes()
}

/// Where everything in the volume stands; lengths are final before any digest is known.
pub(super) fn lay_out(common: &Common, volume: &VolumePlan) -> Result<TarPlan> {
    let Common { metadata, manifests, limit, recovery } = common;
    let part = Part::Volume(volume.number);
    let of = volume.of;
    let files = volume.files.iter().map(|held| held.said(None)).collect();
    let json = json(volume, *limit, *recovery, Digest::sha256(b""), files)?.len() as u64;
    let chunks = volume.files.iter().map(Held::chained).sum::<u64>();
    let stored: Vec<(String, u64)> = volume.files.iter().map(|held| (held.stored_path(), held.size)).collect();
    let own = [(part.json(of), json), (part.chunks(of), chunks)];
    let summed = own.iter().chain(metadata).chain(manifests).chain(&stored).filter(|(path, _)| path != SIGNATURE);
    let sums = summed.map(|(path, _)| 64 + 2 + path.len() as u64 + 1).sum::<u64>();
    let [json, chunks] = own;
    let before = std::iter::once(json).chain(metadata.iter().cloned());
    let own = [chunks, (part.sums(of), sums)];
    TarPlan::new(before.chain(own).chain(manifests.iter().cloned()).chain(stored))
}

/// The three files that a volume has of its own: `.json`, `.b3` and `.sha256`. `common` are metadata and manifests, `known`
/// is by the path in the tar.
///
/// # Errors
/// Something is not known, or not what was planned with.
pub fn own_files(
    set: &SetPlan,
    volume: &VolumePlan,
    identity: Digest,
    common: &[Repeated],
    known: &HashMap<String, Known>,
) -> Result<Vec<Small>> {
    let tar = volume.tar()?;
    let part = Part::Volume(volume.number);
    let mut files = Vec::new();
    let mut chunks = Vec::new();
    let mut lines: Vec<(String, Digest)> = Vec::new();
    for held in &volume.files {
        let path = held.stored_path();
        let unknown = || Error::damaged(format!("describing volume {}: {path} is missing", volume.number));
        let known = known.get(&path).ok_or_else(unknown)?;
        files.push(held.said(Some(known)));
        chunks.extend(known.chunks.values().iter().flatten());
        lines.push((path, known.sha256));
    }
    let json = json(volume, set.limit, set.recovery, identity, files)?;
    let own = [(part.json(volume.of), json), (part.chunks(volume.of), chunks)];
    let mut whole: HashMap<&str, Digest> =
        own.iter().map(|(path, bytes)| (path.as_str(), Digest::sha256(bytes))).collect();
    for (path, bytes) in common.iter().filter(|(path, _)| path != SIGNATURE) {
        let bytes = bytes.bytes().map_err(|e| Error::disk("keeping", Path::new(path), e))?;
        whole.insert(path, Digest::sha256(&bytes));
    }
    let held: HashMap<&str, &Digest> = lines.iter().map(|(path, digest)| (path.as_str(), digest)).collect();
    let mut sums = String::new();
    for file in &tar.files {
        let digest = whole.get(file.path.as_str()).or(held.get(file.path.as_str()).copied());
        if let Some(digest) = digest {
            // Writing to a String cannot fail.
            let _ = writeln!(sums, "{}  {}", digest.hex(), file.path);
        }
    }
    let [json, chunks] = own;
    let own = vec![json, chunks, (part.sums(volume.of), sums.into_bytes())];
    for (path, bytes) in &own {
        let planned = tar.files.iter().find(|file| file.path == *path).map(|file| file.size);
        if planned != Some(bytes.len() as u64) {
            return Err(Error::damaged(format!("describing volume {}: {path} has another length", volume.number)));
        }
    }
    Ok(own)
}
