//! Writes volumes in place: `NAME.001.tar.partial` and so on, each reserved at its full size, and a journal of the selected
//! ones. Blobs arrive in any order, and cut ones span several files. A volume that is already complete is kept, and its pieces
//! of cut blobs count.
//!
//! Runs that write other volumes of the same set share its unfinished volumes, so all journals of a set have the same layout:
//! a run that starts another layout removes them before it writes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;

use super::existing::{self, Replaceable};
use super::layout::HeldDigests;
use super::layout::{Held, VolumePlan};
use super::names::Part;
use super::partial::{PartialVolume, publish};
use super::recovery::check_replaceable;
use super::set::{Set, VolumeSelection};
use super::unfinished::{journal_of, journals, partial_of, remove_orphaned_journals};
use crate::base::error::{Error, Result};
use crate::base::fsops::{Entry, Occupant, Open};
use crate::base::progress::Events;
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::journal::{Claims, Journal};
use crate::bundle::output::{ClaimedBlob, Extent, Linking, Placement, Resuming, Slot, WantedBlob, report_lost};
use crate::bundle::{Tool, is_tool, stamp};
use crate::content::chunks::Chunks;
use crate::content::proof::Hashing;
use crate::content::{Slice, in_parallel};
use crate::oci::{Algorithm, Digest};

/// See the module documentation.
pub struct VolumesOutput {
    set: Set,
    /// The selected volumes.
    open: Vec<OpenVolume>,
    /// The places of each blob, as far as they are in these volumes.
    places: HashMap<Digest, Arc<[Extent]>>,
    journal: Journal,
    /// A name in the directory of the set.
    output: Entry,
    /// What the journal of an earlier run says about this very set.
    claims: Claims,
    selection: VolumeSelection,
}

struct OpenVolume {
    plan: VolumePlan,
    file: OpenFile,
}

enum OpenFile {
    /// It existed and is right.
    Whole(Arc<File>, Entry),
    Partial(PartialVolume),
}

impl OpenVolume {
    fn file(&self) -> (&Arc<File>, &Entry) {
        match &self.file {
            OpenFile::Whole(file, entry) => (file, entry),
            OpenFile::Partial(PartialVolume { file, entry, .. }) => (file, entry),
        }
    }

    fn partial(&self) -> Option<&PartialVolume> {
        match &self.file {
            OpenFile::Whole(..) => None,
            OpenFile::Partial(partial) => Some(partial),
        }
    }
}

fn claims_of(set: &Set, selection: &VolumeSelection) -> Option<Claims> {
    // If the directory does not exist, nothing was started.
    Claims::read(&Entry::of(&journal_of(&set.name, selection)).ok()?)
}

fn is_same(set: &Set, claims: &Claims) -> bool {
    claims.fingerprint == Some(set.plan.fingerprint())
}

/// What unfinished runs have left.
struct Begun {
    /// Whether some volumes of this very set were started.
    is_begun: bool,
    /// Bytes of another set.
    lost: u64,
}

/// Removes the journals of other layouts, which will no longer be true.
fn void_others(set: &Set, output: &Entry) -> Result<Begun> {
    let mut begun = Begun { is_begun: false, lost: 0 };
    for journal in journals(&set.name) {
        let journal = output.sibling(&journal);
        match Claims::read(&journal) {
            Some(claims) if is_same(set, &claims) => begun.is_begun = true,
            other => {
                let lost = other.map_or(0, |claims| claims.lost(|_| false));
                begun.lost = begun.lost.saturating_add(lost);
                journal.remove()?;
            }
        }
    }
    Ok(begun)
}

/// Bytes that are already allocated for an unfinished set.
pub fn reserved(set: &Set, selection: &VolumeSelection) -> u64 {
    if !claims_of(set, selection).is_some_and(|claims| is_same(set, &claims)) {
        return 0;
    }
    let blocks = |volume: &VolumePlan| Entry::of(&partial_of(set, volume)).map_or(0, |partial| partial.allocated());
    set.wanted(selection).map(blocks).fold(0, u64::saturating_add)
}

/// The blobs of an unfinished set, according to its journal.
pub fn claimed(set: &Set, selection: &VolumeSelection) -> HashSet<Digest> {
    claims_of(set, selection).filter(|claims| is_same(set, claims)).map(|claims| claims.done).unwrap_or_default()
}

impl VolumesOutput {
    /// Continues or starts the volumes of the set in the directory of `output`. Those with the numbers `whole` exist and are
    /// right.
    ///
    /// # Errors
    /// Something in their places is not `replaceable`, or the disk is full or fails.
    pub fn create(
        set: Set,
        selection: VolumeSelection,
        whole: &BTreeSet<u32>,
        replaceable: &Replaceable,
        output: &Entry,
        events: &Events,
    ) -> Result<VolumesOutput> {
        let journal_entry = output.sibling(&journal_of(&set.name, &selection));
        // Recorded first, so that what is checked is what may be replaced at the end.
        let former = |volume: &VolumePlan| output.sibling(&set.path_of(volume)).occupant();
        let volumes = set.wanted(&selection).map(|volume| (volume.clone(), former(volume)));
        let volumes: Vec<(VolumePlan, Occupant)> = volumes.collect();
        for (volume, _) in volumes.iter().filter(|(volume, _)| !whole.contains(&volume.number)) {
            replaceable.check(Part::Volume(volume.number), &set.path_of(volume))?;
        }
        if selection.is_all() {
            check_replaceable(&set.name, set.plan.recovery)?;
        }
        let same = claims_of(&set, &selection).filter(|claims| is_same(&set, claims));
        let Begun { is_begun, lost } = void_others(&set, output)?;
        let mut open = Vec::new();
        for (plan, former) in volumes {
            let named = output.sibling(&set.path_of(&plan));
            if whole.contains(&plan.number) {
                let file = OpenFile::Whole(Arc::new(named.open(Open::Read)?), named);
                open.push(OpenVolume { plan, file });
                continue;
            }
            let how = if is_begun { Open::Keep } else { Open::Empty };
            let partial = PartialVolume::open(named, former, how)?;
            partial.reserve(plan.length)?;
            open.push(OpenVolume { plan, file: OpenFile::Partial(partial) });
        }
        report_lost(set.name.base(), lost, events);
        let places = places(&open, Digest::of_blob_path)?;
        let journal = match &same {
            Some(_) => Journal::resume(&journal_entry)?,
            None => {
                let size = |(digest, extents): (&Digest, &Arc<[Extent]>)| {
                    (*digest, 0, extents.iter().map(|extent| extent.size).sum())
                };
                Journal::begin(&journal_entry, set.plan.fingerprint(), places.iter().map(size))?
            }
        };
        let claims = same.unwrap_or_default();
        Ok(VolumesOutput { set, open, places, journal, output: output.clone(), claims, selection })
    }

    /// Blobs of which nothing is in a volume that is written.
    pub fn elsewhere(&self, files: &FileSet) -> HashSet<Digest> {
        let is_here = |digest: &Digest| {
            self.places.get(digest).is_some_and(|extents| extents.iter().any(|extent| !extent.is_whole))
        };
        files.blobs.iter().map(|blob| blob.digest).filter(|digest| !is_here(digest)).collect()
    }

    /// Each tool is in one volume, or in pieces like a blob.
    fn pack(&self, tools: &[Tool]) -> Result<()> {
        if tools.is_empty() {
            return Ok(());
        }
        let places = places(&self.open, |path| is_tool(path).then(|| path.to_owned()))?;
        let here = tools.iter().filter_map(|tool| Some((tool, places.get(&tool.path())?)));
        let mut here = here.filter(|(_, extents)| extents.iter().any(|extent| !extent.is_whole));
        here.try_for_each(|(tool, extents)| {
            let slot = Slot::of(extents.clone(), 0);
            tool.copy(&mut |piece, at| slot.write_all_at(piece, at))
        })
    }

    /// What is known about everything in a volume. Cut files are read again, because their digests are those of their pieces.
    fn known(&self, volume: &OpenVolume, chunks: &HashMap<Digest, Chunks>) -> Result<Vec<HeldDigests>> {
        let (file, entry) = volume.file();
        let all: Vec<(&Held, u64)> = volume.plan.files.iter().zip(volume.plan.places()?).collect();
        let known = in_parallel(&all, |(held, at)| {
            let whole = Digest::of_blob_path(&held.path).filter(|digest| {
                // A volume has sha256 sums of all its content.
                held.cut.is_none() && digest.algorithm() == Algorithm::Sha256
            });
            let whole = whole.and_then(|sha256| Some(HeldDigests { sha256, chunks: chunks.get(&sha256)?.clone() }));
            if let Some(known) = whole {
                return Ok(known);
            }
            let slice = Slice::new(file.clone(), entry.path(), *at, held.size);
            let hashing = Hashing::of_prefix(Algorithm::Sha256, &slice, held.size, &|_| ());
            let hashing = hashing.map_err(|e| Error::disk("reading", entry.path(), e))?;
            Ok(HeldDigests { sha256: hashing.digest.finish(), chunks: hashing.chunks.finish() })
        });
        known.into_iter().collect()
    }
}

/// The places of the files that have a `key`.
fn places<K: Eq + Hash>(open: &[OpenVolume], key: impl Fn(&str) -> Option<K>) -> Result<HashMap<K, Arc<[Extent]>>> {
    let mut places: HashMap<K, Vec<Extent>> = HashMap::new();
    for volume in open {
        let (plan, (file, entry), is_whole) = (&volume.plan, volume.file(), volume.partial().is_none());
        let path: Arc<Path> = entry.path().into();
        let tar = plan.tar()?;
        let data: HashMap<&str, u64> = tar.files.iter().map(|file| (file.path.as_str(), file.data)).collect();
        for held in &plan.files {
            let (Some(key), Some(base)) = (key(&held.path), data.get(held.stored_path().as_str())) else {
                continue;
            };
            let first = held.cut.map_or(0, |cut| cut.first);
            let (file, path) = (file.clone(), path.clone());
            places.entry(key).or_default().push(Extent { file, path, base: *base, first, size: held.size, is_whole });
        }
    }
    Ok(places.into_iter().map(|(key, extents)| (key, extents.into())).collect())
}

impl Placement for VolumesOutput {
    fn slot(&self, digest: &Digest, size: u64) -> Result<Slot> {
        let Some(extents) = self.places.get(digest) else {
            let name = self.set.name.base().display();
            return Err(Error::input(format!("writing the volumes of {name}: {digest} does not belong to them")));
        };
        let is_whole = extents.iter().map(|extent| extent.size).sum::<u64>() == size;
        let part = self.claims.part.get(digest).copied().unwrap_or_default().min(size);
        // A blob that is called complete and still wanted was found to be wrong. What is elsewhere cannot be proven from here.
        let present = if self.claims.done.contains(digest) || !is_whole { 0 } else { part };
        Ok(Slot::of(extents.clone(), present))
    }

    fn restarted(&self, digest: &Digest, _: &Slot) -> Result<()> {
        self.journal.part(digest, 0)
    }

    fn completed(&self, digest: &Digest) -> Result<()> {
        self.journal.done(digest)
    }

    fn linking(&self) -> Option<&dyn Linking> {
        None
    }

    fn resuming(&self) -> Option<&dyn Resuming> {
        Some(self)
    }

    fn seal(&self, files: &FileSet, _: &[KnownFile], chunks: &HashMap<Digest, Chunks>) -> Result<()> {
        self.pack(&files.tools)?;
        let written = || self.open.iter().filter_map(|volume| Some((volume, volume.partial()?)));
        // No volume gets its name before all are synced.
        let mut synced = Vec::new();
        for (volume, partial) in written() {
            let known = self.known(volume, chunks)?;
            self.set.seal(&volume.plan, &partial.file, partial.entry.path(), &known)?;
            synced.push(partial.sync()?);
        }
        publish(synced)?;
        // A journal that stays does not harm finished volumes.
        let _ = self.output.sibling(&journal_of(&self.set.name, &self.selection)).remove();
        match self.selection.is_all() {
            true => existing::remove_former(&self.set, &self.output)?,
            false => remove_orphaned_journals(&self.set.name),
        }
        for (volume, _) in written() {
            let path = self.set.path_of(&volume.plan);
            if let Some(state) = stamp::FilesStamp::of(&path) {
                state.mark(&path);
            }
        }
        self.output.dir().sync()
    }
}

impl Resuming for VolumesOutput {
    fn claims(&self, wanted: &HashMap<Digest, u64>) -> Result<Vec<ClaimedBlob<'_>>> {
        let done = self.claims.done.iter().filter(|digest| wanted.contains_key(digest));
        let claim = |digest: &Digest| {
            let extents = self.places.get(digest)?;
            let size = extents.iter().map(|extent| extent.size).sum();
            let slice = Slot::of(extents.clone(), 0).slice(size)?;
            let blob = WantedBlob { digest: *digest, size };
            Some(ClaimedBlob { blob, in_place: true, open: Box::new(move || Ok(slice.clone())) })
        };
        Ok(done.filter_map(claim).collect())
    }

    fn journal(&self) -> Option<&Journal> {
        Some(&self.journal)
    }

    fn refute(&self, digest: &Digest) -> Result<()> {
        self.journal.part(digest, 0)
    }

    fn adopted(&self, _: &HashMap<Digest, Chunks>, _: &Events) {}
}
