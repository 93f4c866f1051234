//! Determines which volumes are absent or unusable, and which images that affects.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::super::graph::NeededFiles;
use super::super::{Problem, ProblemKind, Subject};
use super::is_repaired_by_volume;
use crate::bundle::VOLUMES;
use crate::bundle::is_tool;
use crate::bundle::volumes::{Part, Volume, VolumeFile, Volumes};

/// Shared by all problems of a volume.
type Images = Arc<BTreeSet<String>>;

/// Removes and returns the problems of files that are missing only because their volumes are absent.
pub fn take_lacking(set: &Volumes, problems: &mut Vec<Problem>) -> Vec<Problem> {
    if set.is_complete() {
        return Vec::new();
    }
    let whole = |file: &&VolumeFile| file.segment.is_none();
    let held: HashSet<&str> = set
        .volumes
        .iter()
        .flat_map(|volume| volume.json.files.iter().filter(whole))
        .map(|file| file.path.as_str())
        .collect();
    let is_elsewhere = |problem: &Problem| {
        let is_held = held.contains(problem.path.as_str());
        let is_unlisted = matches!(problem.subject, Subject::Unlisted(_));
        let can_be = problem.path.starts_with("blobs/") || is_tool(&problem.path) || is_unlisted;
        problem.kind == ProblemKind::Missing && can_be && !is_held
    };
    let (lacking, others) = problems.drain(..).partition(is_elsewhere);
    *problems = others;
    lacking
}

/// Adds the affected images to the problems of volumes, and a problem for every volume that was not given. For a single
/// volume, the absence of the others is no problem.
pub fn add_reach(set: &Volumes, problems: &mut Vec<Problem>, lacking: &[Problem], reach: &NeededFiles) {
    let missing = set.missing();
    let gone: BTreeSet<u32> =
        set.broken.iter().filter_map(|broken| number(broken.part)).chain(missing.clone()).collect();
    let costs = costs(set, &gone, lacking, reach);
    for problem in problems.iter_mut().filter(|problem| problem.path.is_empty() || problem.path.starts_with(VOLUMES)) {
        let at = |path: &std::path::Path| Some(path.display().to_string()) == problem.volume;
        let broken = || set.broken.iter().find(|broken| at(&broken.path));
        problem.images = match set.volumes.iter().find(|volume| at(&volume.path)) {
            Some(volume) => users(volume, reach),
            None => broken().and_then(|broken| costs.get(&number(broken.part)?).cloned()).unwrap_or_default(),
        };
    }
    spare(set, problems);
    if set.given > 1 && !set.volumes.is_empty() {
        let remedy = remedy(set, gone.len());
        problems.extend(missing.into_iter().map(|number| {
            let problem = Problem::new(&format!("volume {number} of {}", set.set.of), ProblemKind::Missing);
            let (images, subject) = (costs.get(&number).cloned().unwrap_or_default(), Subject::LostVolume(number));
            Problem { images, remedy, subject, ..problem }
        }));
    }
}

/// Clears the images of a bad copy if another copy of the same volume is good.
fn spare(set: &Volumes, problems: &mut [Problem]) {
    let bad: HashSet<String> = problems.iter().filter_map(|problem| problem.volume.clone()).collect();
    let shown = |path: &std::path::Path| path.display().to_string();
    let good: HashSet<u32> =
        set.volumes.iter().filter(|v| !bad.contains(&shown(&v.path))).map(|volume| volume.json.number).collect();
    let twice = set.volumes.iter().map(|volume| (shown(&volume.path), Some(volume.json.number)));
    let broken = set.broken.iter().map(|broken| (shown(&broken.path), number(broken.part)));
    let spared: HashSet<String> = twice
        .chain(broken)
        .filter(|(_, number)| number.is_some_and(|number| good.contains(&number)))
        .map(|(path, _)| path)
        .collect();
    let of_spared = |problem: &&mut Problem| problem.volume.as_ref().is_some_and(|volume| spared.contains(volume));
    for problem in problems.iter_mut().filter(of_spared).filter(|problem| is_repaired_by_volume(problem.kind)) {
        problem.images = Images::default();
        problem.remedy = "leave this copy out: another copy of the same volume is good";
    }
}

fn number(part: Option<Part>) -> Option<u32> {
    match part? {
        Part::Volume(number) => Some(number),
        Part::Recovery(_) => None,
    }
}

fn remedy(set: &Volumes, gone: usize) -> &'static str {
    match set.recovery.len() >= gone {
        true => "bring it too; if it is lost, `gapferry repair` reconstructs it from the recovery volumes you have",
        false => "bring it too; if it is lost, `export --only-volume` writes it again",
    }
}

/// Returns the images that need a file of the volume.
fn users(volume: &Volume, reach: &NeededFiles) -> Images {
    let held: HashSet<&str> = volume.json.files.iter().map(|file| file.path.as_str()).collect();
    let needs = |paths: &BTreeSet<Arc<str>>| paths.iter().any(|path| held.contains(&**path));
    Arc::new(reach.images.iter().filter(|(_, paths)| needs(paths)).map(|(image, _)| image.clone()).collect())
}

/// Returns, for each of the volumes that are `gone`, the images that cannot be used. If the contents of these volumes are
/// unknown, each counts for all images that lack a file.
fn costs(set: &Volumes, gone: &BTreeSet<u32>, lacking: &[Problem], reach: &NeededFiles) -> HashMap<u32, Images> {
    // Another copy of the volume may be usable.
    let gone: BTreeSet<u32> = gone.iter().copied().filter(|number| !set.here().any(|here| here == *number)).collect();
    let held = if gone.len() > 1 { set.held() } else { None };
    let Some(held) = held else {
        let all: Images = Arc::new(lacking.iter().flat_map(|problem| problem.images.iter().cloned()).collect());
        return gone.into_iter().map(|number| (number, all.clone())).collect();
    };
    let mut holders: HashMap<&str, Vec<u32>> = HashMap::new();
    for (number, files) in (1..).zip(&held).filter(|(number, _)| gone.contains(number)) {
        files.iter().for_each(|file| holders.entry(&file.path).or_default().push(number));
    }
    let mut costs: BTreeMap<u32, BTreeSet<String>> = gone.into_iter().map(|number| (number, BTreeSet::new())).collect();
    for (image, paths) in &reach.images {
        let needed: BTreeSet<u32> = paths.iter().filter_map(|path| holders.get(&**path)).flatten().copied().collect();
        for number in needed {
            costs.entry(number).or_default().insert(image.clone());
        }
    }
    costs.into_iter().map(|(number, images)| (number, Arc::new(images))).collect()
}

/// Whether the problem is a volume that was not given.
pub fn is_of_lost_volume(problem: &Problem) -> bool {
    matches!(problem.subject, Subject::LostVolume(_))
}
