//! Plans a bundle in volumes: the set, the space it needs, and what exists of it.

use std::collections::HashSet;
use std::path::Path;

use super::fileset::{FileSet, KnownFile, Trailer};
use super::format::{MAX_SIGNATURE, head_of, is_signature};
use super::open::Bundle;
use super::options::{Finished, SpaceNeeds, existing_ancestor};
use super::volumes::{
    Opened, Part, Replaceable, Set, SetName, VolumeOptions, claimed, lacking, remove_orphaned_journals, reserved,
    volumes_of, whole,
};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, WriteLock};
use crate::base::progress::Events;
use crate::oci::Digest;
use crate::spool::Kept;

/// The bundle whose volumes have this name, as far as they exist and can be read.
pub fn former(out: &Path) -> Option<Bundle> {
    let paths = volumes_of(&SetName::of(out));
    if paths.is_empty() {
        return None;
    }
    Some(Opened::open(&paths).ok()?.into_bundle(None).ok()?.0)
}

/// The set that writing `files` to `out` would produce.
///
/// # Errors
/// The volumes would be too small, or a selected number does not exist.
pub fn plan(out: &Path, files: &FileSet, volumes: &VolumeOptions) -> Result<Set> {
    let set = Set::new(files, SetName::of(out), volumes.shape)?;
    set.check(&volumes.selection)?;
    Ok(set)
}

/// Does the same. If only some volumes are written, `files` get the signatures of the existing set, because parity covers
/// whole files. A key that has not signed it signs in addition.
///
/// # Errors
/// As for [`plan`]; or a signature cannot be read or made; or the existing volumes have another layout.
pub fn prepare(out: &Path, files: &mut FileSet, volumes: &VolumeOptions) -> Result<Set> {
    keep_signatures(out, files, volumes)?;
    let set = plan(out, files, volumes)?;
    if volumes.selection.is_all() {
        return Ok(set);
    }
    let there = Opened::open(&volumes_of(&set.name)).ok();
    let there = there.iter().filter_map(Opened::volumes).flat_map(|there| &there.volumes);
    match there.filter(|volume| !volumes.selection.has(volume.json.number)).find(|volume| !set.admits(&volume.json)) {
        None => Ok(set),
        Some(volume) => {
            let text = "has other files than in this set, so a single volume would not match the others: write all \
                        volumes, without --only-volume";
            Err(Error::input(format!("{} {text}", volume.path.display())))
        }
    }
}

fn keep_signatures(out: &Path, files: &mut FileSet, volumes: &VolumeOptions) -> Result<()> {
    let former = if volumes.selection.is_all() { None } else { former(out) };
    let Some(former) = former.filter(|former| former.identity() == files.identity) else { return Ok(()) };
    let key = match files.trailer.take() {
        Some(Trailer::Signed(key)) => Some(key),
        Some(Trailer::Copied(_)) | None => None,
    };
    files.trailer = Some(Trailer::Copied(Vec::new()));
    files.head.retain(|file| !is_signature(&file.path));
    for path in head_of(former.layout(), true).into_iter().filter(|path| is_signature(path)) {
        if let Some(bytes) = former.layout().read(&path, MAX_SIGNATURE)? {
            files.add_signature(KnownFile { path, bytes: Kept::new(&bytes) })?;
        }
    }
    key.map_or(Ok(()), |key| files.sign(&key))
}

/// Whether the selected volumes of the `planned` set exist already. With `proven`, every byte is checked; otherwise only their
/// appearance.
pub fn up_to_date(
    planned: &Set,
    files: &FileSet,
    volumes: &VolumeOptions,
    proven: bool,
    events: &Events,
) -> Option<Finished> {
    let first = planned.wanted(&volumes.selection).next()?;
    let bundle = Bundle::open(&planned.path_of(first)).ok()?;
    if bundle.identity() != planned.identity {
        return None;
    }
    // The existing bundle may have more or other signatures.
    let there = FileSet::of_bundle(&bundle).ok()?;
    let set = Set::new(&there, planned.name.clone(), volumes.shape).ok()?.signed_by_any(files.signer.clone());
    set.check(&volumes.selection).ok()?;
    let is_there = match proven {
        true => whole(&set, &volumes.selection, events).len() == set.wanted(&volumes.selection).count(),
        false => lacking(&set, &volumes.selection).is_empty(),
    };
    if !is_there {
        return None;
    }
    if proven {
        WriteLock::remove_orphaned(&set.name.whole());
        remove_orphaned_journals(&set.name);
    }
    let size = set.wanted(&volumes.selection).map(|volume| volume.length).sum();
    Some(Finished { path: set.name.whole(), identity: set.identity, size, unchanged: true })
}

/// The space needed to write the volumes.
///
/// # Errors
/// There is no such set, something that is not `replaceable` has the name of a volume, or the file system fails.
pub(super) fn survey(
    out: &Path,
    files: &FileSet,
    volumes: &VolumeOptions,
    replaceable: &Replaceable,
) -> Result<SpaceNeeds> {
    let (set, selection) = (plan(out, files, volumes)?, &volumes.selection);
    let lacking = lacking(&set, selection);
    for volume in &lacking {
        replaceable.check(Part::Volume(volume.number), &set.path_of(volume))?;
    }
    let lacking = lacking.iter().map(|volume| volume.length).fold(0, u64::saturating_add);
    let total = set.wanted(selection).map(|volume| volume.length).fold(0, u64::saturating_add);
    let claimed = claimed(&set, selection);
    let former = former(out);
    let held = |digest: &Digest, size: u64| {
        let there = former.as_ref().and_then(|former| former.layout().size_of(&digest.blob_path()));
        claimed.contains(digest) || there == Some(size)
    };
    let elsewhere = elsewhere(&set, volumes, files);
    let blobs = files.blobs.iter().filter(|blob| elsewhere.contains(&blob.digest) || held(&blob.digest, blob.size));
    let present = blobs.map(|blob| blob.size).fold(0, u64::saturating_add);
    let recovery = if selection.is_all() { set.recovery_room(lacking == 0)? } else { 0 };
    let needed = lacking.saturating_sub(reserved(&set, selection)).saturating_add(recovery);
    let free = fsops::free_space(&existing_ancestor(&set.name.whole()))?;
    Ok(SpaceNeeds { total, present, needed, free })
}

/// The blobs that have no part in the selected volumes.
fn elsewhere(set: &Set, volumes: &VolumeOptions, files: &FileSet) -> HashSet<Digest> {
    let selected = set.wanted(&volumes.selection);
    let held: HashSet<&str> = selected.flat_map(|volume| volume.files.iter().map(|held| held.path.as_str())).collect();
    let blobs = files.blobs.iter().map(|blob| blob.digest);
    blobs.filter(|digest| !held.contains(digest.blob_path().as_str())).collect()
}
