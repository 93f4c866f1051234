//! What a volume says of itself, once it is known what it holds.

use std::collections::HashMap;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::format::{Segment, VOLUME_VERSION, VolumeFile, VolumeJson};
use super::names::Part;
use super::plan::{Common, Held, SetPlan, VolumePlan};
use crate::base::error::{Error, Result};
use crate::bundle::offsets::TarPlan;
use crate::bundle::{is_signature, sums};
use crate::content::chunks::Chunks;
use crate::oci::{Algorithm, Digest, Hasher};
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
        let blake3 = known.map_or([0; 32], |known| *known.chunks.root()).into();
        let segment = self.segment(known.map_or_else(|| "0".repeat(64), |known| known.sha256.hex()));
        VolumeFile { path: self.path.clone(), blake3, segment: segment.map(Box::new) }
    }
}

/// The files of a volume while they are written: they are made one by one.
struct Said<'a> {
    held: &'a [Held],
    /// In the same order; without it, zeros stand in its place.
    known: Option<&'a [Known]>,
}

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let known = |at: usize| self.known.and_then(|known| known.get(at));
        serializer.collect_seq(self.held.iter().enumerate().map(|(at, held)| held.said(known(at))))
    }
}

fn json<'a>(
    volume: &'a VolumePlan,
    (limit, recovery): (u64, u32),
    identity: Digest,
    known: Option<&'a [Known]>,
) -> VolumeJson<Said<'a>> {
    let VolumePlan { number, of, .. } = *volume;
    let files = Said { held: &volume.files, known };
    VolumeJson { gapferry_volume: VOLUME_VERSION, identity, number, of, recovery, limit, files }
}

/// Where everything in the volume stands; lengths are final before any digest is known.
pub(super) fn lay_out(common: &Common, volume: &VolumePlan) -> Result<TarPlan> {
    let Common { metadata, manifests, limit, recovery } = common;
    let part = Part::Volume(volume.number);
    let of = volume.of;
    let json = json(volume, (*limit, *recovery), Digest::sha256(b""), None).length()?;
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

/// The three files that a volume has of its own: `.json`, `.b3` and `.sha256`. `common` are metadata and manifests; `known` is of
/// the files that the volume holds, in their order.
///
/// # Errors
/// Something is not known, or not what was planned with.
pub fn own_files(
    set: &SetPlan,
    volume: &VolumePlan,
    identity: Digest,
    common: &[Repeated],
    known: &[Known],
) -> Result<Vec<Small>> {
    if known.len() != volume.files.len() {
        return Err(Error::damaged(format!("describing volume {}: a file of it is missing", volume.number)));
    }
    let tar = volume.tar()?;
    let part = Part::Volume(volume.number);
    let chunks = known.iter().flat_map(|known| known.chunks.values().iter().flatten()).copied().collect();
    let json = json(volume, (set.limit, set.recovery), identity, Some(known)).to_bytes()?;
    let own = [(part.json(volume.of), json), (part.chunks(volume.of), chunks)];
    let mut whole: HashMap<&str, Digest> =
        own.iter().map(|(path, bytes)| (path.as_str(), Digest::sha256(bytes))).collect();
    for (path, bytes) in common.iter().filter(|(path, _)| !is_signature(path)) {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let read = bytes.read(&mut |piece| {
            hasher.update(piece);
            Ok(())
        });
        read.map_err(|e| Error::disk("keeping", Path::new(path), e))?;
        whole.insert(path, hasher.finish());
    }
    let (repeated, held) = tar.files.split_at(tar.files.len().saturating_sub(known.len()));
    let repeated = repeated.iter().filter_map(|file| Some((file, *whole.get(file.path.as_str())?)));
    let held = held.iter().zip(known).map(|(file, known)| (file, known.sha256));
    let planned = |path: &str| tar.files.iter().find(|file| file.path == path).map(|file| file.size);
    let sums_path = part.sums(volume.of);
    let sums = sums::write(repeated.chain(held).map(|(file, digest)| (file.path.as_str(), digest)));
    let [json, chunks] = own;
    let own = vec![json, chunks, (sums_path, sums.into_bytes())];
    for (path, bytes) in &own {
        if planned(path) != Some(bytes.len() as u64) {
            return Err(Error::damaged(format!("describing volume {}: {path} has another length", volume.number)));
        }
    }
    Ok(own)
}
