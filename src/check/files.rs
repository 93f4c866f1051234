//! Files against what is declared of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Depth, Problem, ProblemKind};
use crate::bundle::{BUNDLE_JSON, BundleJson, SIGNATURE, SUMS};
use crate::content::{Slice, in_parallel};
use crate::oci::{Algorithm, Digest, MAX_MANIFEST_SIZE};
use crate::progress::{Event, Events, Phase};
use crate::transport::layout::Layout;

/// The largest `SHA256SUMS` that is read, in bytes: room for a million files.
const MAX_SUMS: u64 = 256 * 1024 * 1024;

/// What is said of a file.
pub struct Declared {
    pub path: String,
    /// In bytes, where it is said.
    pub size: Option<u64>,
    pub sha256: String,
}

/// Brings together what `bundle.json` and `SHA256SUMS` declare; where they differ is a problem.
pub fn declared(layout: &Layout, bundle: Option<&BundleJson>, problems: &mut Vec<Problem>) -> Vec<Declared> {
    let sums = read_sums(layout, problems);
    let mut list: Vec<Declared> = Vec::new();
    let mut named = BTreeSet::new();
    if let Some(bundle) = bundle {
        for file in &bundle.files {
            if !named.insert(file.path.clone()) {
                problems.push(Problem::new(&file.path, ProblemKind::Disagreement).found("bundle.json names it twice"));
                continue;
            }
            list.push(Declared { path: file.path.clone(), size: Some(file.size), sha256: file.sha256.clone() });
        }
    }
    let Some(sums) = sums else { return list };
    let by_bundle: BTreeMap<&str, &str> = list.iter().map(|d| (d.path.as_str(), d.sha256.as_str())).collect();
    let mut only_in_sums = Vec::new();
    for (path, sha256) in &sums {
        match by_bundle.get(path.as_str()) {
            Some(own) if *own == sha256 => {}
            Some(own) => problems.push(
                Problem::new(path, ProblemKind::Disagreement)
                    .expected(format!("{own} (bundle.json)"))
                    .found(format!("{sha256} (SHA256SUMS)")),
            ),
            None => only_in_sums.push((path.clone(), sha256.clone())),
        }
    }
    if bundle.is_some() {
        for path in by_bundle.keys().filter(|path| !sums.contains_key(**path)) {
            problems.push(Problem::new(path, ProblemKind::Disagreement).found("SHA256SUMS does not name it"));
        }
        if !sums.contains_key(BUNDLE_JSON) {
            problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).found("SHA256SUMS does not name it"));
        }
        for (path, _) in only_in_sums.iter().filter(|(path, _)| path != BUNDLE_JSON) {
            problems.push(Problem::new(path, ProblemKind::Disagreement).found("only SHA256SUMS names it"));
        }
    }
    list.extend(only_in_sums.into_iter().map(|(path, sha256)| Declared { path, size: None, sha256 }));
    list
}

fn read_sums(layout: &Layout, problems: &mut Vec<Problem>) -> Option<BTreeMap<String, String>> {
    let bytes = match layout.read(SUMS, MAX_SUMS) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            problems.push(Problem::new(SUMS, ProblemKind::Missing));
            return None;
        }
        Err(error) => {
            problems.push(Problem::new(SUMS, ProblemKind::Unreadable).found(error.chain()));
            return None;
        }
    };
    let mut sums = BTreeMap::new();
    for (at, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        let parsed = line.split_once("  ").filter(|(sum, path)| is_sum(sum) && !path.is_empty());
        match parsed {
            Some((sum, path)) if sums.insert(path.to_owned(), sum.to_owned()).is_none() => {}
            Some((_, path)) => {
                problems.push(Problem::new(SUMS, ProblemKind::Malformed).found(format!("{path} is named twice")));
            }
            None => {
                let found = format!("line {} is not `<sha256>  <path>`", at + 1);
                problems.push(Problem::new(SUMS, ProblemKind::Malformed).found(found));
            }
        }
    }
    Some(sums)
}

fn is_sum(text: &str) -> bool {
    format!("sha256:{text}").parse::<Digest>().is_ok()
}

/// Every declared file against its size and digest, and every file against the declarations.
pub fn check(layout: &Layout, declared: &[Declared], depth: Depth, events: &Events, problems: &mut Vec<Problem>) {
    let names: BTreeSet<&str> = declared.iter().map(|declared| declared.path.as_str()).collect();
    for (path, _) in layout.entries().filter(|(path, _)| !names.contains(path)) {
        if !matches!(path, BUNDLE_JSON | SUMS | SIGNATURE) {
            problems.push(undeclared(path));
        }
    }
    let mut to_hash: Vec<(&Declared, u64)> = Vec::new();
    for file in declared {
        match (layout.size_of(&file.path), file.size) {
            (None, _) => {
                let problem = Problem::new(&file.path, ProblemKind::Missing);
                problems.push(match file.size {
                    Some(size) => problem.expected(format!("{size} bytes")),
                    None => problem,
                });
            }
            (Some(found), Some(size)) if found != size => problems.push(
                Problem::new(&file.path, ProblemKind::WrongSize)
                    .expected(format!("{size} bytes"))
                    .found(format!("{found} bytes")),
            ),
            (Some(size), _) if depth == Depth::Full || is_small_metadata(&file.path, size) => {
                to_hash.push((file, size))
            }
            (Some(_), _) => {}
        }
    }
    // The largest first: one that comes last would keep all other cores waiting.
    to_hash.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let bytes = to_hash.iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
    events.report(Event::Phase { phase: Phase::Verify, items: to_hash.len() as u64, bytes });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = in_parallel(&to_hash, threads, |(file, _)| {
        let problem = hash(layout, file, events);
        events.report(Event::ItemDone);
        problem
    });
    problems.extend(found.into_iter().flatten());
}

fn undeclared(path: &str) -> Problem {
    let unfinished = path.ends_with(".partial");
    let problem = Problem::new(path, ProblemKind::Undeclared);
    if unfinished { problem.found("a file of an unfinished export") } else { problem }
}

/// What an import relies on before the first push. Manifests cannot be told from other blobs by name: small ones are
/// all hashed here, the others when they are read as manifests.
fn is_small_metadata(path: &str, size: u64) -> bool {
    !path.starts_with("blobs/") && size <= 16 * MAX_MANIFEST_SIZE
}

fn hash(layout: &Layout, file: &Declared, events: &Events) -> Option<Problem> {
    let slice = match layout.slice(&file.path) {
        Ok(slice) => slice?,
        Err(error) => return Some(Problem::new(&file.path, ProblemKind::Unreadable).found(error.chain())),
    };
    let expected = format!("sha256:{}", file.sha256);
    let id = expected.parse().unwrap_or(Digest::Sha256([0; 32]));
    let size = slice.size();
    events.report(Event::BlobStarted { digest: id, size, present: 0 });
    let problem = compare(&slice, file, &expected, &|bytes| events.report(Event::BlobAdvanced { digest: id, bytes }));
    events.report(Event::BlobFinished { digest: id });
    problem
}

/// Against what is declared; and, for a blob, against its own name.
fn compare(slice: &Slice, file: &Declared, expected: &str, progress: &dyn Fn(u64)) -> Option<Problem> {
    let unreadable = |e: std::io::Error| Some(Problem::new(&file.path, ProblemKind::Unreadable).found(e));
    let found = match slice.hash(Algorithm::Sha256, progress) {
        Ok(found) => found,
        Err(error) => return unreadable(error),
    };
    let own_name = name_of(&file.path);
    if found.to_string() != expected {
        let expected = own_name.map_or_else(|| expected.to_owned(), |name| name.to_string());
        return Some(Problem::new(&file.path, ProblemKind::WrongDigest).expected(expected).found(found));
    }
    let own_name = own_name?;
    let real = match own_name.algorithm() {
        Algorithm::Sha256 => Ok(found),
        Algorithm::Sha512 => slice.hash(Algorithm::Sha512, &|_| ()),
    };
    match real {
        Ok(real) if real == own_name => None,
        Ok(real) => Some(Problem::new(&file.path, ProblemKind::WrongDigest).expected(own_name).found(real)),
        Err(error) => unreadable(error),
    }
}

/// The digest that a blob's path claims.
fn name_of(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}
