//! Repairs a bundle in place, or reconstructs lost volumes from the others.

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

/// What to repair, and from what.
pub struct RepairRequest {
    /// A bundle followed by a repair file or another copy of the bundle; or the remaining volumes of a set, optionally with
    /// a repair file or a copy.
    pub files: Vec<PathBuf>,
    /// The directory for reconstructed volumes, if it is not that of the others.
    pub output: Option<PathBuf>,
    /// The signatures that the bundle must have.
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

/// A bundle that was repaired in place.
#[derive(Clone, Debug, Serialize)]
pub struct RepairedBundle {
    pub version: u32,
    /// Whether the bundle has no problems after the repair.
    pub ok: bool,
    /// The bundle, as named in the request.
    #[serde(serialize_with = "as_path")]
    pub bundle: PathBuf,
    /// Identity of the bundle, or `null` if its `bundle.json` cannot be read.
    pub identity: Option<Digest>,
    /// Files that were repaired.
    pub repaired: Vec<String>,
    /// Files that the repair file or copy lacks.
    pub lacking: Vec<String>,
    /// Remaining problems.
    pub problems: Vec<Problem>,
    /// The repair file or copy that was used.
    #[serde(serialize_with = "as_path")]
    pub from: PathBuf,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Volumes that were written again from a repair file or a copy of their bundle.
#[derive(Clone, Debug, Serialize)]
pub struct RepairedVolumes {
    pub version: u32,
    /// Whether the set has no problems after the repair.
    pub ok: bool,
    /// The name of the set.
    pub set: String,
    /// Identity of the bundle, or `null` if its `bundle.json` cannot be read.
    pub identity: Option<Digest>,
    /// Volumes that were written again.
    pub made: Vec<VolumePath>,
    /// Files that neither the volumes nor the repair file or copy has.
    pub lacking: Vec<String>,
    /// Remaining problems.
    pub problems: Vec<Problem>,
    /// The repair file or copy that was used.
    #[serde(serialize_with = "as_path")]
    pub from: PathBuf,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Volumes that were reconstructed from the others and from recovery volumes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveredVolumes {
    pub version: u32,
    /// Whether all volumes are complete.
    pub ok: bool,
    /// The name of the set.
    #[serde(serialize_with = "as_path")]
    pub set: PathBuf,
    /// Identity of the bundle.
    pub identity: Digest,
    /// Number of volumes in the set.
    pub of: u32,
    /// Number of recovery volumes.
    pub recovery_count: u32,
    /// Numbers of the volumes that were missing.
    pub missing_volumes: Vec<u32>,
    /// Numbers of the recovery volumes that were missing.
    pub missing_recovery: Vec<u32>,
    /// Volumes with wrong bytes.
    pub damaged: Vec<VolumePath>,
    /// Good volumes that the recovery volumes describe with other bytes. They are not changed.
    pub unlike: Vec<VolumePath>,
    /// Files that belong to another set, or are not volumes.
    #[serde(serialize_with = "as_paths")]
    pub foreign: Vec<PathBuf>,
    /// Volumes that were reconstructed.
    pub made: Vec<VolumePath>,
    /// Number of additional good volumes needed. If it is not 0, nothing was written.
    pub lacking_volumes: usize,
    /// The paths that the missing volumes would have.
    #[serde(skip)]
    pub missing_paths: Vec<PathBuf>,
    #[serde(skip)]
    pub outcome: Outcome,
}

/// A volume and its file.
#[derive(Clone, Debug, Serialize)]
pub struct VolumePath {
    /// `003`, or `r01` for a recovery volume.
    pub volume: String,
    #[serde(serialize_with = "as_path")]
    pub path: PathBuf,
}

/// Repairs a bundle or its volumes. All content is proven before it is written in place, and before a volume gets its name.
///
/// # Errors
/// The input cannot repair the bundle, or the result cannot be written. Remaining problems are in the report.
pub fn repair(request: &RepairRequest, environment: &Environment) -> Result<RepairReport> {
    let files = &request.files;
    if let Some((bundle, volumes)) = repaired_with_volumes(files)? {
        let copy = Opened::open(volumes)?.into_layout();
        return match request.output {
            Some(_) => Err(Error::input("a bundle is repaired in place: omit -o")),
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
        ([_, _], Some(_)) => Err(Error::input("a bundle is repaired in place: omit -o")),
        ([one], _) => {
            let text = "is not a volume of a set; to repair a bundle, also name the output of `export --repair` or \
            another copy of the bundle";
            Err(Error::input(format!("{} {text}", one.display())))
        }
        _ => Err(Error::input("none of these files is a volume of a set; a bundle is repaired from one file")),
    }
}

/// Returns a bundle named first and the volumes of a set named after it, which are a copy of it.
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

/// Volumes, and the repair file or copy named with them.
struct Brought {
    volumes: Vec<PathBuf>,
    /// A repair file or a copy of the bundle.
    from: PathBuf,
}

impl Brought {
    /// Returns `None` if only volumes were named.
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
                let text =
                    "are not volumes; a set is repaired from one repair file, or one copy of its bundle, at a time";
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
    let gone = before.set.iter().filter(|_| volumes.len() > 1).flat_map(|set| set.missing_volumes.iter().copied());
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

/// A given volume.
struct Given<'r> {
    number: u32,
    is_good: bool,
    path: &'r str,
}

impl Given<'_> {
    /// Returns `None` for a recovery volume, or a volume of another set.
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
    // If the bundle has lost its signature, the other copy might have it.
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
        // If a signature is required, content that no accepted key has signed proves nothing.
        let depth = if own.is_none() && copy.is_some() { Depth::Full } else { Depth::Chunks };
        verify::check_proven(&opened, depth, own.as_ref(), events)
    };
    let before = check()?;
    let missing = verify::missing_of(open_damaged(bundle)?, &before, TOOL)?;
    if let Some(proven) = proven.filter(|proven| proven.identity != missing.identity) {
        let text = format!(
            "{} is the bundle {}, but the signature is for {}",
            bundle.display(),
            missing.identity,
            proven.identity
        );
        return Err(Error::damaged(text));
    }
    let repaired = bundle::repair(bundle, lock, &RepairWith { from, missing: &missing, proven, events })?;
    let mut report = match before.is_clean() {
        true => before,
        false => check()?,
    };
    // The signature of the copy was used. The bundle may still lack one.
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
        // Recovery volumes alone have no signature.
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
    let (missing_volumes, missing_recovery) = numbers(&reconstructed.missing);
    let missing_paths =
        reconstructed.missing.iter().map(|part| reconstructed.name.part(*part, reconstructed.of(*part))).collect();
    let Reconstructed { name, identity, volumes, recovery, foreign, lacking, .. } = reconstructed;
    Ok(RepairReport::Recovered(Box::new(RecoveredVolumes {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        set: name.base().to_owned(),
        identity,
        of: volumes,
        recovery_count: recovery,
        missing_volumes,
        missing_recovery,
        damaged,
        unlike,
        foreign,
        made,
        lacking_volumes: lacking,
        missing_paths,
        outcome,
    })))
}

/// Returns the numbers of volumes and of recovery volumes.
fn numbers(parts: &[Part]) -> (Vec<u32>, Vec<u32>) {
    let (mut volumes, mut recovery) = (Vec::new(), Vec::new());
    for part in parts {
        match *part {
            Part::Volume(number) => volumes.push(number),
            Part::Recovery(number) => recovery.push(number),
        }
    }
    (volumes, recovery)
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
