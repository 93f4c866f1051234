//! Writes recovery volumes from the finished volumes of a set, and reads them.
//!
//! # Threats
//! A recovery volume may be damaged or forged. Its description is used once its own sums match, and only to find out what is
//! lost; what is computed from it is compared with the sha256 of the whole volume before it gets a name. Sizes are bounded by
//! the file itself: it contains 32 bytes for every mebibyte of every volume.

use std::path::PathBuf;
use std::sync::Arc;

use super::computed::{ComputedVolumes, NewVolume};
use super::existing::Replaceable;
use super::format::{RecoveryJson, WholeVolume};
use super::names::{Part, SetName, WrittenVolume};
use super::opened::{OpenedPath, look};
use super::parity::{Computed, Shard, ShardId, ShardPlace, Shards, VolumeDigests};
use super::recovery_layout::{RecoveryOf, plan};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Occupant, WriteLock};
use crate::base::progress::Events;
use crate::bundle::stamp;
use crate::content::{Slice, in_parallel};
use crate::oci::{Algorithm, Digest};

/// Writes the recovery volumes of a set with finished volumes. If the volumes are `unchanged` since recovery volumes were
/// computed from them, these are kept. `lock` is the lock under which the volumes were written; without one, it is taken here.
///
/// # Errors
/// A volume cannot be read or exceeds the limit, a recovery volume would exceed it, or the disk fails.
pub fn write_recovery(
    set: &SetName,
    of: &RecoveryOf,
    lock: Option<Arc<WriteLock>>,
    unchanged: bool,
    events: &Events,
) -> Result<Vec<WrittenVolume>> {
    let lock = lock.map_or_else(|| WriteLock::take(&set.whole()).map(Arc::new), Ok)?;
    let paths: Vec<PathBuf> = (1..=of.volumes).map(|number| set.part(Part::Volume(number), of.volumes)).collect();
    let sizes = paths.iter().map(|path| match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) => Err(Error::disk("reading", path, error)),
    });
    let sizes = sizes.collect::<Result<Vec<u64>>>()?;
    let json = of.json(&sizes)?;
    let longest = plan(&RecoveryJson { number: of.recovery, ..json.clone() })?.length;
    if longest > of.limit {
        let text = format!("a recovery volume would have {longest} bytes, and a volume may have at most {}", of.limit);
        return Err(Error::input(text));
    }
    let origins = stamp::FilesStamp::of_all(&paths);
    let unchanged = unchanged && are_there(set, &json, &paths);
    if !unchanged {
        // Recorded first, so that what is checked is what may be replaced at the end.
        let formers =
            (1..=of.recovery).map(|number| lock.output().sibling(&set.part(Part::Recovery(number), of.recovery)));
        let formers: Vec<Occupant> = formers.map(|entry| entry.occupant()).collect();
        check_replaceable(set, of.recovery)?;
        let shard = |(path, size): (&PathBuf, &u64)| Shard { size: *size, place: Some(ShardPlace::new(path, 0, None)) };
        let originals = paths.iter().zip(&sizes).map(shard).collect();
        let parities = (0..of.recovery).map(|_| Shard { size: json.shard, place: None }).collect();
        let shards = Shards::new(originals, parities, json.shard)?;
        write_all(set, lock.output(), json.clone(), &formers, &shards, events)?;
    }
    if let Some(origins) = origins {
        (1..=of.recovery).for_each(|number| origins.mark_made(&set.part(Part::Recovery(number), of.recovery)));
    }
    let written = |number: u32| -> Result<WrittenVolume> {
        let path = set.part(Part::Recovery(number), of.recovery);
        let size = plan(&RecoveryJson { number, ..json.clone() })?.length;
        Ok(WrittenVolume { path, number, size, unchanged })
    };
    (1..=of.recovery).map(written).collect()
}

/// Rejects recovery volumes if one would replace something else.
///
/// # Errors
/// Something that must not be replaced has the name of one.
pub fn check_replaceable(set: &SetName, recovery: u32) -> Result<()> {
    let mut parts = (1..=recovery).map(Part::Recovery);
    parts.try_for_each(|part| Replaceable::Volumes.check(part, &set.part(part, recovery)))
}

fn write_all(
    set: &SetName,
    output: &Entry,
    json: RecoveryJson,
    formers: &[Occupant],
    shards: &Shards,
    events: &Events,
) -> Result<()> {
    let mut targets = ComputedVolumes::new(output);
    for (number, former) in (1..=json.of).zip(formers) {
        let name = set.part(Part::Recovery(number), json.of);
        let plan = plan(&RecoveryJson { number, ..json.clone() })?;
        let offset = plan.files.last().map_or(0, |file| file.data);
        let which = ShardId::Parity(number as usize - 1);
        targets.begin(NewVolume { name, former: *former, which, offset, length: plan.length })?;
    }
    let computed = targets.compute(shards, json.identity, events)?;
    let json = json.with(&computed)?;
    targets.write_headers(&json, &known(&computed.originals), &computed)?;
    targets.finish(events).map(drop)
}

/// Whether all recovery volumes were computed here from volumes with these bytes, and not modified since.
fn are_there(set: &SetName, json: &RecoveryJson, volumes: &[PathBuf]) -> bool {
    let there: Option<Vec<RecoveryJson>> = (1..=json.of).map(|number| there(set, json, number)).collect();
    let Some(there) = there else { return false };
    let path = |number| set.part(Part::Recovery(number), json.of);
    if (1..=json.of).all(|number| stamp::is_made_of(&path(number), volumes)) {
        return true;
    }
    // A volume that was lost and is the same again has another mark.
    let digests = in_parallel(volumes, |path| {
        let file = fsops::open_plain(path).ok()?;
        let size = file.metadata().ok()?.len();
        let slice = Slice::new(Arc::new(file), path.as_path(), 0, size);
        Some((size, slice.hash(Algorithm::Sha256, &|_| ()).ok()?))
    });
    let is_it = |(said, found): (&WholeVolume, &Option<(u64, Digest)>)| {
        found.as_ref().is_some_and(|(size, sha256)| said.is(*size, sha256))
    };
    let of_them =
        |there: &RecoveryJson| there.volumes.len() == digests.len() && there.volumes.iter().zip(&digests).all(is_it);
    there.iter().all(of_them)
}

/// The description of a recovery volume that was computed here from volumes of these sizes and not modified since.
fn there(set: &SetName, json: &RecoveryJson, number: u32) -> Option<RecoveryJson> {
    let path = set.part(Part::Recovery(number), json.of);
    let Ok(OpenedPath::Recovery(there)) = look(&path, false) else { return None };
    let sizes = |json: &RecoveryJson| json.volumes.iter().map(|volume| volume.size).collect::<Vec<u64>>();
    let without = |json: &RecoveryJson| RecoveryJson { number, volumes: Vec::new(), ..json.clone() };
    let is_it = there.json.number == number && sizes(&there.json) == sizes(json);
    (stamp::is_proven(&path) && is_it && without(&there.json) == without(json)).then_some(there.json)
}

/// The BLAKE3 of all mebibytes of all volumes, in order.
pub fn known(digests: &[Option<VolumeDigests>]) -> Vec<u8> {
    digests.iter().flatten().flat_map(|digests| digests.mebibytes.iter().flatten().copied()).collect()
}

impl RecoveryJson {
    /// With the digests of the volumes.
    fn with(mut self, computed: &Computed) -> Result<RecoveryJson> {
        for (volume, digests) in self.volumes.iter_mut().zip(&computed.originals) {
            let unread = || Error::damaged("computing recovery volumes: a volume was not read");
            volume.sha256 = digests.as_ref().ok_or_else(unread)?.sha256;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::progress::Silent;
    use crate::bundle::volumes::recovery_layout::recovery_length;

    /// Volumes of these sizes in a directory of their own, and their recovery options.
    fn set(sizes: &[u64], recovery: u32, limit: u64) -> (tempfile::TempDir, SetName, RecoveryOf) {
        let directory = tempfile::tempdir().unwrap();
        let set = SetName::of(&directory.path().join("images"));
        let volumes = u32::try_from(sizes.len()).unwrap();
        for (number, size) in (1..).zip(sizes) {
            let bytes: Vec<u8> = (0..*size).map(|at| (at * u64::from(number) % 251) as u8).collect();
            fs::write(set.part(Part::Volume(number), volumes), bytes).unwrap();
        }
        let (identity, created) = (Digest::sha256(b"bundle"), "2026-11-21T04:00:00Z".parse().unwrap());
        (directory, set, RecoveryOf { identity, created, limit, volumes, recovery })
    }

    fn write(set: &SetName, of: &RecoveryOf, unchanged: bool) -> Result<Vec<WrittenVolume>> {
        let events: Events = Arc::new(Silent);
        write_recovery(set, of, None, unchanged, &events)
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn a_recovery_volume_has_the_length_that_was_planned_and_the_same_bytes_each_time() {
        let sizes = [2_000_000, 1_500_000, 700];
        let length = recovery_length(&sizes, 12, 3_000_000).unwrap();
        let (directory, set, wanted) = set(&sizes, 12, length);
        let written = write(&set, &wanted, false).unwrap();
        let path = |number| set.part(Part::Recovery(number), 12);
        let first: Vec<Vec<u8>> = (1..=12).map(|number| fs::read(path(number)).unwrap()).collect();
        assert_eq!(first.iter().map(Vec::len).max(), usize::try_from(length).ok());
        assert!(written.iter().zip(&first).all(|(one, bytes)| one.size == bytes.len() as u64 && !one.unchanged));
        fs::remove_file(path(7)).unwrap();
        assert!(write(&set, &wanted, true).unwrap().iter().all(|one| !one.unchanged));
        assert!((1..=12).all(|number| fs::read(path(number)).unwrap() == first[number as usize - 1]));
        assert_eq!(names(&directory).len(), 15, "nothing else is left");
    }

    #[test]
    fn recovery_volumes_of_a_volume_that_was_written_again_since_are_made_anew() {
        let sizes = [2_000_000, 1_500_000];
        let (_directory, set, wanted) = set(&sizes, 1, 3_000_000);
        write(&set, &wanted, false).unwrap();
        assert!(write(&set, &wanted, true).unwrap()[0].unchanged);
        let (volume, recovery) = (set.part(Part::Volume(2), 2), set.part(Part::Recovery(1), 1));
        let replace = |bytes: Vec<u8>| {
            let new = volume.with_extension("new");
            fs::write(&new, bytes).unwrap();
            fs::rename(&new, &volume).unwrap();
        };
        let (before, stale) = (fs::read(&volume).unwrap(), fs::read(&recovery).unwrap());
        replace(before.iter().map(|byte| byte ^ 1).collect());
        let lock = WriteLock::take(&set.whole()).unwrap();
        assert!(write(&set, &wanted, true).is_err(), "another run is writing the volumes");
        let (lock, events): (_, Events) = (Some(Arc::new(lock)), Arc::new(Silent));
        let written = write_recovery(&set, &wanted, lock, true, &events).unwrap();
        assert!(!written[0].unchanged, "a lost volume would be lost for good");
        assert!(fs::read(&recovery).unwrap() != stale);
        replace(before);
        assert!(!write(&set, &wanted, true).unwrap()[0].unchanged);
        assert!(fs::read(&recovery).unwrap() == stale);
        replace(fs::read(&volume).unwrap());
        assert!(write(&set, &wanted, true).unwrap()[0].unchanged, "the same bytes in another file");
    }

    #[test]
    fn a_recovery_volume_that_would_be_longer_than_a_medium_is_refused_before_anything_is_written() {
        let sizes = [2_000_000, 1_500_000];
        let (directory, set, wanted) = set(&sizes, 2, recovery_length(&sizes, 2, 3_000_000).unwrap() - 1);
        assert!(write(&set, &wanted, false).unwrap_err().chain().contains("a volume may have at most"));
        assert_eq!(names(&directory).len(), 2);
        assert!(recovery_length(&sizes, 0, 3_000_000).is_err() && recovery_length(&[], 1, 3_000_000).is_err());
    }
}
