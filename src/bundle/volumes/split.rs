//! A bundle that is there, written again as volumes.
//!
//! # Threats
//! The bundle may be damaged, or change while it is read: every file is proven by what `bundle.json` says of it while it is
//! copied, and no volume gets its name before all the files that begin, go on or end in it are proven.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::finished::{is_whole, remove_former};
use super::names::SetName;
use super::plan::{Held, VolumePlan};
use super::recovery::RecoveryOf;
use super::sealing::Known;
use super::set::{Set, Shape};
use crate::base::error::{Error, Result};
use crate::base::fsops::{self, Entry, Open, Synced, WriteLock};
use crate::base::progress::units::bytes;
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::{Bundle, stamp};
use crate::content::Slice;
use crate::content::chunks::ChunkHasher;
use crate::files::Layout;
use crate::oci::{Algorithm, Digest, Hasher};

/// How much is copied at a time, in bytes.
const PIECE: usize = 1024 * 1024;

/// A bundle and the volumes it is to become.
pub struct Split {
    layout: Layout,
    created: Timestamp,
    set: Set,
    /// What each file has to be whose name does not say it.
    digests: HashMap<String, Digest>,
}

/// A volume that has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenVolume {
    pub path: PathBuf,
    /// From 1 on.
    pub number: u32,
    /// In bytes.
    pub size: u64,
    /// It was there already, the same.
    pub unchanged: bool,
}

impl WrittenVolume {
    /// As it is printed.
    pub fn to_json(&self) -> serde_json::Value {
        let WrittenVolume { path, number, size, unchanged } = self;
        serde_json::json!({ "volume": path, "number": number, "bytes": size, "unchanged": unchanged })
    }
}

impl Split {
    /// Plans the volumes of `bundle`, which has these `manifests`, as `out` with a number in its name; nothing is written.
    ///
    /// # Errors
    /// The bundle is damaged so far that it can be seen without reading all of it; volumes that would be too small or too
    /// many.
    pub fn new(bundle: Bundle, manifests: &HashSet<Digest>, out: &Path, shape: Shape) -> Result<Split> {
        if !bundle.layout().faults().is_empty() || !bundle.sums_agree() || !bundle.sizes_agree() {
            let path = bundle.layout().path().display();
            let text = format!("{path} is damaged, so it is not split; `gapferry verify` says where");
            return Err(Error::damaged(text));
        }
        let set = Set::of_bundle(&bundle, manifests, SetName::of(out), shape)?;
        Ok(Split::of_set(bundle, set))
    }

    /// Of a bundle of which only what is written has to be there.
    pub(super) fn of_set(bundle: Bundle, set: Set) -> Split {
        let others = bundle.files().iter().filter(|file| !file.path.starts_with("blobs/"));
        let digests = others.map(|file| (file.path.clone(), file.digest)).collect();
        let created = bundle.lock().created;
        // What is said of each file is not needed any more.
        let (_, layout) = bundle.into_lock_and_layout();
        Split { layout, created, set, digests }
    }

    /// # Errors
    /// The path is that of no file of the bundle.
    fn digest_of(&self, path: &str) -> Result<Digest> {
        let unknown = || Error::damaged(format!("reading {}: {path} is not declared", self.layout.path().display()));
        self.digests.get(path).copied().or_else(|| Digest::of_blob_path(path)).ok_or_else(unknown)
    }

    /// Of which set recovery volumes are made.
    pub fn recovery(&self) -> RecoveryOf {
        let Set { identity, plan, .. } = &self.set;
        let volumes = u32::try_from(plan.volumes.len()).unwrap_or(u32::MAX);
        let created = self.created;
        RecoveryOf { identity: *identity, created, limit: plan.limit, volumes, recovery: plan.recovery }
    }

    /// What is to be written.
    pub fn set(&self) -> &Set {
        &self.set
    }

    /// Writes the volumes, or only the one with this number. What is there already and whole stays as it is.
    ///
    /// # Errors
    /// A file of the bundle is not what `bundle.json` says; something is in the way; no room, or what else the disk says.
    pub fn run(&self, only: Option<u32>, events: &Events) -> Result<Vec<WrittenVolume>> {
        self.set.check_number(only)?;
        self.write(self.set.wanted(only).collect(), only.is_none(), events)
    }

    /// The same for the volumes with these numbers.
    pub(super) fn write_only(&self, numbers: &[u32], events: &Events) -> Result<Vec<WrittenVolume>> {
        self.write(self.set.wanted(None).filter(|volume| numbers.contains(&volume.number)).collect(), false, events)
    }

    fn write(&self, volumes: Vec<&VolumePlan>, is_all: bool, events: &Events) -> Result<Vec<WrittenVolume>> {
        let whole = self.set.name.whole();
        let parent = fsops::parent(&whole);
        fs::create_dir_all(parent).map_err(|e| Error::disk("creating", parent, e))?;
        let lock = WriteLock::take(&whole)?;
        let mut unchanged = HashSet::new();
        for volume in &volumes {
            if is_whole(&self.set, volume, events)? {
                unchanged.insert(volume.number);
            }
        }
        let new: Vec<&VolumePlan> =
            volumes.iter().filter(|volume| !unchanged.contains(&volume.number)).copied().collect();
        self.check_room(&new, is_all)?;
        let bytes = new.iter().flat_map(|volume| &volume.files).map(|held| held.size).fold(0, u64::saturating_add);
        events.report(Event::Phase { phase: Phase::Transfer, items: new.len() as u64, bytes });
        let mut copying =
            Copying { split: self, output: lock.output(), events, proving: HashMap::new(), unnamed: Vec::new() };
        for volume in new {
            copying.write(volume)?;
            events.report(Event::ItemDone);
        }
        copying.finish()?;
        if is_all {
            remove_former(&self.set, lock.output())?;
        }
        let written = |volume: &&VolumePlan| WrittenVolume {
            path: self.set.path_of(volume),
            number: volume.number,
            size: volume.length,
            unchanged: unchanged.contains(&volume.number),
        };
        Ok(volumes.iter().map(written).collect())
    }

    fn check_room(&self, new: &[&VolumePlan], is_all: bool) -> Result<()> {
        let whole = self.set.name.whole();
        let parent = fsops::parent(&whole);
        let left = |volume: &&VolumePlan| {
            // What an earlier run has left there is written over.
            let partial = fsops::beside(&self.set.path_of(volume), ".partial");
            partial.metadata().map_or(0, |there| there.len()).min(volume.length)
        };
        let needed = new.iter().map(|volume| volume.length - left(volume)).fold(0, u64::saturating_add);
        let recovery = if is_all { self.set.recovery_room(new.is_empty())? } else { 0 };
        let needed = needed.saturating_add(recovery);
        let free = fsops::free_space(parent)?;
        if needed <= free {
            return Ok(());
        }
        let (parent, needed, free) = (parent.display(), bytes(needed), bytes(free));
        let text =
            format!("writing the volumes of {}: they need {needed} more, {parent} has {free} left", whole.display());
        Err(Error::disk_full(text))
    }

    fn slice(&self, path: &str) -> Result<Slice> {
        let gone = || Error::damaged(format!("reading {}: {path} is missing", self.layout.path().display()));
        self.layout.slice(path)?.ok_or_else(gone)
    }
}

/// Volumes that are being written.
struct Copying<'a> {
    split: &'a Split,
    /// A name in the directory of the set.
    output: &'a Entry,
    events: &'a Events,
    /// Files that are cut, as far as they were read.
    proving: HashMap<String, Proving>,
    /// Volumes that are whole but for a proof, with the paths that they will have.
    unnamed: Vec<(Synced, PathBuf)>,
}

/// A file that is cut, hashed up to some byte.
struct Proving {
    hasher: Hasher,
    at: u64,
}

impl Copying<'_> {
    fn write(&mut self, volume: &VolumePlan) -> Result<()> {
        let set = &self.split.set;
        let path = set.path_of(volume);
        let named = self.output.sibling(&path);
        let partial = named.beside(".partial");
        let file = partial.open(Open::Empty)?;
        fsops::reserve(&file, partial.path(), volume.length)?;
        let mut known = Vec::with_capacity(volume.files.len());
        for (held, at) in volume.files.iter().zip(volume.places()?) {
            known.push(self.copy(held, (&file, partial.path()), at)?);
        }
        set.seal(volume, (&file, partial.path()), &known)?;
        self.unnamed.push((Synced::new(&file, partial, named)?, path));
        if self.proving.is_empty() { self.name() } else { Ok(()) }
    }

    /// Copies what a volume holds of a file, to byte `at` of `file`.
    fn copy(&mut self, held: &Held, (file, shown): (&File, &Path), at: u64) -> Result<Known> {
        let slice = self.split.slice(&held.path)?;
        let first = held.cut.map_or(0, |cut| cut.first);
        let digest = self.split.digest_of(&held.path)?;
        self.events.report(Event::BlobStarted { digest, size: held.size, present: 0 });
        if held.cut.is_some() {
            self.catch_up((&held.path, digest), &slice, first)?;
        }
        let is_long = held.cut.is_none() && digest.algorithm() != Algorithm::Sha256;
        let mut long = is_long.then(|| Hasher::new(digest.algorithm()));
        let (mut sha256, mut chunks) = (Hasher::new(Algorithm::Sha256), ChunkHasher::new());
        let whole = self.proving.get_mut(&held.path);
        let mut whole = whole.map(|proving| &mut proving.hasher);
        read(&slice, first, held.size, |piece, done| {
            file.write_all_at(piece, at + done).map_err(|e| Error::disk("writing", shown, e))?;
            sha256.update(piece);
            chunks.update(piece);
            long.iter_mut().for_each(|long| long.update(piece));
            if let Some(whole) = &mut whole {
                whole.update(piece);
            }
            self.events.report(Event::BlobAdvanced { digest, bytes: piece.len() as u64 });
            Ok(())
        })?;
        fsops::begin_writing_out(file, at, held.size);
        self.events.report(Event::BlobFinished { digest });
        let known = Known { sha256: sha256.finish(), chunks: chunks.finish() };
        match held.cut {
            None => hold(&slice, digest, long.map_or(known.sha256, Hasher::finish))?,
            Some(cut) => {
                if let Some(proving) = self.proving.get_mut(&held.path) {
                    proving.at = first + held.size;
                }
                if cut.number == cut.of {
                    self.conclude((&held.path, digest), &slice)?;
                }
            }
        }
        Ok(known)
    }

    /// Hashes what other volumes hold of a cut file, up to byte `to`.
    fn catch_up(&mut self, (path, digest): (&str, Digest), slice: &Slice, to: u64) -> Result<()> {
        let begun = || Proving { hasher: Hasher::new(digest.algorithm()), at: 0 };
        let proving = self.proving.entry(path.to_owned()).or_insert_with(begun);
        let Proving { hasher, at } = proving;
        read(slice, *at, to.saturating_sub(*at), |piece, _| {
            hasher.update(piece);
            Ok(())
        })?;
        *at = to.max(*at);
        Ok(())
    }

    /// A cut file is proven to its end.
    fn conclude(&mut self, (path, digest): (&str, Digest), slice: &Slice) -> Result<()> {
        self.catch_up((path, digest), slice, slice.size())?;
        let Some(proving) = self.proving.remove(path) else { return Ok(()) };
        hold(slice, digest, proving.hasher.finish())
    }

    /// Gives the volumes their names.
    fn name(&mut self) -> Result<()> {
        for (synced, path) in self.unnamed.drain(..) {
            Synced::publish([synced])?;
            if let Some(state) = stamp::State::of(&path) {
                state.mark(&path);
            }
        }
        Ok(())
    }

    /// Proves what was begun and goes on in volumes that are not written.
    fn finish(mut self) -> Result<()> {
        let open: Vec<String> = self.proving.keys().cloned().collect();
        for path in open {
            let slice = self.split.slice(&path)?;
            self.conclude((&path, self.split.digest_of(&path)?), &slice)?;
        }
        self.name()
    }
}

/// # Errors
/// It is not what it was declared to be.
fn hold(slice: &Slice, digest: Digest, found: Digest) -> Result<()> {
    if found == digest { Ok(()) } else { Err(slice.wrong(found)) }
}

/// Hands out `length` bytes from `first` on, each time with how many went before.
fn read(slice: &Slice, first: u64, length: u64, mut take: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
        let read = slice.read_at(first + done, &mut buffer[..want]);
        match read.map_err(|e| Error::disk("reading", slice.path(), e))? {
            0 => return Err(Error::damaged(format!("{} is shorter than it was", slice.path().display()))),
            read => {
                take(&buffer[..read], done)?;
                done += read as u64;
            }
        }
    }
    Ok(())
}
