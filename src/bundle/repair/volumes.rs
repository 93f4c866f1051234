//! Repairs a set: damaged and missing volumes are written again from the intact parts of the others and a repair file or copy.
//!
//! # Threats
//! As for [`repair`](crate::bundle::repair). Nothing is accepted from the repair file or copy that is not what `bundle.json`
//! states, and only intact copies of what volumes repeat. Every file is proven while it is copied, a volume gets its name when
//! it is complete, and it replaces only the damaged volume with its number. A kill at any moment leaves a set that the same
//! command repairs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::fsops::WriteLock;
use crate::base::progress::Events;
use crate::bundle::convert::Conversion;
use crate::bundle::fileset::FileList;
use crate::bundle::format::{BUNDLE_JSON, BundleJson, FileEntry, MAX_SIGNATURE, is_signature};
use crate::bundle::missing::Missing;
use crate::bundle::open::open_damaged;
use crate::bundle::options::{Form, Options};
use crate::bundle::output::tar_survey::by_survey;
use crate::bundle::repair::belongs;
use crate::bundle::volumes::{
    Held, KnownVolume, Opened, Part, Replaceable, SetName, Shape, VolumeOptions, VolumeSelection, Volumes,
};
use crate::bundle::{Bundle, MAX_BUNDLE_JSON, is_tool};
use crate::content::proof::{Unproven, Wrong, prove};
use crate::files::{Layout, Piece};

/// The outcome for a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairedSet {
    /// The name of its files.
    pub name: SetName,
    /// The damaged and missing volumes that are complete now.
    pub whole: Vec<RepairedVolume>,
    /// Files that neither the set nor the repair file or copy has; volumes that contain them are unchanged.
    pub lacking: Vec<String>,
}

/// A volume that is complete now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairedVolume {
    pub number: u32,
    pub path: PathBuf,
    /// Whether an earlier run has written it.
    pub unchanged: bool,
}

/// A locked set.
pub struct LockedSet {
    name: SetName,
    /// `None` if the medium cannot be written.
    lock: Option<WriteLock>,
}

/// Locks the set of `paths`, or the place where its volumes are written if that is another directory. What the set lacks must
/// be found under this lock, as in [`lock_bundle`](crate::bundle::lock_bundle).
///
/// # Errors
/// None of these files has the name of a volume, or another run is writing the set.
pub fn lock_set(paths: &[PathBuf], out: Option<&Path>) -> Result<LockedSet> {
    let set = opened(paths)?;
    let name = named(&set, out)?;
    let lock = WriteLock::take_if_writable(&name.whole())?;
    Ok(LockedSet { name, lock })
}

fn opened(paths: &[PathBuf]) -> Result<Box<Volumes>> {
    match Opened::open(paths)? {
        Opened::Volumes(set) => Ok(set),
        Opened::Whole(_) => Err(Error::input("none of these files is a volume of a set")),
    }
}

/// A set to repair.
pub struct SetRepair<'a> {
    /// The existing volumes.
    pub paths: &'a [PathBuf],
    /// A repair file for its bundle, or a copy of the bundle.
    pub from: &'a Path,
    /// What the set lacks.
    pub missing: &'a Missing,
    /// The numbers of the volumes to write again.
    pub bad: &'a BTreeSet<u32>,
}

/// Writes damaged and missing volumes of the `locked` set again.
///
/// # Errors
/// What it is repaired with is for another bundle or forged, it is unknown which volume contains what, or something else has
/// the name of a volume: nothing has changed. The disk fails.
pub fn repair_set(locked: LockedSet, wanted: &SetRepair<'_>, events: &Events) -> Result<RepairedSet> {
    let SetRepair { paths, from, missing, bad } = *wanted;
    let LockedSet { name, lock } = locked;
    let set = opened(paths)?;
    let shown = name.base().display().to_string();
    let repair = open_repair(from, &set)?;
    let is_repair = belongs(&repair, set.set.identity)?;
    let held = set.held().ok_or_else(|| {
        let text = "it is unknown which volume contains what: no volume here has an intact bundle.json, or this \
                    version of gapferry arranges volumes in another way";
        Error::damaged(format!("repairing {shown}: {text}"))
    })?;
    let search = Search { set: &set, held: &held, missing, from, is_repair };
    let found = search.find(&repair)?;
    let Some(bundle) = search.bundle(&found)? else {
        return Ok(RepairedSet { name, whole: Vec::new(), lacking: found.lacking.into_iter().collect() });
    };
    let is_there = |held: &Held| bundle.layout().size_of(&held.path).is_some();
    let can_be = |number: &u32| held.get(*number as usize - 1).is_some_and(|files| files.iter().all(is_there));
    let shape = Shape { limit: set.set.limit, recovery: set.set.recovery };
    let again: BTreeSet<u32> = bad.iter().copied().filter(can_be).collect();
    let needed = held.iter().flatten().filter(|held| !is_there(held)).map(|held| held.path.clone());
    let lacking: BTreeSet<String> = needed.collect();
    let mut whole = Vec::new();
    // The medium may be read-only otherwise.
    if !again.is_empty() {
        let replaceable = Replaceable::Only(known(&set));
        let volumes = VolumeOptions { shape, selection: VolumeSelection::Only(again.clone()) };
        let options = Options { replaceable, ..Options::copying(Form::Volumes(volumes)) };
        let written = Conversion::of_part(bundle)?.write_holding(lock, &name.whole(), options, events)?;
        whole.extend(again.into_iter().map(|number| RepairedVolume {
            number,
            path: name.part(Part::Volume(number), set.set.of),
            unchanged: written.unchanged_volumes.contains(&number),
        }));
    }
    Ok(RepairedSet { name, whole, lacking: lacking.into_iter().collect() })
}

/// Opens the repair file or copy. A damaged copy may be a tar that has lost headers.
fn open_repair(from: &Path, set: &Volumes) -> Result<Layout> {
    let repair = open_damaged(from)?;
    let identity = set.set.identity;
    let bytes = set.layout().read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok().flatten();
    let Some(bytes) = bytes.filter(|bytes| identity.is_of(bytes)) else { return Ok(repair) };
    let json = BundleJson::parse(&bytes, BUNDLE_JSON)?;
    let surveyed = by_survey(&repair, &FileList { json: &json, identity, size: bytes.len() as u64 })?;
    Ok(surveyed.unwrap_or(repair))
}

/// The files that were named as volumes of the set, or of which too little is left to tell.
fn known(set: &Volumes) -> Vec<KnownVolume> {
    let broken = set.broken.iter().filter_map(|one| Some(KnownVolume { part: one.part?, path: one.path.clone() }));
    let read = set.volumes.iter().map(|volume| {
        let part = Part::Volume(volume.json.number);
        KnownVolume { part, path: volume.path.clone() }
    });
    broken.chain(read).collect()
}

/// The name of the volumes, from the first that has a valid name.
fn named(set: &Volumes, out: Option<&Path>) -> Result<SetName> {
    let names = set.volumes.iter().filter_map(|volume| {
        let (name, part) = SetName::of_part(&volume.path)?;
        (part == Part::Volume(volume.json.number)).then_some(name)
    });
    let name = names.into_iter().next();
    let name = name.ok_or_else(|| Error::input("none of these files is named like a volume, NAME.003.tar"))?;
    name.moved_to(out)
}

/// What is needed to find each file of the bundle.
struct Search<'a> {
    set: &'a Volumes,
    held: &'a [Vec<Held>],
    missing: &'a Missing,
    from: &'a Path,
    /// Otherwise it is a copy of the bundle.
    is_repair: bool,
}

/// Where the files of the bundle are. The parts are the volumes, followed by the repair file or copy.
#[derive(Default)]
struct Found {
    pieces: BTreeMap<String, Vec<Piece>>,
    /// Files that were not found.
    lacking: BTreeSet<String>,
}

impl Search<'_> {
    /// The parts of the bundle, opened again.
    fn parts(&self) -> Result<Vec<Layout>> {
        let paths = self.set.volumes.iter().map(|volume| volume.path.as_path());
        let volumes = paths.map(Layout::open);
        volumes.chain([open_repair(self.from, self.set)]).collect()
    }

    fn find(&self, repair: &Layout) -> Result<Found> {
        let mut found = Found::default();
        let json = self.bundle_json()?;
        self.find_repeated(&json, repair, &mut found);
        let blobs = self.missing.blobs.iter().map(|blob| blob.digest.blob_path());
        let missing: HashSet<String> = blobs.chain(self.missing.tools.iter().map(|tool| tool.path.clone())).collect();
        let declared: HashMap<&str, &FileEntry> = json.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let here = self.here();
        let held: BTreeSet<&str> = self.held.iter().flatten().map(|held| held.path.as_str()).collect();
        for path in held {
            let pieces = match missing.contains(path) {
                true => match declared.get(path).map_or(Ok(None), |file| self.of_repair(file, repair)) {
                    // A bad tool must not keep images from being repaired.
                    Err(error) if self.is_repair && !is_tool(path) => return Err(error),
                    found => found.ok().flatten(),
                },
                false => here.get(path).cloned(),
            };
            match pieces {
                Some(pieces) => drop(found.pieces.insert(path.to_owned(), pieces)),
                None => drop(found.lacking.insert(path.to_owned())),
            }
        }
        Ok(found)
    }

    fn bundle_json(&self) -> Result<BundleJson> {
        // The layout is known only if `bundle.json` is intact.
        let bytes = self.set.layout().read(BUNDLE_JSON, MAX_BUNDLE_JSON)?.unwrap_or_default();
        BundleJson::parse(&bytes, BUNDLE_JSON)
    }

    /// Finds an intact copy of each file that every volume repeats.
    fn find_repeated(&self, json: &BundleJson, repair: &Layout, found: &mut Found) {
        let held: HashSet<&str> = self.held.iter().flatten().map(|held| held.path.as_str()).collect();
        let size = self.set.layout().size_of(BUNDLE_JSON).unwrap_or_default();
        let list = FileList { json, identity: self.set.set.identity, size };
        let is_repeated = |file: &FileEntry| !held.contains(file.path.as_str()) && !is_tool(&file.path);
        let wanted: Vec<FileEntry> = list.files().into_iter().filter(is_repeated).collect();
        let parts: Vec<&Layout> =
            self.set.layout().parts().iter().take(self.set.volumes.len()).chain([repair]).collect();
        for FileEntry { path, digest, .. } in &wanted {
            let is_right = |layout: &&Layout| match layout.read(path, MAX_BUNDLE_JSON) {
                Ok(Some(bytes)) => digest.is_of(&bytes),
                _ => false,
            };
            match parts.iter().position(is_right) {
                Some(at) => drop(found.pieces.insert(path.to_owned(), vec![Piece { part: at, path: path.to_owned() }])),
                None => drop(found.lacking.insert(path.to_owned())),
            }
        }
        // In no list, so the version of most volumes counts.
        let number = self.set.volumes.len();
        let names = parts.iter().take(number).flat_map(|layout| layout.entries().map(|(path, _)| path));
        let names: BTreeSet<&str> = names.filter(|path| is_signature(path)).collect();
        for name in names {
            let all: Vec<_> = parts.iter().map(|layout| layout.read(name, MAX_SIGNATURE).ok().flatten()).collect();
            let alike = |at: &usize| all.iter().filter(|other| **other == all[*at]).count();
            let most = (0..number).rev().max_by_key(alike);
            if let Some(at) = most.filter(|at| all[*at].is_some()) {
                found.pieces.insert(name.to_owned(), vec![Piece { part: at, path: name.to_owned() }]);
            }
        }
    }

    /// A file that the set lacks, proven. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// It has other bytes, or cannot be read.
    fn of_repair(&self, file: &FileEntry, repair: &Layout) -> Result<Option<Vec<Piece>>> {
        let (at, path) = (self.set.volumes.len(), &*file.path);
        let Some(slice) = repair.slice(path)? else { return Ok(None) };
        if slice.size() != file.size {
            let text = format!("{} has {} bytes instead of {}", slice.path().display(), slice.size(), file.size);
            return Err(Error::damaged(text));
        }
        match prove(&slice, &file.digest, &|_| ()) {
            Ok(()) => Ok(Some(vec![Piece { part: at, path: path.to_owned() }])),
            Err(Unproven::Unreadable(error)) => Err(Error::disk("reading", slice.path(), error)),
            Err(Unproven::Wrong(Wrong { found, .. })) => Err(slice.wrong(found)),
        }
    }

    /// Every file that the available volumes contain completely, counting all pieces.
    fn here(&self) -> HashMap<&str, Vec<Piece>> {
        let mut here: HashMap<&str, BTreeMap<u32, Piece>> = HashMap::new();
        let mut of: HashMap<&str, u32> = HashMap::new();
        for (at, volume) in self.set.volumes.iter().enumerate() {
            for file in &volume.json.files {
                let (number, all) = file.segment.as_ref().map_or((1, 1), |segment| (segment.number, segment.of));
                of.insert(&file.path, all);
                here.entry(&file.path)
                    .or_default()
                    .entry(number)
                    .or_insert(Piece { part: at, path: file.stored_path() });
            }
        }
        let whole = here.into_iter().filter(|(path, pieces)| of.get(path).copied() == u32::try_from(pieces.len()).ok());
        whole.map(|(path, pieces)| (path, pieces.into_values().collect())).collect()
    }

    /// The bundle as far as it was found; `None` if what every volume repeats is missing.
    fn bundle(&self, found: &Found) -> Result<Option<Bundle>> {
        if found.lacking.iter().any(|path| !self.held.iter().flatten().any(|held| held.path == *path)) {
            return Ok(None);
        }
        let shown = self.set.layout().path().to_owned();
        Bundle::in_layout(Layout::joined(shown, self.parts()?, found.pieces.clone())).map(Some)
    }
}
