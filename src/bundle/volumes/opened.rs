//! Presents the available volumes as the bundle they belong to. Nothing is copied; each file is read in its volume.
//!
//! # Threats
//! A medium may contain anything under any name. The content determines what a file is, and only `volumes/` is read here, up
//! to a limit. A volume's description is used once its own sums match, and only to locate content; callers prove content by a
//! digest, as for any bundle.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::assemble::{KeptPiece, assemble};
use super::format::{MAX_VOLUME_JSON, RecoveryJson, VolumeJson};
use super::names::{Part, SetName};
use crate::base::error::{Error, Fact, Kind, Result};
use crate::base::progress::units::volumes as numbers;
use crate::bundle::{BUNDLE_JSON, Bundle, Proven, VOLUMES, open_damaged, refuse_unfinished, sums};
use crate::files::Layout;
use crate::oci::Digest;

/// Maximum size of `volumes/003.sha256` in bytes: enough for the largest number of files.
const MAX_OWN_SUMS: u64 = 64 * 1024 * 1024;

/// What a command was given: a bundle, or volumes of one.
#[derive(Debug)]
pub enum Opened {
    Whole(Box<Layout>),
    Volumes(Box<Volumes>),
}

/// The available volumes of one set, and what else was given with them.
#[derive(Debug)]
pub struct Volumes {
    pub set: SetId,
    /// By number; duplicates are included. Each is the part at the same index in the layout.
    pub volumes: Vec<Volume>,
    /// By number.
    pub recovery: Vec<Recovery>,
    /// Volumes of other sets.
    pub foreign: Vec<Foreign>,
    /// Files without a usable description.
    pub broken: Vec<Broken>,
    /// Number of files given.
    pub given: usize,
    layout: Layout,
}

/// What identifies a set: what its volumes have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetId {
    /// The identity of the bundle.
    pub identity: Digest,
    /// Number of volumes.
    pub of: u32,
    /// Number of recovery volumes.
    pub recovery: u32,
    /// Maximum size of a volume in bytes.
    pub limit: u64,
}

/// A set that cannot be used as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of {of} {} missing", numbers(missing), if missing.len() == 1 { "is" } else { "are" })]
pub struct VolumesMissing {
    pub missing: Vec<u32>,
    /// Number of volumes in the set.
    pub of: u32,
}

impl Fact for VolumesMissing {}

/// An available volume.
#[derive(Debug)]
pub struct Volume {
    pub path: PathBuf,
    pub json: VolumeJson,
    /// The label of its own files: `003`.
    pub label: String,
}

/// An available recovery volume.
#[derive(Debug)]
pub struct Recovery {
    pub path: PathBuf,
    pub json: RecoveryJson,
    pub label: String,
    pub layout: Layout,
}

/// A volume of another set.
#[derive(Debug)]
pub struct Foreign {
    pub path: PathBuf,
    /// The identity of its bundle.
    pub identity: Digest,
    /// Which volume it is in its set.
    pub part: Part,
    /// Why it cannot be used here.
    pub why: String,
}

/// A file that should be a volume and cannot be used.
#[derive(Debug)]
pub struct Broken {
    pub path: PathBuf,
    /// Which volume it seems to be, from its remains or its name.
    pub part: Option<Part>,
    pub why: String,
}

/// What a path turned out to be.
pub(super) enum OpenedPath {
    Volume(Volume, Layout),
    Recovery(Recovery),
    Broken(Broken),
    /// Not a volume: a bundle or something else.
    Other(PathBuf, Layout),
}

impl Opened {
    /// Opens a bundle, or volumes in any order; their content decides which.
    ///
    /// # Errors
    /// A path cannot be read; or of several paths one is not a volume; or none can be used.
    pub fn open(paths: &[PathBuf]) -> Result<Opened> {
        Opened::open_with(paths, None)
    }

    /// Does the same with segments that were kept from other volumes.
    ///
    /// # Errors
    /// As for [`Opened::open`].
    pub fn open_with(paths: &[PathBuf], kept: Option<(Layout, Vec<KeptPiece>)>) -> Result<Opened> {
        match Opened::of(look_into_each(paths, Layout::open)?, paths, kept)? {
            Opened::Volumes(set) if set.volumes.is_empty() => Err(only_recovery()),
            opened => Ok(opened),
        }
    }

    /// Does the same, but also accepts recovery volumes alone, which can be verified but are not a bundle. A single file may
    /// be a tar that has lost its first header.
    ///
    /// # Errors
    /// As for [`Opened::open`].
    pub fn open_to_verify(paths: &[PathBuf]) -> Result<Opened> {
        let open = if paths.len() == 1 { open_damaged } else { Layout::open };
        Opened::of(look_into_each(paths, open)?, paths, None)
    }

    fn of(mut found: Vec<OpenedPath>, paths: &[PathBuf], kept: Option<(Layout, Vec<KeptPiece>)>) -> Result<Opened> {
        if let [OpenedPath::Other(..)] = &found[..]
            && let Some(OpenedPath::Other(_, layout)) = found.pop()
        {
            return Ok(Opened::Whole(Box::new(layout)));
        }
        if let Some(OpenedPath::Other(path, _)) = found.iter().find(|found| matches!(found, OpenedPath::Other(..))) {
            let text = "is not a volume of a set; several files at once must be the volumes of one bundle";
            return Err(Error::input(format!("{} {text}", path.display())));
        }
        Volumes::new(found, paths, kept).map(|volumes| Opened::Volumes(Box::new(volumes)))
    }

    pub fn layout(&self) -> &Layout {
        match self {
            Opened::Whole(layout) => layout,
            Opened::Volumes(volumes) => &volumes.layout,
        }
    }

    pub fn volumes(&self) -> Option<&Volumes> {
        match self {
            Opened::Whole(_) => None,
            Opened::Volumes(volumes) => Some(volumes),
        }
    }

    /// The bundle, as far as it is available, and its volumes if it was split. What was `proven` is not read again.
    ///
    /// # Errors
    /// As for [`Bundle::in_layout`].
    pub fn into_bundle(self, proven: Option<Proven>) -> Result<(Bundle, Vec<Volume>)> {
        match self {
            Opened::Whole(layout) => Ok((Bundle::proven(*layout, proven)?, Vec::new())),
            Opened::Volumes(given) => {
                let Volumes { volumes, layout, .. } = *given;
                Ok((Bundle::proven(layout, proven)?, volumes))
            }
        }
    }

    pub fn into_layout(self) -> Layout {
        match self {
            Opened::Whole(layout) => *layout,
            Opened::Volumes(volumes) => volumes.layout,
        }
    }
}

impl Bundle {
    /// Opens a bundle, or as much of one as these volumes contain.
    ///
    /// # Errors
    /// As for [`Opened::open`] and [`Bundle::open`].
    pub fn open_any(paths: &[PathBuf]) -> Result<Bundle> {
        Bundle::in_layout(Opened::open(paths)?.into_layout())
    }
}

impl Volumes {
    fn new(found: Vec<OpenedPath>, paths: &[PathBuf], kept: Option<(Layout, Vec<KeptPiece>)>) -> Result<Volumes> {
        let set = choose(&found).ok_or_else(|| none(&found))?;
        let (mut parts, mut recovery, mut foreign, mut broken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for found in found {
            match found {
                OpenedPath::Volume(volume, layout) if id_of(&volume.json) == set => parts.push((volume, layout)),
                OpenedPath::Volume(volume, _) => foreign.push(Foreign::new(set, volume)),
                OpenedPath::Recovery(one) if id_of_recovery(&one.json) == set => recovery.push(one),
                OpenedPath::Recovery(one) => {
                    let (identity, part) = (one.json.identity, Part::Recovery(one.json.number));
                    foreign.push(Foreign { path: one.path, identity, part, why: why_foreign(set, identity) });
                }
                OpenedPath::Broken(one) => broken.push(one),
                OpenedPath::Other(..) => {}
            }
        }
        parts.sort_by_key(|(volume, _)| volume.json.number);
        recovery.sort_by_key(|one| one.json.number);
        let parts = without_others(parts, &mut foreign);
        let (volumes, layouts): (Vec<Volume>, Vec<Layout>) = parts.into_iter().unzip();
        let described: Vec<&VolumeJson> = volumes.iter().map(|volume| &volume.json).collect();
        let layout = assemble(set.identity, &described, layouts, kept, shown(paths));
        Ok(Volumes { set, volumes, recovery, foreign, broken, given: paths.len(), layout })
    }

    /// The bundle, as far as it is available. A volume is the part at the same index in [`Volumes::volumes`].
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The files of one volume.
    pub fn layout_of(&self, at: usize) -> Option<&Layout> {
        self.layout.parts().get(at)
    }

    /// The numbers of the volumes that are not available, not even broken.
    pub fn missing(&self) -> Vec<u32> {
        let broken = self.broken.iter().filter_map(|broken| broken.part);
        let there: BTreeSet<Part> = self.here().map(Part::Volume).chain(broken).collect();
        (1..=self.set.of).filter(|number| !there.contains(&Part::Volume(*number))).collect()
    }

    /// The numbers of the volumes that are available and readable.
    pub fn here(&self) -> impl Iterator<Item = u32> {
        self.volumes.iter().map(|volume| volume.json.number)
    }

    /// The numbers of the recovery volumes that are not available, not even broken.
    pub fn missing_recovery(&self) -> Vec<u32> {
        let here = self.recovery.iter().map(|one| Part::Recovery(one.json.number));
        let there: BTreeSet<Part> = here.chain(self.broken.iter().filter_map(|broken| broken.part)).collect();
        (1..=self.set.recovery).filter(|number| !there.contains(&Part::Recovery(*number))).collect()
    }

    /// Whether all of the bundle is available, according to the volumes.
    pub fn is_complete(&self) -> bool {
        self.here().collect::<BTreeSet<_>>().len() == self.set.of as usize
    }
}

impl Foreign {
    fn new(set: SetId, volume: Volume) -> Foreign {
        let (identity, part) = (volume.json.identity, Part::Volume(volume.json.number));
        Foreign { path: volume.path, identity, part, why: why_foreign(set, identity) }
    }
}

fn why_foreign(set: SetId, identity: Digest) -> String {
    match identity == set.identity {
        true => "it belongs to the same bundle and another set, which was split with another size".to_owned(),
        false => format!("it belongs to the bundle {identity}, the others to {}", set.identity),
    }
}

/// Examines one file. A problem with the only file is an error; among others, the file is one that cannot be used.
pub(super) fn look(path: &Path, is_only: bool) -> Result<OpenedPath> {
    look_into(path, Layout::open(path), is_only)
}

fn look_into_each(paths: &[PathBuf], open: fn(&Path) -> Result<Layout>) -> Result<Vec<OpenedPath>> {
    let look = |path: &PathBuf| {
        refuse_unfinished(path)?;
        look_into(path, open(path), paths.len() == 1)
    };
    paths.iter().map(look).collect()
}

/// Does the same for a file that was opened already, or could not be.
fn look_into(path: &Path, opened: Result<Layout>, is_only: bool) -> Result<OpenedPath> {
    let by_name = SetName::of_part(path).map(|(_, part)| part);
    let broken = |part: Option<Part>, error: Error| {
        Ok(OpenedPath::Broken(Broken { path: path.to_owned(), part: part.or(by_name), why: error.chain() }))
    };
    let layout = match opened {
        Err(error) if !is_only && error.kind() != Kind::Disk => return broken(None, error),
        other => other?,
    };
    let Some((part, label)) = part_in(&layout) else {
        // A file with the name of a volume that has lost its description.
        let is_cut = layout.size_of(BUNDLE_JSON).is_none() && !layout.problems().is_empty();
        return match by_name.filter(|_| is_cut) {
            Some(part) => broken(Some(part), Error::damaged("its description of itself is lost")),
            None => Ok(OpenedPath::Other(path.to_owned(), layout)),
        };
    };
    if layout.is_compressed() {
        return broken(
            Some(part),
            Error::damaged("it is compressed, and a volume must not be: decompress it first (zstd -d)"),
        );
    }
    let (path, given) = (path.to_owned(), path);
    let opened = own_json(&layout, &label).and_then(|(bytes, shown)| match part {
        Part::Volume(_) => {
            let json = VolumeJson::parse(&bytes, &shown, layout.entries().count())?;
            check_label(&Part::Volume(json.number).label(json.of), &label)?;
            Ok(OpenedPath::Volume(Volume { path, json, label }, layout))
        }
        Part::Recovery(_) => {
            let json = RecoveryJson::parse(&bytes, &shown)?;
            check_label(&Part::Recovery(json.number).label(json.of), &label)?;
            Ok(OpenedPath::Recovery(Recovery { path, json, label, layout }))
        }
    });
    match opened {
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Disk) => {
            let (path, why) = (given.to_owned(), error.chain());
            Ok(OpenedPath::Broken(Broken { path, part: Some(part), why }))
        }
        other => other,
    }
}

/// A volume's description, if its own sums match, and its name in errors.
fn own_json(layout: &Layout, label: &str) -> Result<(Bytes, String)> {
    let (json, sums) = (format!("{VOLUMES}{label}.json"), format!("{VOLUMES}{label}.sha256"));
    let bytes = layout.read(&json, MAX_VOLUME_JSON)?.ok_or_else(|| Error::damaged(format!("it has no {json}")))?;
    let lines = layout.read(&sums, MAX_OWN_SUMS)?.ok_or_else(|| Error::damaged(format!("it has no {sums}")))?;
    match sums::digest_of(&lines, &json).is_some_and(|digest| digest.is_of(&bytes)) {
        true => Ok((bytes, layout.path().join(&json).display().to_string())),
        false => Err(Error::damaged(format!("{json} does not match {sums}"))),
    }
}

fn check_label(given: &str, label: &str) -> Result<()> {
    match given == label {
        true => Ok(()),
        false => Err(Error::damaged(format!("{VOLUMES}{label}.json says that it is {given}"))),
    }
}

/// Which volume a layout is, from the names of its own files.
fn part_in(layout: &Layout) -> Option<(Part, String)> {
    let own = layout.entries().filter_map(|(path, _)| path.strip_prefix(VOLUMES));
    let mut labels = own.filter_map(|name| name.split_once('.').map(|(label, _)| label));
    let label = labels.next()?;
    Some((Part::parse(label.as_bytes())?, label.to_owned()))
}

pub(super) fn id_of(json: &VolumeJson) -> SetId {
    SetId { identity: json.identity, of: json.of, recovery: json.recovery, limit: json.limit }
}

/// The set of a recovery volume.
pub(super) fn id_of_recovery(json: &RecoveryJson) -> SetId {
    let of = u32::try_from(json.volumes.len()).unwrap_or(u32::MAX);
    SetId { identity: json.identity, of, recovery: json.of, limit: json.limit }
}

/// The set that most volumes belong to; of several, the one given first. Recovery volumes count if there are no others.
fn choose(found: &[OpenedPath]) -> Option<SetId> {
    let most = |id: &dyn Fn(&OpenedPath) -> Option<SetId>| {
        let mut votes: HashMap<SetId, (usize, usize)> = HashMap::new();
        for (at, id) in found.iter().enumerate().filter_map(|(at, found)| Some((at, id(found)?))) {
            // Earlier ones are larger.
            votes.entry(id).or_insert((0, usize::MAX - at)).0 += 1;
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(set, _)| set)
    };
    let of_volume = |found: &OpenedPath| match found {
        OpenedPath::Volume(volume, _) => Some(id_of(&volume.json)),
        _ => None,
    };
    let of_recovery = |found: &OpenedPath| match found {
        OpenedPath::Recovery(Recovery { json, .. }) => Some(id_of_recovery(json)),
        _ => None,
    };
    most(&of_volume).or_else(|| most(&of_recovery))
}

fn none(found: &[OpenedPath]) -> Error {
    let broken = found.iter().find_map(|found| match found {
        OpenedPath::Broken(broken) => Some(broken),
        _ => None,
    });
    match broken {
        Some(Broken { path, why, .. }) => Error::damaged(format!("{} is not a readable volume: {why}", path.display())),
        None => only_recovery(),
    }
}

fn only_recovery() -> Error {
    Error::input("these are only recovery volumes; `gapferry repair` makes the others from them")
}

/// Of volumes with the same number, keeps only those equal to the first.
fn without_others(parts: Vec<(Volume, Layout)>, foreign: &mut Vec<Foreign>) -> Vec<(Volume, Layout)> {
    let mut kept: Vec<(Volume, Layout)> = Vec::new();
    for (volume, layout) in parts {
        match kept.iter().find(|(other, _)| other.json.number == volume.json.number) {
            Some((other, _)) if other.json != volume.json => {
                let why = format!("it is another volume {} than {}", volume.json.number, other.path.display());
                let (identity, part) = (volume.json.identity, Part::Volume(volume.json.number));
                foreign.push(Foreign { path: volume.path, identity, part, why });
            }
            _ => kept.push((volume, layout)),
        }
    }
    kept
}

/// The name of the whole in errors: `NAME.*.tar`, if the files are called so.
fn shown(paths: &[PathBuf]) -> PathBuf {
    let (Some(first), many) = (paths.first(), paths.len()) else { return PathBuf::new() };
    if many == 1 {
        return first.clone();
    }
    let base = |path: &PathBuf| SetName::of_part(path).map(|(set, _)| set);
    match base(first).filter(|set| paths.iter().all(|path| base(path).as_ref() == Some(set))) {
        Some(set) => PathBuf::from(format!("{}.*.tar", set.base().display())),
        None => PathBuf::from(format!("{} and {} more", first.display(), many - 1)),
    }
}
