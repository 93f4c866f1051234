//! A volume's description, once its content is known.

use std::collections::HashMap;
use std::path::Path;

use super::layout::{HeldDigests, VolumePlan, volume_json};
use super::names::Part;
use super::plan::SetPlan;
use crate::base::error::{Error, Result};
use crate::bundle::fileset::KnownFile;
use crate::bundle::{is_signature, sums};
use crate::oci::{Algorithm, Digest, Hasher};

/// A file that is written as a whole.
pub type Small = (String, Vec<u8>);

/// A volume's own three files: `.json`, `.b3` and `.sha256`. `common` are metadata and manifests; `known` describes the
/// volume's files in order.
///
/// # Errors
/// Something is not known, or differs from the plan.
pub fn own_files(
    set: &SetPlan,
    volume: &VolumePlan,
    identity: Digest,
    common: &[KnownFile],
    known: &[HeldDigests],
) -> Result<Vec<Small>> {
    if known.len() != volume.files.len() {
        return Err(Error::damaged(format!("describing volume {}: one of its files is missing", volume.number)));
    }
    let tar = volume.tar()?;
    let part = Part::Volume(volume.number);
    let chunks = known.iter().flat_map(|known| known.chunks.values().iter().flatten()).copied().collect();
    let json = volume_json(volume, set.limit, set.recovery, identity, Some(known)).to_bytes()?;
    let own = [(part.json(volume.of), json), (part.chunks(volume.of), chunks)];
    let mut whole: HashMap<&str, Digest> =
        own.iter().map(|(path, bytes)| (path.as_str(), Digest::sha256(bytes))).collect();
    for KnownFile { path, bytes } in common.iter().filter(|file| !is_signature(&file.path)) {
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
