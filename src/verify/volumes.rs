//! Checks the volumes of a set: each by itself, and all of them as one bundle.
//!
//! Bytes that the check of the bundle found right are not read again in their volume. The rest of a volume is proven by its
//! own sums: the files that every volume repeats, and segments of blobs that are not complete.

mod lost;
mod others;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use super::declared::Declarations;
use super::whole_volumes::WholeVolumes;
use super::{
    Asked, ByteRange, Depth, Examined, Problem, ProblemKind, Problems, Report, Subject, chunks, declared, examine,
    name_images, problems_in, signatures,
};
use crate::base::error::Result;
use crate::base::progress::Events;
use crate::bundle::VOLUMES;
use crate::bundle::volumes::{Part, Volume, VolumeEntries, VolumeFile, Volumes};
use crate::bundle::{Proven, is_metadata, is_signature, is_tool};
use crate::content::chunks::values_of;
use crate::content::in_parallel;
use crate::content::proof::{Unproven, Wrong, prove};
use crate::files::Layout;
use crate::oci::Digest;
pub use lost::is_of_lost_volume;

/// The result of checking a set, apart from its problems.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetReport {
    /// Number of volumes in the set, without recovery volumes.
    pub of: u32,
    /// Number of recovery volumes in the set.
    pub recovery_count: u32,
    /// The files that were given, ordered by number. Unusable files come last.
    pub volumes: Vec<VolumeReport>,
    /// Numbers of the volumes that were not given.
    pub missing_volumes: Vec<u32>,
    /// Numbers of the recovery volumes that were not given.
    pub missing_recovery: Vec<u32>,
}

/// The state of one given file.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeReport {
    pub path: String,
    /// The label, `003`, or `r01` for a recovery volume, if it is known.
    pub volume: Option<String>,
    pub state: VolumeState,
}

/// The state of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeState {
    Good,
    Damaged,
    /// The volume belongs to another set.
    Foreign,
}

/// The most problems that are listed; more are only counted.
const MOST_PROBLEMS: usize = 100_000;

/// Digests by path, as a volume lists them.
type Sums = BTreeMap<String, Digest>;

/// What the check of the bundle has found.
#[derive(Clone, Copy)]
struct Known<'s> {
    /// Paths of the bundle that have a problem.
    bad: &'s HashSet<String>,
    /// Declared paths with their digests.
    declared: &'s HashMap<String, Digest>,
    /// Whether no list declares anything but blobs.
    by_names: bool,
}

impl Known<'_> {
    fn is_declared(&self, path: &str) -> bool {
        self.declared.contains_key(path) || self.by_names && (is_metadata(path) || is_tool(path))
    }
}

/// Checks the given volumes of a set. For a single volume, the absence of the others is no problem.
pub fn check(set: &Volumes, depth: Depth, proven: Option<&Proven>, events: &Events) -> Result<Report> {
    let (layout, read) = (set.layout(), WholeVolumes::read(set, depth, events));
    let asked = Asked { depth, proven, read: &read, events };
    let Examined { mut report, reach, declared } = match set.volumes.is_empty() {
        // Only recovery volumes were given: no file of the bundle is here.
        true => {
            let report = Report { identity: Some(set.set.identity), ..Report::default() };
            Examined { report, ..Examined::default() }
        }
        false => examine(layout, &asked, Problems::default())?,
    };
    let lacking = lost::take_lacking(set, &mut report.problems);
    for problem in &mut report.problems {
        problem.volume = holder(set, &problem.path).map(|volume| volume.path.display().to_string());
    }
    let known: HashSet<String> = report.problems.iter().map(|problem| problem.path.clone()).collect();
    let jobs: Vec<usize> = (0..set.volumes.len()).collect();
    let Declarations { files, by_names, .. } = declared;
    let declared: HashMap<String, Digest> = files.into_iter().map(|file| (file.path, file.digest)).collect();
    let known = Known { bad: &known, declared: &declared, by_names };
    let own = in_parallel(&jobs, |at| One::new(set, *at, known, &asked).map(|one| one.check()).unwrap_or_default());
    let mut found: Vec<Problem> = own.into_iter().flatten().collect();
    found.extend(set.recovery.iter().flat_map(|one| others::recovery(&one.path, &one.layout, &one.label, depth)));
    found.extend(
        set.broken
            .iter()
            .map(|broken| Problem::new("", ProblemKind::Malformed).found(&broken.why).in_volume(&broken.path)),
    );
    found.extend(set.foreign.iter().map(|foreign| {
        let expected = format!("a volume of {}", set.set.identity);
        let problem = Problem::new("", ProblemKind::Foreign).expected(expected).in_volume(&foreign.path);
        problem.found(format!("volume {} of {}: {}", number(foreign.part), foreign.identity, foreign.why))
    }));
    // If a blob in segments is wrong, only its wrong segments are reported.
    let blamed: HashSet<String> = found.iter().map(|problem| problem.path.clone()).collect();
    let others = report.problems.drain(..).filter(|one| one.volume.is_some() || !blamed.contains(&one.path));
    found.extend(others.map(|problem| located(set, problem)));
    found.extend(read.stale(&found));
    let mut problems = bounded(found);
    for problem in problems.iter_mut().filter(|problem| problem.volume.is_some() && is_repaired_by_volume(problem.kind))
    {
        problem.remedy = "copy this volume from its medium again; if that does not help, reconstruct it with `gapferry repair` \
                          from recovery volumes, or export it again with --only-volume";
    }
    name_images(&mut problems, &reach);
    lost::add_reach(set, &mut problems, &lacking, &reach);
    let all =
        || (0..set.volumes.len()).filter_map(|at| set.layout_of(at)).chain(set.recovery.iter().map(|r| &r.layout));
    report.files = all().map(|layout| layout.entries().count()).sum();
    report.bytes = all().flat_map(Layout::entries).map(|(_, size)| size).fold(0, u64::saturating_add);
    let (missing, missing_recovery) = (set.missing(), set.missing_recovery());
    let volumes = states(set, &problems);
    report.set = Some(SetReport {
        of: set.set.of,
        recovery_count: set.set.recovery,
        volumes,
        missing_volumes: missing,
        missing_recovery,
    });
    report.problems = problems;
    // A single volume does not lack the files of the others.
    report.lacking = if set.given > 1 { lacking } else { Vec::new() };
    Ok(report)
}

fn is_repaired_by_volume(kind: ProblemKind) -> bool {
    use ProblemKind::{Malformed, Missing, Unreadable, WrongDigest, WrongSize};
    matches!(kind, Missing | WrongSize | WrongDigest | Unreadable | Malformed)
}

/// Sorts and deduplicates problems, and limits their number. One file in several volumes is a problem of each.
fn bounded(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    let mut unlisted: BTreeMap<ProblemKind, usize> = BTreeMap::new();
    for Problem { kind, subject, .. } in problems.drain(MOST_PROBLEMS.min(problems.len())..) {
        let number = if let Subject::Unlisted(number) = subject { number } else { 1 };
        *unlisted.entry(kind).or_default() += number;
    }
    problems.extend(unlisted.into_iter().map(|(kind, number)| Problem::unlisted(kind, number)));
    problems
}

fn number(part: Part) -> String {
    match part {
        Part::Volume(number) => number.to_string(),
        Part::Recovery(number) => format!("r{number}"),
    }
}

/// Returns the volume that has, or should have, a file of the bundle as a whole.
fn holder<'s>(set: &'s Volumes, path: &str) -> Option<&'s Volume> {
    let here = set.layout().part_of(path).filter(|_| !is_cut(set, path));
    let listed = || set.volumes.iter().position(|v| v.json.files.iter().any(|f| f.segment.is_none() && f.path == path));
    set.volumes.get(here.or_else(listed)?)
}

fn is_cut(set: &Volumes, path: &str) -> bool {
    let part = set.layout().part_of(path).and_then(|part| set.layout().parts().get(part));
    part.is_some_and(|part| part.size_of(path).is_none())
}

/// Adds the ranges that are wrong in a whole file, if its volume shows them and the bundle did not.
fn located(set: &Volumes, problem: Problem) -> Problem {
    if problem.kind != ProblemKind::WrongDigest || !problem.ranges.is_empty() {
        return problem;
    }
    let at = set.layout().part_of(&problem.path).filter(|_| !is_cut(set, &problem.path));
    let ranges = at.and_then(|at| {
        let (volume, layout) = (set.volumes.get(at)?, set.layout_of(at)?);
        let file = volume.json.files.iter().position(|file| file.path == problem.path)?;
        bad_ranges(layout, volume, file)
    });
    match ranges {
        Some(ranges) if !ranges.is_empty() => placed(problem, ranges),
        _ => problem,
    }
}

/// Adds ranges to a problem, and to its text.
fn placed(mut problem: Problem, ranges: Vec<ByteRange>) -> Problem {
    let place = format!("damage within {}", chunks::shown(&ranges));
    let found = match problem.found.take() {
        Some(found) => format!("{found}; {place}"),
        None => place,
    };
    problem.found(found).at(ranges)
}

/// Returns the chunks of a stored file that differ from the `.b3` of its volume, as ranges of the file of the bundle.
fn bad_ranges(layout: &Layout, volume: &Volume, at: usize) -> Option<Vec<ByteRange>> {
    let file = volume.json.files.get(at)?;
    let size = |file: &VolumeFile| layout.size_of(&file.stored_path());
    let before = volume.json.files[..at].iter().try_fold(0_u64, |sum, file| sum.checked_add(values_of(size(file)?)))?;
    let first = file.segment.as_ref().map_or(0, |segment| segment.first);
    let table = layout.slice(&format!("{VOLUMES}{}.b3", volume.label)).ok()??;
    let slice = layout.slice(&file.stored_path()).ok()??;
    let ranges = chunks::bad_in(&slice, &table, before, *file.blake3.bytes())?;
    Some(ranges.into_iter().map(|range| ByteRange { first: first + range.first, last: first + range.last }).collect())
}

/// The check of one volume.
struct One<'s> {
    set: &'s Volumes,
    volume: &'s Volume,
    at: usize,
    layout: &'s Layout,
    known: Known<'s>,
    asked: &'s Asked<'s>,
}

impl<'s> One<'s> {
    fn new(set: &'s Volumes, at: usize, known: Known<'s>, asked: &'s Asked<'s>) -> Option<One<'s>> {
        Some(One { set, volume: set.volumes.get(at)?, at, layout: set.layout_of(at)?, known, asked })
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems: Vec<Problem> = problems_in(self.layout);
        let (sums, own) = own_sums(self.layout, &self.volume.label);
        problems.extend(own);
        let entries = VolumeEntries::of(self.volume);
        let may_be = |path: &str| entries.may_have(path, |path| self.known.is_declared(path));
        problems.extend(undeclared(self.layout, |path| {
            let is_summed = sums.contains_key(path) || is_signature(path) || path == own_sums_path(&self.volume.label);
            is_summed && may_be(path)
        }));
        problems.extend(signatures::check(self.layout));
        let stored = |file: &'s VolumeFile| match file.segment {
            None => Cow::Borrowed(file.path.as_str()),
            Some(_) => Cow::Owned(file.stored_path()),
        };
        let listed: HashMap<Cow<'_, str>, usize> =
            self.volume.json.files.iter().enumerate().map(|(at, file)| (stored(file), at)).collect();
        for path in listed.keys().filter(|path| !sums.contains_key(&***path)) {
            problems.push(Problem::new(path, ProblemKind::Disagreement).found("the sums of its volume do not list it"));
        }
        for (path, sum) in &sums {
            problems.extend(self.file(path, sum, listed.get(path.as_str()).copied()));
        }
        problems.into_iter().map(|problem| problem.in_volume(&self.volume.path)).collect()
    }

    fn file(&self, path: &str, sum: &Digest, listed: Option<usize>) -> Option<Problem> {
        let file = listed.and_then(|at| self.volume.json.files.get(at));
        let segment = file.and_then(|file| file.segment.as_deref());
        let of_bundle = file.map_or(path, |file| file.path.as_str());
        let problem = |kind| Problem::new(of_bundle, kind);
        let in_text = segment.map(|s| format!("segment {} of {}", s.number, s.of));
        let labelled = |text: String| in_text.as_ref().map_or(text.clone(), |segment| format!("{segment}: {text}"));
        if let Some(segment) = segment.filter(|segment| segment.sha256 != *sum) {
            let found = labelled(format!("{} in the sums of its volume", sum.hex()));
            return Some(problem(ProblemKind::Disagreement).expected(segment.sha256.hex()).found(found));
        }
        let Some(size) = self.layout.size_of(path) else {
            let missing = problem(ProblemKind::Missing);
            // Reported as for the bundle, so that one missing file is one problem.
            return (in_text.is_some() || !self.known.bad.contains(of_bundle)).then(|| match in_text {
                Some(text) => missing.found(text),
                None => missing,
            });
        };
        if let Some(segment) = segment.filter(|segment| segment.size != size) {
            let found = labelled(format!("{size} bytes"));
            return Some(problem(ProblemKind::WrongSize).expected(format!("{} bytes", segment.size)).found(found));
        }
        if self.asked.depth == Depth::Structure || self.is_proven(path, sum, of_bundle, segment.is_some()) {
            return None;
        }
        let proven = match self.asked.read.of_volume(self.at, path, sum) {
            Some(hashed) => Ok(Some(hashed.prove(sum).map_err(Unproven::Wrong))),
            None => self.layout.slice(path).map(|slice| slice.map(|slice| prove(&slice, sum, &|_| ()))),
        };
        let found = match proven {
            Ok(None | Some(Ok(()))) => return None,
            Ok(Some(Err(Unproven::Wrong(Wrong { found, .. })))) => found,
            Ok(Some(Err(Unproven::Unreadable(error)))) => {
                return Some(problem(ProblemKind::Unreadable).found(labelled(error.to_string())));
            }
            Err(error) => return Some(problem(ProblemKind::Unreadable).found(labelled(error.chain()))),
        };
        let ranges = listed.and_then(|at| bad_ranges(self.layout, self.volume, at)).unwrap_or_default();
        let problem = problem(ProblemKind::WrongDigest).expected(sum).found(labelled(found.to_string()));
        Some(if ranges.is_empty() { problem } else { placed(problem, ranges) })
    }

    /// Whether this is the first copy of its volume: the bundle is assembled from the first copies.
    fn is_first(&self) -> bool {
        let is_same = |volume: &Volume| volume.json.number == self.volume.json.number;
        self.set.volumes.iter().position(is_same) == Some(self.at)
    }

    /// Whether the check of the bundle has already read these bytes here.
    fn is_proven(&self, path: &str, sum: &Digest, of_bundle: &str, is_segment: bool) -> bool {
        let layout = self.set.layout();
        match is_segment {
            true => self.is_first() && layout.size_of(of_bundle).is_some() && !self.known.bad.contains(of_bundle),
            false => {
                let is_declared = self.known.declared.get(path).is_some_and(|declared| declared == sum);
                layout.part_of(path) == Some(self.at) && is_declared
            }
        }
    }
}

/// Returns the sums of a volume, and their problems.
fn own_sums(layout: &Layout, label: &str) -> (Sums, Vec<Problem>) {
    let mut problems = Problems::default();
    let sums = declared::read_sums(layout, &own_sums_path(label), &mut problems);
    (sums.unwrap_or_default(), problems.into_sorted())
}

fn own_sums_path(label: &str) -> String {
    format!("{VOLUMES}{label}.sha256")
}

/// Returns a problem for every file that is not allowed. The sums of a volume are its own, and declare nothing for the
/// bundle.
fn undeclared(layout: &Layout, may_be: impl Fn(&str) -> bool) -> Vec<Problem> {
    let others = layout.entries().map(|(path, _)| path).filter(|path| !may_be(path));
    others.map(|path| Problem::new(path, ProblemKind::Undeclared)).collect()
}

fn states(set: &Volumes, problems: &[Problem]) -> Vec<VolumeReport> {
    let bad: HashSet<&str> = problems.iter().filter_map(|problem| problem.volume.as_deref()).collect();
    let report = |path: &Path, volume: Option<String>, state: Option<VolumeState>| {
        let path = path.display().to_string();
        let found = if bad.contains(&*path) { VolumeState::Damaged } else { VolumeState::Good };
        VolumeReport { path, volume, state: state.unwrap_or(found) }
    };
    let label = |part: Part| match part {
        Part::Volume(_) => part.label(set.set.of),
        Part::Recovery(_) => part.label(set.set.recovery),
    };
    let volumes = set.volumes.iter().map(|v| report(&v.path, Some(v.label.clone()), None));
    let recovery = set.recovery.iter().map(|r| report(&r.path, Some(r.label.clone()), None));
    let broken = set.broken.iter().map(|b| report(&b.path, b.part.map(label), Some(VolumeState::Damaged)));
    let foreign = set.foreign.iter().map(|f| report(&f.path, Some(label(f.part)), Some(VolumeState::Foreign)));
    volumes.chain(recovery).chain(broken).chain(foreign).collect()
}
