//! What a bundle lacks is put into its place; or lost volumes are made of the others.

use super::units::{as_path, as_paths};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::slice;

use serde::Serialize;

use super::TOOL;
use super::environment::Environment;
use super::outcome::{JsonReport, Outcome, REPORT_VERSION};
use super::trust::Trust;
use crate::base::error::{Error, Result};
use crate::bundle::volumes::{Opened, Part, Reconstructed, is_set, reconstruct};
use crate::bundle::{
    self, BUNDLE_JSON, REPAIR_JSON, RepairWith, RepairedSet, SetRepair, lock_set, open_damaged, refuse_unfinished,
    repair_set,
};
use crate::files::Layout;
use crate::oci::Digest;
use crate::verify::{self, Depth, Problem, VolumeReport, VolumeState};

/// What is to be repaired, and with what.
pub struct RepairRequest {
    /// A bundle and then a repair or another copy of it; or the volumes of a set that are left, perhaps with one of these two.
    pub files: Vec<PathBuf>,
    /// The directory where lost volumes are made, if not beside the others.
    pub output: Option<PathBuf>,
    /// Whose signature the bundle has to have.
    pub trust: Trust,
}

/// What was repaired.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum RepairReport {
    Bundle(Box<RepairedBundle>),
    Volumes(Box<RepairedVolumes>),
    Recovered(Box<RecoveredVolumes>),
}

impl JsonReport for RepairReport {}

/// A bundle that was repaired in its place.
#[derive(Clone, Debug, Serialize)]
pub struct RepairedBundle {
    pub version: u32,
    /// It has no problem any more.
    pub ok: bool,
    /// Where it is, as it was named.
    #[serde(serialize_with = "as_path")]
    pub bundle: PathBuf,
    /// `null`: its `bundle.json` cannot be read.
    pub identity: Option<Digest>,
    /// Its files that were repaired.
    pub repaired: Vec<String>,
    /// Its files that the repair does not have.
    pub lacking: Vec<String>,
    /// What is still wrong.
    pub problems: Vec<Problem>,
    /// The repair or copy of the bundle that it was repaired with.
    #[serde(serialize_with = "as_path")]
    pub from: PathBuf,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Volumes that were written again with a repair of their bundle, or a copy of it.
#[derive(Clone, Debug, Serialize)]
pub struct RepairedVolumes {
    pub version: u32,
    /// The set has no problem any more.
    pub ok: bool,
    /// What the set is called.
    pub set: String,
    /// Of the bundle. `null`: its `bundle.json` cannot be read.
    pub identity: Option<Digest>,
    /// Volumes that were written again.
    pub made: Vec<VolumePath>,
    /// Files that neither the volumes nor the repair has.
    pub lacking: Vec<String>,
    /// What is still wrong.
    pub problems: Vec<Problem>,
    /// The repair or copy of the bundle that it was repaired with.
    #[serde(serialize_with = "as_path")]
    pub from: PathBuf,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Volumes that were made again of the others and of recovery volumes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveredVolumes {
    pub version: u32,
    /// All volumes are whole.
    pub ok: bool,
    /// What the set is called.
    #[serde(serialize_with = "as_path")]
    pub set: PathBuf,
    /// Of the bundle.
    pub identity: Digest,
    /// How many volumes the set has.
    pub volumes: u32,
    /// How many recovery volumes.
    pub recovery: u32,
    /// Volumes that were not there.
    pub missing: Vec<String>,
    /// Volumes that were there, with bytes that are wrong.
    pub damaged: Vec<VolumePath>,
    /// Good volumes that the recovery volumes describe with other bytes. They stay as they are.
    pub unlike: Vec<VolumePath>,
    /// Files that are of another set, or no volumes.
    #[serde(serialize_with = "as_paths")]
    pub foreign: Vec<PathBuf>,
    /// Volumes that were made again.
    pub made: Vec<VolumePath>,
    /// How many more whole volumes it would take. Then nothing was made.
    pub lacking_volumes: usize,
    /// Where the missing volumes should be.
    #[serde(skip)]
    pub missing_paths: Vec<PathBuf>,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// A volume, and its file.
#[derive(Clone, Debug, Serialize)]
pub struct VolumePath {
    /// `003`, or `r01` for a recovery volume.
    pub volume: String,
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
}

/// Repairs a bundle, or volumes of one. Nothing is written in its place, and no volume gets its name, before
/// it is proven.
///
/// # Errors
/// It cannot be repaired with what was given, or not be written. What is still wrong afterwards is in the report.
pub fn repair(request: &RepairRequest, environment: &Environment) -> Result<RepairReport> {
    let files = &request.files;
    if let Some((bundle, volumes)) = repaired_with_volumes(files)? {
        let copy = Opened::open(volumes)?.into_layout();
        return match request.output {
            Some(_) => Err(Error::input("a bundle is repaired in its place: without -o")),
            None => repair_bundle(bundle, &copy, &request.trust, environment),
        };
    }
    if is_set(files)? {
        return match Brought::among(files)? {
            Some(brought) => repair_volumes(&brought, request, environment),
            None => recover(request, environment),
        };
    }
    match (&files[..], &request.output) {
        ([bundle, from], None) => repair_bundle(bundle, &open_damaged(from)?, &request.trust, environment),
        ([_, _], Some(_)) => Err(Error::input("a bundle is repaired in place: leave out -o")),
        ([one], _) => {
            let text = "is no volume of a set; name what repairs the bundle: the output of `export --repair`, or another copy of it";
            Err(Error::input(format!("{} {text}", one.display())))
        }
        _ => Err(Error::input("none of these files is a volume of a set; one file repairs a bundle")),
    }
}

/// A bundle that is named first, and the volumes of a set that are named behind it: they are a copy of it.
fn repaired_with_volumes(files: &[PathBuf]) -> Result<Option<(&PathBuf, &[PathBuf])>> {
    let Some((bundle, volumes)) = files.split_first().filter(|(_, volumes)| !volumes.is_empty()) else {
        return Ok(None);
    };
    let are_volumes =
        || volumes.iter().try_fold(true, |all, path| Ok::<_, Error>(all && is_set(slice::from_ref(path))?));
    let is_repair = || Layout::open(bundle).is_ok_and(|layout| layout.size_of(REPAIR_JSON).is_some());
    let is_bundle = !is_set(slice::from_ref(bundle))? && !is_repair();
    Ok((is_bundle && are_volumes()?).then_some((bundle, volumes)))
}

/// Volumes, and what was named with them.
struct Brought {
    volumes: Vec<PathBuf>,
    /// A repair or copy of the bundle.
    from: PathBuf,
}

impl Brought {
    /// `None`: there are volumes alone.
    fn among(files: &[PathBuf]) -> Result<Option<Brought>> {
        let (mut volumes, mut from) = (Vec::new(), Vec::new());
        for path in files {
            let holds = || {
                open_damaged(path)
                    .is_ok_and(|layout| [REPAIR_JSON, BUNDLE_JSON].iter().any(|own| layout.size_of(own).is_some()))
            };
            let is_other = !is_set(std::slice::from_ref(path))? && holds();
            if is_other { from.push(path.clone()) } else { volumes.push(path.clone()) }
        }
        match (&from[..], volumes.is_empty()) {
            ([], _) | (_, true) => Ok(None),
            ([one], _) => Ok(Some(Brought { volumes, from: one.clone() })),
            ([one, other, ..], _) => {
                let text = "are no volumes; a set takes one repair, or one copy of its bundle, at a time";
                Err(Error::input(format!("{} and {} {text}", one.display(), other.display())))
            }
        }
    }
}

fn repair_volumes(brought: &Brought, request: &RepairRequest, environment: &Environment) -> Result<RepairReport> {
    let Brought { volumes, from } = brought;
    let events = &environment.events;
    let locked = lock_set(volumes, request.output.as_deref())?;
    let opened = Opened::open(volumes)?;
    let set = opened.layout().path().display().to_string();
    let signed = request.trust.check(opened.layout(), environment)?;
    let before = verify::check_proven(&opened, Depth::Chunks, signed.as_ref(), events)?;
    let missing = verify::missing_of(opened.into_layout(), &before, TOOL)?;
    let files: Vec<Given> = before.set.iter().flat_map(|set| &set.volumes).filter_map(Given::of).collect();
    let damaged = files.iter().filter(|file| !file.is_good).map(|file| file.number);
    let gone = before.set.iter().filter(|_| volumes.len() > 1).flat_map(|set| set.missing.iter().copied());
    let bad: BTreeSet<u32> = damaged.chain(gone).collect();
    let wanted = SetRepair { paths: volumes, from, missing: &missing, bad: &bad };
    let RepairedSet { whole, lacking, .. } = repair_set(locked, &wanted, events)?;
    let is_replaced = |path: &Path| {
        let is_whole = |file: &Given| whole.iter().any(|volume| volume.number == file.number);
        files.iter().any(|file| Path::new(file.path) == path && is_whole(file))
    };
    let kept = volumes.iter().filter(|path| !is_replaced(path)).cloned();
    let all: Vec<PathBuf> = kept.chain(whole.iter().map(|volume| volume.path.clone())).collect();
    let report = verify::check_opened(&Opened::open(&all)?, Depth::Chunks, events)?;
    let outcome = outcome(report.is_clean());
    let of = report.set.as_ref().or(before.set.as_ref()).map_or(0, |set| set.of);
    let made = whole.into_iter().filter(|volume| !volume.unchanged);
    let made = made.map(|volume| VolumePath { volume: Part::Volume(volume.number).label(of), path: volume.path });
    Ok(RepairReport::Volumes(Box::new(RepairedVolumes {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        set,
        identity: report.identity,
        made: made.collect(),
        lacking,
        problems: report.problems,
        from: from.clone(),
        outcome,
    })))
}

/// A volume that was given.
struct Given<'r> {
    number: u32,
    is_good: bool,
    path: &'r str,
}

impl Given<'_> {
    /// `None`: it is a recovery volume, or of another set.
    fn of(volume: &VolumeReport) -> Option<Given<'_>> {
        match Part::parse(volume.volume.as_ref()?.as_bytes())? {
            Part::Volume(number) if volume.state != VolumeState::Foreign => {
                Some(Given { number, is_good: volume.state == VolumeState::Good, path: &volume.path })
            }
            _ => None,
        }
    }
}

fn repair_bundle(bundle: &Path, from: &Layout, trust: &Trust, environment: &Environment) -> Result<RepairReport> {
    let events = &environment.events;
    // Where the bundle has lost its signature, another copy of it may have it.
    refuse_unfinished(bundle)?;
    let lock = bundle::lock_bundle(bundle)?;
    let (own, copy) = match trust.check(&open_damaged(bundle)?, environment) {
        Err(error) => match trust.check(from, environment) {
            Ok(Some(copy)) => (None, Some(copy)),
            Ok(None) | Err(_) => return Err(error),
        },
        Ok(own) => (own, None),
    };
    let proven = own.as_ref().or(copy.as_ref());
    let check = || {
        let opened = Opened::Whole(Box::new(open_damaged(bundle)?));
        // What an accepted key has not signed proves nothing where one is demanded.
        let depth = if own.is_none() && copy.is_some() { Depth::Full } else { Depth::Chunks };
        verify::check_proven(&opened, depth, own.as_ref(), events)
    };
    let before = check()?;
    let missing = verify::missing_of(open_damaged(bundle)?, &before, TOOL)?;
    if let Some(proven) = proven.filter(|proven| proven.identity != missing.identity) {
        let text =
            format!("{} is the bundle {}, what is signed is {}", bundle.display(), missing.identity, proven.identity);
        return Err(Error::damaged(text));
    }
    let repaired = bundle::repair(bundle, lock, &RepairWith { from, missing: &missing, proven, events })?;
    let mut report = match before.is_clean() {
        true => before,
        false => check()?,
    };
    // What was believed was the copy's signature. The bundle may have got it, or not.
    if own.is_none()
        && copy.is_some()
        && let Err(refused) = trust.check(&open_damaged(bundle)?, environment)
    {
        let problem = Problem::unsigned(&refused.chain(), !repaired.unplaced.is_empty());
        let at = report.problems.partition_point(|other| other.path <= problem.path);
        report.problems.insert(at, problem);
    }
    let outcome = outcome(report.is_clean());
    Ok(RepairReport::Bundle(Box::new(RepairedBundle {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        bundle: bundle.to_owned(),
        identity: report.identity,
        repaired: repaired.repaired,
        lacking: repaired.lacking,
        problems: report.problems,
        from: from.path().to_owned(),
        outcome,
    })))
}

fn recover(request: &RepairRequest, environment: &Environment) -> Result<RepairReport> {
    let signed = match Opened::open(&request.files) {
        Ok(opened) => request.trust.check(opened.layout(), environment)?,
        // Recovery volumes alone say nothing of who made them.
        Err(error) if request.trust.is_demanded() => return Err(error),
        Err(_) => None,
    };
    let reconstructed = reconstruct(&request.files, request.output.as_deref(), signed.as_ref(), &environment.events)?;
    let outcome = outcome(reconstructed.lacking == 0);
    let label = |part: &Part| part.label(reconstructed.of(*part));
    let files = |files: &[(Part, PathBuf)]| -> Vec<VolumePath> {
        files.iter().map(|(part, path)| VolumePath { volume: label(part), path: path.clone() }).collect()
    };
    let (damaged, unlike, made) =
        (files(&reconstructed.damaged), files(&reconstructed.unlike), files(&reconstructed.made));
    let missing = reconstructed.missing.iter().map(label).collect();
    let missing_paths =
        reconstructed.missing.iter().map(|part| reconstructed.name.part(*part, reconstructed.of(*part))).collect();
    let Reconstructed { name, identity, volumes, recovery, foreign, lacking, .. } = reconstructed;
    Ok(RepairReport::Recovered(Box::new(RecoveredVolumes {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        set: name.base().to_owned(),
        identity,
        volumes,
        recovery,
        missing,
        damaged,
        unlike,
        foreign,
        made,
        lacking_volumes: lacking,
        missing_paths,
        outcome,
    })))
}

fn outcome(is_whole: bool) -> Outcome {
    if is_whole { Outcome::Done } else { Outcome::Damaged }
}

impl RepairReport {
    pub fn outcome(&self) -> Outcome {
        match self {
            RepairReport::Bundle(report) => report.outcome,
            RepairReport::Volumes(report) => report.outcome,
            RepairReport::Recovered(report) => report.outcome,
        }
    }
}
