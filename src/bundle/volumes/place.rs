//! The volumes while they are written in place: `NAME.001.tar.partial` and so on, each reserved at its full length, and one
//! journal. Blobs arrive in any order, cut ones across several files.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finished;
use super::format::MOST_VOLUMES;
use super::names::SetName;
use super::plan::{Held, VolumePlan};
use super::sealing::Known;
use super::set::Set;
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Open, Synced};
use crate::base::progress::Events;
use crate::bundle::hashers::Hashers;
use crate::bundle::journal::{Claims, Journal};
use crate::bundle::place::{Extent, Place, Sealing, Slot};
use crate::bundle::{Tool, is_tool, leftovers, stamp};
use crate::content::{Slice, in_parallel};
use crate::oci::{Algorithm, Digest};

/// See the module documentation.
pub struct VolumeFiles {
    set: Set,
    /// The volumes that are written: all, or one.
    open: Vec<OpenVolume>,
    /// The places of each blob, as far as these volumes have them.
    places: HashMap<Digest, Arc<[Extent]>>,
    journal: Journal,
    /// A name in the directory of the set.
    output: Entry,
    /// What the journal of an earlier run says of this very set.
    claims: Claims,
    only: Option<u32>,
}

struct OpenVolume {
    plan: VolumePlan,
    partial: Entry,
    file: Arc<File>,
}

/// Where the journal of a set is, or of the one volume of it that is written.
fn journal_of(set: &Set, only: Option<u32>) -> PathBuf {
    let number = only.map_or_else(|| "volumes".to_owned(), |number| format!("volume-{number}"));
    fsops::beside(set.name.base(), &format!(".{number}.partial.journal"))
}

fn claims_of(set: &Set, only: Option<u32>) -> Option<Claims> {
    // Where there is no directory yet, nothing was begun.
    Claims::read(&Entry::of(&journal_of(set, only)).ok()?)
}

fn is_same(set: &Set, claims: &Claims) -> bool {
    claims.fingerprint == set.plan.fingerprint().to_string()
}

/// Bytes that the file system has given to an unfinished set already.
pub fn reserved(set: &Set, only: Option<u32>) -> u64 {
    if !claims_of(set, only).is_some_and(|claims| is_same(set, &claims)) {
        return 0;
    }
    let blocks = |volume: &VolumePlan| Entry::of(&partial_of(set, volume)).map_or(0, |partial| partial.allocated());
    set.wanted(only).map(blocks).fold(0, u64::saturating_add)
}

/// The blobs that an unfinished set has, by its journal.
pub fn claimed(set: &Set, only: Option<u32>) -> HashSet<Digest> {
    claims_of(set, only).filter(|claims| is_same(set, claims)).map(|claims| claims.done).unwrap_or_default()
}

fn partial_of(set: &Set, volume: &VolumePlan) -> PathBuf {
    fsops::beside(&set.path_of(volume), ".partial")
}

impl VolumeFiles {
    /// Continues the unfinished volumes of the same set, or begins them, in the directory of `output`.
    ///
    /// # Errors
    /// Something else is where they would be; no room, or what else the disk says.
    pub fn create(set: Set, only: Option<u32>, output: &Entry, events: &Events) -> Result<VolumeFiles> {
        let journal_entry = output.sibling(&journal_of(&set, only));
        let volumes: Vec<VolumePlan> = set.wanted(only).cloned().collect();
        for volume in &volumes {
            finished::refuse_foreign(&set.path_of(volume))?;
        }
        let (same, other) = match claims_of(&set, only) {
            Some(claims) if is_same(&set, &claims) => (Some(claims), None),
            other => (None, other),
        };
        let mut open = Vec::new();
        for plan in volumes {
            let named = output.sibling(&set.path_of(&plan));
            let partial = named.beside(".partial");
            if same.is_some() && !partial.exists() && named.exists() {
                // A run that was killed while it gave them their names: what is there is proven like all else.
                named.rename(&partial)?;
            }
            // Nothing of another layout may stay between the files.
            let how = if same.is_none() { Open::Empty } else { Open::Keep };
            let file = Arc::new(partial.open(how)?);
            fsops::reserve(&file, partial.path(), plan.length)?;
            open.push(OpenVolume { plan, partial, file });
        }
        leftovers::tell_lost(set.name.base(), other.map_or(0, |claims| claims.lost(|_| false)), events);
        let places = places(&open, Digest::of_blob_path)?;
        let journal = match &same {
            Some(_) => Journal::resume(&journal_entry)?,
            None => {
                let size = |(digest, extents): (&Digest, &Arc<[Extent]>)| {
                    (*digest, 0, extents.iter().map(|extent| extent.size).sum())
                };
                Journal::begin(&journal_entry, &set.plan.fingerprint().to_string(), places.iter().map(size))?
            }
        };
        let claims = same.unwrap_or_default();
        Ok(VolumeFiles { set, open, places, journal, output: output.clone(), claims, only })
    }

    /// Each is in one volume, or in pieces, like a blob.
    fn pack(&self, tools: &[Tool]) -> Result<()> {
        if tools.is_empty() {
            return Ok(());
        }
        let places = places(&self.open, |path| is_tool(path).then(|| path.to_owned()))?;
        let here = tools.iter().filter_map(|tool| Some((tool, places.get(&tool.path())?)));
        here.into_iter().try_for_each(|(tool, extents)| tool.write_to(&Slot::of(extents.clone(), 0)))
    }

    /// What is known of everything that a volume holds. What is cut is read again: its digests are of the pieces.
    fn known(&self, volume: &OpenVolume, sealing: &Sealing<'_>) -> Result<Vec<Known>> {
        let all: Vec<(&Held, u64)> = volume.plan.files.iter().zip(volume.plan.places()?).collect();
        let known = in_parallel(&all, |(held, at)| {
            let whole = Digest::of_blob_path(&held.path).filter(|digest| {
                // A volume has sha256 sums of all it holds.
                held.cut.is_none() && digest.algorithm() == Algorithm::Sha256
            });
            let whole = whole.and_then(|sha256| Some(Known { sha256, chunks: sealing.chunks.get(&sha256)?.clone() }));
            if let Some(known) = whole {
                return Ok(known);
            }
            let slice = Slice::new(volume.file.clone(), volume.partial.path(), *at, held.size);
            let hashers = Hashers::of_prefix(Algorithm::Sha256, &slice, held.size, &|_| ());
            let hashers = hashers.map_err(|e| Error::disk("reading", volume.partial.path(), e))?;
            Ok(Known { sha256: hashers.digest.finish(), chunks: hashers.chunks.finish() })
        });
        known.into_iter().collect()
    }
}

/// Where the files are that have a `key`.
fn places<K: Eq + Hash>(open: &[OpenVolume], key: impl Fn(&str) -> Option<K>) -> Result<HashMap<K, Arc<[Extent]>>> {
    let mut places: HashMap<K, Vec<Extent>> = HashMap::new();
    for OpenVolume { plan, partial, file } in open {
        let path: Arc<Path> = partial.path().into();
        let tar = plan.tar()?;
        let data: HashMap<&str, u64> = tar.files.iter().map(|file| (file.path.as_str(), file.data)).collect();
        for held in &plan.files {
            let (Some(key), Some(base)) = (key(&held.path), data.get(held.stored_path().as_str())) else {
                continue;
            };
            let first = held.cut.map_or(0, |cut| cut.first);
            let (file, path) = (file.clone(), path.clone());
            places.entry(key).or_default().push(Extent { file, path, base: *base, first, size: held.size });
        }
    }
    Ok(places.into_iter().map(|(key, extents)| (key, extents.into())).collect())
}

impl Place for VolumeFiles {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let Some(extents) = self.places.get(digest) else {
            let name = self.set.name.base().display();
            return Err(Error::input(format!("writing the volumes of {name}: {digest} is not part of them")));
        };
        let is_whole = extents.iter().map(|extent| extent.size).sum::<u64>() == size;
        let part = self.claims.part.get(digest).copied().unwrap_or_default().min(size);
        // Said to be finished, and wanted all the same: it was found wrong. What is elsewhere cannot be proven from here.
        let present = if self.claims.done.contains(digest) || !is_whole { 0 } else { part };
        Ok(Slot::of(extents.clone(), present))
    }

    fn restarted(&self, _: &Slot) -> Result<()> {
        Ok(())
    }

    fn advanced(&self, digest: &Digest, written: u64) -> Result<()> {
        self.journal.part(digest, written)
    }

    fn completed(&self, digest: &Digest) -> Result<()> {
        self.journal.done(digest)
    }

    fn claimed(&self) -> Vec<(Digest, Slice)> {
        let slice = |digest: &Digest| {
            let extents = self.places.get(digest)?;
            let size = extents.iter().map(|extent| extent.size).sum();
            Some((*digest, Slot::of(extents.clone(), 0).slice(size)?))
        };
        self.claims.done.iter().filter_map(slice).collect()
    }

    fn seal(&self, sealing: &Sealing<'_>) -> Result<()> {
        let set = self.set.sealed(sealing);
        self.pack(sealing.tools)?;
        // None gets its name before all are on the medium.
        let mut synced = Vec::new();
        for volume in &self.open {
            let OpenVolume { plan, partial, file } = volume;
            let known = self.known(volume, sealing)?;
            set.seal(plan, (file, partial.path()), &known)?;
            file.set_len(plan.length).map_err(|e| Error::disk("ending", partial.path(), e))?;
            synced.push(Synced::new(file, partial.clone(), self.output.sibling(&set.path_of(plan)))?);
        }
        Synced::publish(synced)?;
        // That it is left cannot harm finished volumes.
        let _ = self.output.sibling(&journal_of(&self.set, self.only)).remove();
        if self.only.is_none() {
            finished::remove_former(&set, &self.output)?;
        }
        for volume in &self.open {
            let path = set.path_of(&volume.plan);
            if let Some(state) = stamp::State::of(&path) {
                state.mark(&path);
            }
        }
        self.output.dir().sync()
    }
}

/// The volumes of this name that are there, in order.
pub fn there(name: &SetName) -> Vec<PathBuf> {
    beside(name, |path| path.to_owned())
}

/// What runs have left that did not come to their end.
pub fn unfinished(name: &SetName) -> Vec<PathBuf> {
    let volumes = beside(name, |path| if is_partial(path) { path.with_extension("") } else { PathBuf::new() });
    let journals =
        [".volumes".to_owned()].into_iter().chain((1..=MOST_VOLUMES).map(|number| format!(".volume-{number}")));
    let journals = journals.map(|middle| fsops::beside(name.base(), &format!("{middle}.partial.journal")));
    volumes.into_iter().chain(journals.filter(|path| path.exists())).collect()
}

fn is_partial(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "partial")
}

/// Files beside it that are parts of the set, if they are called what `called` makes of their names; in order.
fn beside(name: &SetName, called: impl Fn(&Path) -> PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(fsops::parent(name.base())).into_iter().flatten().flatten();
    // As the set itself calls them: without `./` where no directory was named.
    let paths = entries.map(|entry| name.base().with_file_name(entry.file_name()));
    let is_part = |path: &PathBuf| {
        let found = SetName::of_part(&called(path));
        found.is_some_and(|(found, _)| found.base().file_name() == name.base().file_name())
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_part).collect();
    paths.sort();
    paths
}
