//! Reconstructs lost and damaged volumes of a set from the others and the recovery volumes.
//!
//! # Threats
//! As for [`Surviving`] and [`VolumeProof`]. Nothing gets a name, and nothing is replaced, before every reconstructed volume
//! matches what the recovery volumes state and, because no signature covers these, the bundle's own digests. Either everything
//! that is lost is reconstructed or nothing is, so that every cut file can be joined and proven. A file that is not a damaged
//! volume of this set is never overwritten, nor is a volume that is good. A kill at any moment leaves what was there, or
//! complete volumes in its place.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use super::RecoveryJson;
use super::computed::{ComputedVolumes, NewVolume};
use super::existing::{KnownVolume, Replaceable, is_same_file};
use super::names::{Part, SetName};
use super::opened::{OpenedPath, id_of_recovery, look};
use super::parity::{Computed, ShardId, Shards};
use super::recovery::known;
use super::recovery_layout::plan;
use super::surviving::{RecoveryFault, Surviving, SurvivingVolume};
use super::unfinished::{PARTIAL, journals};
use super::volume_proof::{GivenVolume, VolumeProblem, VolumeProof};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Occupant, WriteLock};
use crate::base::progress::Events;
use crate::bundle::Proven;
use crate::oci::Digest;

/// The outcome for a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconstructed {
    /// The name of its files.
    pub name: SetName,
    /// The identity of its bundle.
    pub identity: Digest,
    /// Number of volumes.
    pub volumes: u32,
    /// Number of recovery volumes.
    pub recovery: u32,
    /// Volumes that were missing.
    pub missing: Vec<Part>,
    /// Volumes with wrong bytes.
    pub damaged: Vec<(Part, PathBuf)>,
    /// Volumes that are good by the bundle's own digests and differ from what the recovery volumes state.
    pub unlike: Vec<(Part, PathBuf)>,
    /// Files of other sets, or that are not volumes.
    pub foreign: Vec<PathBuf>,
    /// Volumes that were reconstructed.
    pub made: Vec<(Part, PathBuf)>,
    /// Number of additional good recovery volumes needed; 0 if the set is complete now.
    pub lacking: usize,
}

impl Reconstructed {
    /// Number of volumes of this kind in the set.
    pub fn of(&self, part: Part) -> u32 {
        if matches!(part, Part::Volume(_)) { self.volumes } else { self.recovery }
    }
}

/// Reconstructs what is lost of the set of `paths`, next to the others or in the directory `out`. Files of the set in the
/// places it will write to are treated as if they were named. With `signed`, only a set of this bundle is accepted.
///
/// # Errors
/// The set is of another bundle, no recovery volume can be read, something else has the name of a volume, or a reconstructed
/// volume does not match: nothing has changed. The disk fails.
pub fn reconstruct(
    paths: &[PathBuf],
    out: Option<&Path>,
    signed: Option<&Proven>,
    events: &Events,
) -> Result<Reconstructed> {
    let mut locks = lock_all(paths, out)?;
    let mut formers = Formers::default();
    formers.note(paths);
    let mut surviving = Surviving::survey(paths, signed, events)?;
    if let Some(signed) = signed.filter(|signed| signed.identity != surviving.json.identity) {
        let (identity, of) = (signed.identity, surviving.json.identity);
        let text = format!("the recovery volumes are of the bundle {of}, and the signed bundle is {identity}");
        let text = format!("repairing {}: {text}", surviving.name.base().display());
        return Err(Error::damaged(text).with_fact(RecoveryFault::OtherBundle { of, signed: identity }));
    }
    let unnamed = unnamed(&surviving, paths, out)?;
    formers.note(&unnamed);
    if !unnamed.is_empty() {
        let found: Vec<PathBuf> = paths.iter().chain(&unnamed).cloned().collect();
        surviving = Surviving::survey(&found, signed, events)?;
    }
    let mut reconstructed = report(&surviving);
    let name = named(&surviving, out)?;
    let lost: Vec<Part> =
        reconstructed.missing.iter().copied().chain(reconstructed.damaged.iter().map(|(part, _)| *part)).collect();
    let (originals, parities) = surviving.shards();
    let shards = Shards::new(originals, parities, surviving.json.shard)?;
    reconstructed.lacking = if lost.is_empty() { 0 } else { shards.lacking() };
    if lost.is_empty() || reconstructed.lacking > 0 {
        return Ok(reconstructed);
    }
    let replaceable = Replaceable::Only(known_damaged(&surviving, &unnamed));
    // A volume may have been named through a link that leads here.
    formers.note(&lost.iter().map(|part| path_of(&surviving.json, &name, *part)).collect::<Vec<PathBuf>>());
    for part in &lost {
        replaceable.check(*part, &path_of(&surviving.json, &name, *part))?;
    }
    refuse_begun(&name, lost.iter().map(|part| path_of(&surviving.json, &name, *part)))?;
    let lock = locks.remove(&place_of(&name)).map_or_else(|| WriteLock::take(&name.whole()), Ok)?;
    let mut targets = ComputedVolumes::new(lock.output());
    for part in &lost {
        targets.begin(new_volume(&surviving.json, &name, *part, &formers)?)?;
    }
    let computed = targets.compute(&shards, surviving.json.identity, events)?;
    check_digests(&surviving, &name, &computed)?;
    prove_volumes(&surviving, &targets, &name, signed, events)?;
    targets.write_headers(&surviving.json, &surviving.known, &computed)?;
    let made = targets.finish(events)?;
    reconstructed.made = lost.into_iter().zip(made).collect();
    Ok(reconstructed)
}

/// The damaged volumes that may be replaced: those that were named, and those whose bytes show that they belong to this set.
/// Another file with such a name may be anything.
fn known_damaged(surviving: &Surviving, unnamed: &[PathBuf]) -> Vec<KnownVolume> {
    let damaged = surviving.parts().filter_map(|(part, left)| Some((part, left.filter(|left| !left.is_whole())?)));
    let is_known = |left: &SurvivingVolume| left.is_recognized || !unnamed.contains(&left.path);
    let known = damaged.filter(|(_, left)| is_known(left));
    known.map(|(part, left)| KnownVolume { part, path: left.path.clone() }).collect()
}

/// Locks every set that these files may belong to; only all of their bytes tell which. A read-only medium is not locked.
fn lock_all(paths: &[PathBuf], out: Option<&Path>) -> Result<HashMap<PathBuf, WriteLock>> {
    let mut locks = HashMap::new();
    for (name, _) in paths.iter().filter_map(|path| SetName::of_part(path)) {
        let name = name.moved_to(out)?;
        if let Entry::Vacant(vacant) = locks.entry(place_of(&name))
            && let Some(lock) = WriteLock::take_if_writable(&name.whole())?
        {
            vacant.insert(lock);
        }
    }
    Ok(locks)
}

/// Equal for all paths that lead to the set.
fn place_of(name: &SetName) -> PathBuf {
    place_of_file(&name.whole())
}

/// Equal for all directory paths that lead to the file.
fn place_of_file(path: &Path) -> PathBuf {
    let directory = fsops::parent(path);
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    directory.join(path.file_name().unwrap_or_default())
}

/// An unfinished run may have fetched data for a volume under the name that this run writes to.
fn refuse_begun(name: &SetName, mut paths: impl Iterator<Item = PathBuf>) -> Result<()> {
    if journals(name).is_empty() {
        return Ok(());
    }
    match paths.find(|path| fsops::beside(path, PARTIAL).exists()) {
        None => Ok(()),
        Some(path) => {
            let text = "an unfinished export or split has started to write it: run that again, remove its files \
                        (*.partial*), or name a directory with -o";
            Err(Error::input(format!("making {} again: {text}", path.display())))
        }
    }
}

/// Whether these files contain volumes or remains of volumes.
///
/// # Errors
/// A path does not exist.
pub fn is_set(paths: &[PathBuf]) -> Result<bool> {
    for path in paths {
        path.metadata().map_err(|e| Error::disk("opening", path, e))?;
        match look(path, false) {
            Ok(OpenedPath::Volume(..) | OpenedPath::Recovery(_)) => return Ok(true),
            Ok(OpenedPath::Broken(broken)) if broken.part.is_some() => return Ok(true),
            Ok(OpenedPath::Broken(_) | OpenedPath::Other(..)) | Err(_) => {}
        }
    }
    Ok(false)
}

fn report(surviving: &Surviving) -> Reconstructed {
    let (mut missing, mut damaged, mut unlike) = (Vec::new(), Vec::new(), Vec::new());
    for (part, left) in surviving.parts() {
        match left {
            None => missing.push(part),
            Some(left) if !left.is_whole() => damaged.push((part, left.path.clone())),
            Some(left) if left.is_unlike() => unlike.push((part, left.path.clone())),
            Some(_) => {}
        }
    }
    Reconstructed {
        name: surviving.name.clone(),
        identity: surviving.json.identity,
        volumes: u32::try_from(surviving.json.volumes.len()).unwrap_or(u32::MAX),
        recovery: surviving.json.of,
        missing,
        damaged,
        unlike,
        foreign: surviving.foreign.clone(),
        made: Vec::new(),
        lacking: 0,
    }
}

/// The name of the files to write.
fn named(surviving: &Surviving, out: Option<&Path>) -> Result<SetName> {
    surviving.name.clone().moved_to(out)
}

fn path_of(json: &RecoveryJson, name: &SetName, part: Part) -> PathBuf {
    let volumes = u32::try_from(json.volumes.len()).unwrap_or(u32::MAX);
    name.part(part, if matches!(part, Part::Volume(_)) { volumes } else { json.of })
}

/// Files with the names of what would be written, but that were not named.
fn unnamed(surviving: &Surviving, paths: &[PathBuf], out: Option<&Path>) -> Result<Vec<PathBuf>> {
    let name = named(surviving, out)?;
    let lost = surviving.parts().filter(|(_, left)| left.is_none_or(|left| !left.is_whole()));
    let there = lost.map(|(part, _)| path_of(&surviving.json, &name, part)).filter(|path| path.is_file());
    Ok(there.filter(|path| !paths.iter().any(|other| is_same_file(path, other))).collect())
}

/// What had these names before they were checked; nothing that has taken one since is replaced.
#[derive(Default)]
struct Formers(HashMap<PathBuf, Occupant>);

impl Formers {
    fn note(&mut self, paths: &[PathBuf]) {
        for path in paths {
            if let Ok(entry) = fsops::Entry::of(path) {
                self.0.entry(place_of_file(path)).or_insert_with(|| entry.occupant());
            }
        }
    }

    /// Nothing, if nothing was recorded.
    fn of(&self, path: &Path) -> Occupant {
        self.0.get(&place_of_file(path)).copied().unwrap_or_default()
    }
}

fn new_volume(json: &RecoveryJson, name: &SetName, part: Part, formers: &Formers) -> Result<NewVolume> {
    let path = path_of(json, name, part);
    let former = formers.of(&path);
    Ok(match part {
        Part::Volume(number) => {
            let at = number as usize - 1;
            let length = json.volumes.get(at).map_or(0, |volume| volume.size);
            NewVolume { name: path, former, which: ShardId::Original(at), offset: 0, length }
        }
        Part::Recovery(number) => {
            let plan = plan(&RecoveryJson { number, ..json.clone() })?;
            let offset = plan.files.last().map_or(0, |file| file.data);
            let which = ShardId::Parity(number as usize - 1);
            NewVolume { name: path, former, which, offset, length: plan.length }
        }
    })
}

/// Compares every reconstructed volume, and the originals, with what the recovery volumes state.
fn check_digests(surviving: &Surviving, name: &SetName, computed: &Computed) -> Result<()> {
    let json = &surviving.json;
    for ((number, volume), digests) in (1..).zip(&json.volumes).zip(&computed.originals) {
        let found = digests.as_ref().map(|digests| digests.sha256);
        let Some(found) = found.filter(|found| !volume.is(volume.size, found)) else { continue };
        let path = path_of(json, name, Part::Volume(number));
        let text = format!("it would be {found}, it was {}", volume.sha256);
        return Err(forged(&path, &text));
    }
    let all = computed.originals.iter().all(Option::is_some);
    if all && known(&computed.originals) != surviving.known {
        return Err(forged(name.base(), "the recovery volumes do not list the BLAKE3 of its volumes"));
    }
    Ok(())
}

/// Proves every reconstructed volume by the bundle itself: see [`VolumeProof`].
fn prove_volumes(
    surviving: &Surviving,
    targets: &ComputedVolumes,
    name: &SetName,
    signed: Option<&Proven>,
    events: &Events,
) -> Result<()> {
    let here = (1..).zip(&surviving.volumes).filter_map(|(number, left)| {
        let left = left.as_ref().filter(|left| left.is_whole())?;
        Some(GivenVolume { number, path: left.path.clone(), is_made: false })
    });
    let made = targets.volumes().map(|(number, path)| GivenVolume { number, path: path.to_owned(), is_made: true });
    let made: Vec<GivenVolume> = made.collect();
    let given: Vec<GivenVolume> = here.chain(made.iter().cloned()).collect();
    let fault = |VolumeProblem { volume, file, what }: VolumeProblem| {
        let made = made.iter().find(|given| given.path == volume);
        let path = made.map_or(volume, |given| path_of(&surviving.json, name, Part::Volume(given.number)));
        forged(&path, &format!("{file} {what}"))
    };
    let proof = VolumeProof::open(&given, id_of_recovery(&surviving.json), signed, events).map_err(fault)?;
    made.iter().try_for_each(|given| proof.alone(&given.path)).map_err(fault)?;
    let paths: Vec<&Path> = made.iter().map(|given| given.path.as_path()).collect();
    match proof.together(&paths).into_iter().next().or_else(|| proof.lacking()) {
        Some(found) => Err(fault(found)),
        None => Ok(()),
    }
}

fn forged(path: &Path, what: &str) -> Error {
    let advice = "use other copies of the recovery volumes, or write lost volumes again with `export --only-volume`";
    let text = "the recovery volumes, or the volumes combined with them, are forged or damaged; nothing was changed";
    let text = format!("making {} again: {what}: {text}: {advice}", path.display());
    Error::damaged(text).with_fact(RecoveryFault::Forged { made: path.to_owned() })
}
