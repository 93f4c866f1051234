//! What is said of the files: `bundle.json` and `SHA256SUMS` brought together, and which of them is to blame where they
//! differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, ProblemKind, Problems};
use crate::bundle::{BUNDLE_JSON, BundleJson, MAX_SUMS, SUMS};
use crate::content::chunks::Chained;
use crate::files::Layout;
use crate::oci::{Digest, Hex64};

/// `SHA256SUMS` has at most so many lines, since short ones take more memory than room.
const MAX_LINES: usize = 1_100_000;

/// What is said of a file.
pub struct Declared {
    pub path: String,
    /// In bytes, where it is said.
    pub size: Option<u64>,
    pub sha256: Hex64,
    /// Of a blob, where it is said.
    pub blake3: Option<Chained>,
}

/// Path and sha256, as `SHA256SUMS` has them.
pub type Sums = BTreeMap<String, Hex64>;

/// Brings together what `bundle.json` and `SHA256SUMS` declare; where they differ is a problem.
///
/// `json` is the sha256 of `bundle.json`. If `SHA256SUMS` has another one for it, `bundle.json` has changed and is not
/// believed; else `SHA256SUMS` is not.
pub fn declared(
    layout: &Layout,
    bundle: Option<&BundleJson>,
    json: Option<Digest>,
    problems: &mut Problems,
) -> Vec<Declared> {
    let sums = read_sums(layout, SUMS, problems);
    let Some(bundle) = bundle else {
        return sums
            .into_iter()
            .flatten()
            .map(|(path, sha256)| Declared { path, size: None, sha256, blake3: None })
            .collect();
    };
    let mut list = by_bundle(bundle, problems);
    let Some(sums) = sums else { return list };
    let own_sum = sums.get(BUNDLE_JSON);
    let changed = own_sum.is_some_and(|sum| json.is_some_and(|json| sum.sha256() != Some(json)));
    let to_blame = if changed { BUNDLE_JSON } else { SUMS };
    compare(&list, &sums, to_blame, problems);
    if changed {
        for file in &mut list {
            file.size = None;
            file.blake3 = None;
            if let Some(sum) = sums.get(&file.path) {
                file.sha256.clone_from(sum);
            }
        }
    }
    let own =
        own_sum.map(|sum| Declared { path: BUNDLE_JSON.to_owned(), size: None, sha256: sum.clone(), blake3: None });
    list.extend(own);
    list
}

fn by_bundle(bundle: &BundleJson, problems: &mut Problems) -> Vec<Declared> {
    let mut list: Vec<Declared> = Vec::new();
    let mut named = BTreeSet::new();
    for file in &bundle.files {
        if named.insert(&file.path) {
            let blake3 = file.blake3.as_ref().and_then(|hex| {
                let parsed = hex.bytes().copied();
                if parsed.is_none() {
                    let found = format!("the blake3 of {} is not 64 hexadecimal digits", file.path);
                    problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Malformed).found(found));
                }
                parsed
            });
            list.push(Declared { path: file.path.clone(), size: Some(file.size), sha256: file.sha256.clone(), blake3 });
        } else {
            let found = format!("{} is named twice", file.path);
            problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Disagreement).found(found));
        }
    }
    list
}

/// Notes every difference between the two on the one that is `to_blame`.
fn compare(list: &[Declared], sums: &Sums, to_blame: &str, problems: &mut Problems) {
    let disagreement = || Problem::new(to_blame, ProblemKind::Disagreement);
    for file in list {
        if let Some(sum) = sums.get(&file.path).filter(|sum| **sum != file.sha256) {
            let expected = format!("{} has {} (bundle.json)", file.path, file.sha256);
            problems.push(disagreement().expected(expected).found(format!("{sum} (SHA256SUMS)")));
        }
    }
    let of_bundle: BTreeSet<&str> = list.iter().map(|file| file.path.as_str()).collect();
    let of_sums: BTreeSet<&str> = sums.keys().map(String::as_str).filter(|path| *path != BUNDLE_JSON).collect();
    let mut one_sided = |paths: Vec<&str>, what: &str| {
        problems.extend(some_of(&paths).map(|paths| disagreement().found(format!("{what} {paths}"))));
    };
    one_sided(of_bundle.difference(&of_sums).copied().collect(), "SHA256SUMS does not name");
    one_sided(of_sums.difference(&of_bundle).copied().collect(), "only SHA256SUMS names");
    if !sums.contains_key(BUNDLE_JSON) {
        let found = format!("it does not name {BUNDLE_JSON}");
        problems.push(Problem::new(SUMS, ProblemKind::Disagreement).found(found));
    }
}

/// The first, and how many more.
fn some_of(items: &[&str]) -> Option<String> {
    match items {
        [] => None,
        [only] => Some((*only).to_owned()),
        [first, more @ ..] => Some(format!("{first} and {} more", more.len())),
    }
}

/// The sums in the file `name`; `None` when there is nothing to go by. What is wrong in it is told once, however long it is.
pub fn read_sums(layout: &Layout, name: &str, problems: &mut Problems) -> Option<Sums> {
    let bytes = match layout.read(name, MAX_SUMS) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            problems.push(Problem::new(name, ProblemKind::Missing));
            return None;
        }
        Err(error) => {
            problems.push(Problem::new(name, ProblemKind::Unreadable).found(error.chain()));
            return None;
        }
    };
    let (mut sums, mut wrong) = (Sums::new(), Vec::new());
    for (at, line) in String::from_utf8_lossy(&bytes).lines().enumerate().take(MAX_LINES) {
        let parsed = line.split_once("  ").map(|(sum, path)| (Hex64::from(sum), path));
        let parsed = parsed.filter(|(sum, path)| sum.bytes().is_some() && !path.is_empty());
        let fits = parsed.is_some_and(|(sum, path)| sums.insert(path.to_owned(), sum).is_none());
        if !fits {
            wrong.push(at + 1);
        }
    }
    if sums.len() + wrong.len() >= MAX_LINES {
        let found = format!("it has more lines than a bundle has files; no more than {MAX_LINES} are read");
        problems.push(Problem::new(name, ProblemKind::Malformed).found(found));
    }
    if let Some(first) = wrong.first() {
        let more = if wrong.len() > 1 { format!(", nor are {} others", wrong.len() - 1) } else { String::new() };
        let found = format!("line {first} is not `<sha256>  <path>` of another file{more}");
        problems.push(Problem::new(name, ProblemKind::Malformed).found(found));
    }
    (!sums.is_empty()).then_some(sums)
}
