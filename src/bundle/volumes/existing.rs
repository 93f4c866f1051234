//! Whether a volume exists already as it would be written, and which files a volume may replace.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::format::{MAX_VOLUME_JSON, RecoveryJson, VolumeJson};
use super::layout::{Cut, Held, HeldDigests, VolumePlan};
use super::names::{Part, SetName};
use super::set::{Set, VolumeSelection};
use super::unfinished::{self, PARTIAL, journals, partials};
use super::volume_metadata::Small;
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::tar_plan::PlannedFile;
use crate::bundle::{VOLUMES, is_signature, stamp};
use crate::content::Slice;
use crate::content::proof::{Hashing, prove};
use crate::files::Layout;
use crate::oci::{Algorithm, Digest};

/// A volume with every byte right, and how that is known.
struct WholeVolume<'s> {
    plan: &'s VolumePlan,
    layout: Layout,
    /// Its state before it was hashed now; `None` if it was hashed earlier on this machine and not modified since.
    hashed: Option<stamp::FilesStamp>,
}

/// The numbers of the selected volumes that exist unchanged, with every byte right.
pub fn whole(set: &Set, selection: &VolumeSelection, events: &Events) -> BTreeSet<u32> {
    let there = |plan| {
        let layout = Layout::open(&set.path_of(plan)).ok().filter(|layout| is_same(set, plan, layout))?;
        let state = stamp::FilesStamp::of(layout.path())?;
        let is_marked = stamp::is_proven(layout.path());
        let is_proven = is_marked || is_proven(set, plan, &layout, events);
        is_proven.then_some(WholeVolume { plan, layout, hashed: (!is_marked).then_some(state) })
    };
    let there: Vec<WholeVolume<'_>> = set.wanted(selection).filter_map(there).collect();
    let wrong = wrong_cut(set, &there);
    let is_right = |volume: &&WholeVolume<'_>| !volume.plan.files.iter().any(|held| wrong.contains(&*held.path));
    let right = there.iter().filter(is_right);
    let mark = |volume: &WholeVolume<'_>| {
        volume.hashed.iter().for_each(|state| state.mark(volume.layout.path()));
        volume.plan.number
    };
    right.map(mark).collect()
}

/// Cut files with a piece in a volume that was hashed now, whose pieces all exist, and which do not match their declared
/// digest.
fn wrong_cut<'s>(set: &Set, there: &'s [WholeVolume<'_>]) -> HashSet<&'s str> {
    let mut pieces: BTreeMap<&str, Vec<(Cut, &Layout, &Held)>> = BTreeMap::new();
    let mut hashed: HashSet<&str> = HashSet::new();
    for volume in there {
        for (held, cut) in volume.plan.files.iter().filter_map(|held| Some((held, held.cut?))) {
            pieces.entry(&held.path).or_default().push((cut, &volume.layout, held));
            hashed.extend(volume.hashed.as_ref().map(|_| &*held.path));
        }
    }
    let is_wrong = |path: &str, pieces: &[(Cut, &Layout, &Held)]| {
        let slice = |(_, layout, held): &(Cut, &Layout, &Held)| layout.slice(&held.stored_path()).ok().flatten();
        let whole = pieces.first().is_some_and(|(cut, ..)| cut.of as usize == pieces.len());
        let slices = pieces.iter().filter(|_| whole).map(slice).collect::<Option<Vec<Slice>>>();
        let joined = slices.and_then(Slice::joined);
        let (Some(joined), Some(digest)) = (joined, set.declared(path)) else { return false };
        prove(&joined, &digest, &|_| ()).is_err()
    };
    let wrong = pieces.into_iter().filter(|(path, pieces)| hashed.contains(path) && is_wrong(path, pieces));
    wrong.map(|(path, _)| path).collect()
}

/// The selected volumes that do not even seem to exist; their content is not read.
pub fn lacking<'s>(set: &'s Set, selection: &'s VolumeSelection) -> Vec<&'s VolumePlan> {
    let seems_whole =
        |volume: &VolumePlan| Layout::open(&set.path_of(volume)).is_ok_and(|layout| is_same(set, volume, &layout));
    set.wanted(selection).filter(|volume| !seems_whole(volume)).collect()
}

/// Which files volumes may replace.
#[derive(Clone, Debug, Default)]
pub enum Replaceable {
    /// Volumes of any set, including damaged ones and the remains of one that was cut short.
    #[default]
    Volumes,
    /// Only these, whatever is left in them.
    Only(Vec<KnownVolume>),
}

/// A file that is known to be a volume of the set that is written.
#[derive(Clone, Debug)]
pub struct KnownVolume {
    pub part: Part,
    pub path: PathBuf,
}

impl Replaceable {
    /// Rejects a `path` for the volume `part` if that would replace something else.
    ///
    /// # Errors
    /// What has this name, or the name of the unfinished volume, must not be replaced.
    pub fn check(&self, part: Part, path: &Path) -> Result<()> {
        fsops::refuse_other_than_file(&fsops::beside(path, PARTIAL))?;
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let is_itself = |known: &KnownVolume| known.part == part && is_same_file(&known.path, path);
        let text = match self {
            Replaceable::Volumes if is_volume_at(path) => return Ok(()),
            Replaceable::Volumes => {
                "it exists and is not a volume of a bundle, so it is not overwritten; name another output, or move it \
                 away"
            }
            Replaceable::Only(known) if known.iter().any(is_itself) => return Ok(()),
            Replaceable::Only(_) => {
                "it exists and may not be this volume, so it is not overwritten; if it is, name it too; otherwise \
                 move it away, or name a directory with -o"
            }
        };
        Err(Error::input(format!("writing {}: {text}", path.display())))
    }
}

/// Whether both paths lead to the same file.
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Whether a volume or the remains of one exist there.
fn is_volume_at(path: &Path) -> bool {
    Layout::open(path).is_ok_and(|layout| is_volume(&layout)) || begins_as_volume(path)
}

/// Whether it is the remains of a volume that was cut short, perhaps nothing: a volume starts with its own description.
fn begins_as_volume(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = fsops::open_plain(path).and_then(|file| file.take(VOLUMES.len() as u64).read_to_end(&mut begin));
    read.is_ok() && VOLUMES.as_bytes().starts_with(&begin)
}

/// Removes volumes of other sets with this name, now that a complete set has it: of a larger one, or of one with other
/// recovery volumes; and what unfinished runs have left. `output` is a name in the directory of the set.
///
/// # Errors
/// The disk fails.
pub fn remove_former(set: &Set, output: &Entry) -> Result<()> {
    for path in partials(&set.name).into_iter().chain(journals(&set.name)) {
        output.sibling(&path).remove()?;
    }
    for path in volumes_of(&set.name) {
        let Some((_, part)) = SetName::of_part(&path) else { continue };
        let Some(layout) = Layout::open(&path).ok().filter(is_volume) else { continue };
        let is_part = match part {
            Part::Volume(number) => {
                set.volume(number).is_some_and(|volume| set.path_of(volume).file_name() == path.file_name())
            }
            Part::Recovery(number) => {
                number <= set.plan.recovery && of(&layout, part).is_some_and(|identity| identity == set.identity)
            }
        };
        if !is_part {
            output.sibling(&path).remove()?;
        }
    }
    Ok(())
}

/// The identity of the bundle of a recovery volume.
fn of(layout: &Layout, part: Part) -> Option<Digest> {
    let names: Vec<String> = layout.entries().map(|(path, _)| path.to_owned()).collect();
    let path = names.iter().find(|path| path.ends_with(".json"))?;
    let bytes = layout.read(path, MAX_VOLUME_JSON).ok()??;
    let json = RecoveryJson::parse(&bytes, path).ok()?;
    (Part::Recovery(json.number) == part).then_some(json.identity)
}

/// Whether it describes itself as a volume; damaged ones may be written again too.
fn is_volume(layout: &Layout) -> bool {
    layout.entries().any(|(path, _)| path.starts_with(VOLUMES))
}

/// Whether its size, entries and description are the same, without digests.
fn is_same(set: &Set, volume: &VolumePlan, layout: &Layout) -> bool {
    let path = Part::Volume(volume.number).json(volume.of);
    let Ok(Some(bytes)) = layout.read(&path, MAX_VOLUME_JSON) else { return false };
    let Ok(json) = VolumeJson::parse(&bytes, &path, layout.entries().count()) else { return false };
    let VolumeJson { identity, number, of, recovery, limit, files, .. } = json;
    let Ok(tar) = volume.tar() else { return false };
    let planned = (volume.number, volume.of, set.plan.recovery, set.plan.limit);
    let stored: Vec<String> = files.iter().map(|file| file.stored_path()).collect();
    let is_placed = |file: &PlannedFile| {
        let found = layout.slice(&file.path).ok().flatten();
        found
            .is_some_and(|slice| slice.offset() == file.data && (slice.size() == file.size || is_signature(&file.path)))
    };
    layout.problems().is_empty()
        && layout.path().metadata().is_ok_and(|there| there.len() == volume.length)
        && (number, of, recovery, limit) == planned
        && identity == set.identity
        && stored == volume.files.iter().map(|held| held.stored_path()).collect::<Vec<_>>()
        && layout.entries().count() == tar.files.len()
        && tar.files.iter().all(is_placed)
        && set.has_common(layout)
}

/// Hashes its content, which determines what its description must be.
fn is_proven(set: &Set, volume: &VolumePlan, layout: &Layout, events: &Events) -> bool {
    let bytes = volume.files.iter().map(|held| held.size).fold(0, u64::saturating_add);
    events.report(Event::Phase { phase: Phase::Recheck, items: volume.files.len() as u64, bytes });
    let hashed =
        volume.files.iter().map(|held| hashed(set, held, layout, events)).collect::<Option<Vec<HeldDigests>>>();
    let Some(own) = hashed.and_then(|known| set.own_files(volume, &known).ok()) else { return false };
    let is_there =
        |(path, bytes): &Small| matches!(layout.read(path, bytes.len() as u64), Ok(Some(there)) if there == bytes[..]);
    own.iter().all(is_there)
}

/// Returns `None` if it cannot be read or is not what the bundle declares.
fn hashed(set: &Set, held: &Held, layout: &Layout, events: &Events) -> Option<HeldDigests> {
    let path = held.stored_path();
    let slice = layout.slice(&path).ok()??;
    let shown = Digest::sha256(path.as_bytes());
    events.report(Event::BlobStarted { digest: shown, size: held.size, present: 0 });
    let progress = |bytes| events.report(Event::BlobAdvanced { digest: shown, bytes });
    let hashing = Hashing::of_prefix(Algorithm::Sha256, &slice, held.size, &progress).ok()?;
    events.report(Event::BlobFinished { digest: shown });
    events.report(Event::ItemDone);
    // All pieces of a cut file are proven together.
    let declared = set.declared(&held.path).filter(|_| held.cut.is_none());
    match declared {
        Some(sha256) if sha256.algorithm() == Algorithm::Sha256 => {
            Some(HeldDigests { sha256, chunks: hashing.finish(&sha256).ok()? })
        }
        Some(digest) if prove(&slice, &digest, &|_| ()).is_err() => None,
        None if held.cut.is_none() => None,
        _ => Some(HeldDigests { sha256: hashing.digest.finish(), chunks: hashing.chunks.finish() }),
    }
}

/// The existing volumes with this name, in order.
pub fn volumes_of(name: &SetName) -> Vec<PathBuf> {
    unfinished::files(name, |path| name.has_part(path))
}
