//! What is said of the files: `bundle.json` and `SHA256SUMS` brought together, and which of them is to blame where they
//! differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{Document, Problem, ProblemKind, Problems};
use crate::bundle::sums::{self, MAX_LINES, MAX_SUMS};
use crate::bundle::{BUNDLE_JSON, FileEntry, SUMS, SUMS512};
use crate::files::Layout;
use crate::oci::{Algorithm, Digest};

/// What is said of a file.
pub struct Declared {
    pub path: String,
    /// In bytes, where it is said.
    pub size: Option<u64>,
    pub digest: Digest,
}

/// Path and digest, as a file of sums has them.
pub type Sums = BTreeMap<String, Digest>;

/// All that is said.
#[derive(Default)]
pub struct Declarations {
    pub files: Vec<Declared>,
    /// `SHA256SUMS` has another digest of `bundle.json`, which is not believed then.
    pub changed: bool,
    /// No list can be read to its last line: the blobs that are there are declared by their names, too, and metadata may be there that
    /// no line names.
    pub by_names: bool,
}

/// Brings together what `bundle.json` and `SHA256SUMS` declare; where they differ is a problem.
///
/// If `SHA256SUMS` has another digest for `bundle.json` than its own, `bundle.json` has changed and is not believed; else
/// `SHA256SUMS` is not. Where a signature has proven both, they agree.
pub fn declared(layout: &Layout, document: &Document<'_>, problems: &mut Problems) -> Declarations {
    let of_json = |digest| Declared { path: BUNDLE_JSON.to_owned(), size: None, digest };
    let Some((bundle, identity)) = document.json.zip(document.identity) else { return by_sums(layout, problems) };
    let file = |file: &FileEntry| Declared { path: file.path.clone(), size: Some(file.size), digest: file.digest };
    let mut files: Vec<Declared> = bundle.files.iter().map(file).collect();
    let by_names = false;
    if document.is_proven {
        files.push(of_json(identity));
        return Declarations { files, changed: false, by_names };
    }
    let Some(bytes) = read_bytes(layout, SUMS, problems) else {
        return Declarations { files, changed: false, by_names };
    };
    if bytes == bundle.sha256sums(identity).as_bytes() {
        files.push(of_json(identity));
        return Declarations { files, changed: false, by_names };
    }
    let Some(SumsList { sums, .. }) = parse(&bytes, SUMS, problems) else {
        return Declarations { files, changed: false, by_names };
    };
    let own = sums.get(BUNDLE_JSON).copied();
    let changed = own.is_some_and(|own| own != identity);
    if !compare(&files, &sums, if changed { BUNDLE_JSON } else { SUMS }, problems) && !changed {
        let found = "it does not follow from bundle.json byte for byte";
        problems.push(Problem::new(SUMS, ProblemKind::Disagreement).found(found));
    }
    if changed {
        for file in &mut files {
            file.size = None;
            // A blob is what its name says.
            if let Some(sum) = sums.get(&file.path).filter(|_| !file.path.starts_with("blobs/")) {
                file.digest = *sum;
            }
        }
    }
    files.extend(own.map(of_json));
    Declarations { files, changed, by_names }
}

/// What the sums declare without `bundle.json`. A blob whose line is damaged is what its name says.
fn by_sums(layout: &Layout, problems: &mut Problems) -> Declarations {
    let mut read = |name| read_list(layout, name, problems).map(|list| list.without_misnamed(layout, name, problems));
    let of_256 = read(SUMS);
    let of_512 = layout.size_of(SUMS512).map(|_| read(SUMS512).unwrap_or_default());
    let by_names = !of_256.iter().chain(&of_512).all(|list| list.is_whole) || of_256.is_none();
    let of_512 = of_512.filter(|_| of_256.is_some()).unwrap_or_default();
    let mut sums = of_256.unwrap_or_default().sums;
    sums.extend(of_512.sums);
    if by_names {
        for (path, _) in layout.entries() {
            if let Some(digest) = Digest::of_blob_path(path) {
                sums.entry(path.to_owned()).or_insert(digest);
            }
        }
    }
    let files = sums.into_iter().map(|(path, digest)| Declared { path, size: None, digest }).collect();
    Declarations { files, changed: true, by_names }
}

/// Notes every difference between the two on the one that is `to_blame`; whether there is one.
fn compare(list: &[Declared], sums: &Sums, to_blame: &str, problems: &mut Problems) -> bool {
    let mut differs = false;
    let mut note = |problem: Problem| {
        differs = true;
        problems.push(problem);
    };
    let disagreement = || Problem::new(to_blame, ProblemKind::Disagreement);
    let summed = || list.iter().filter(|file| file.digest.algorithm() == Algorithm::Sha256);
    for file in summed() {
        if let Some(sum) = sums.get(&file.path).filter(|sum| **sum != file.digest) {
            let expected = format!("{} has {} (bundle.json)", file.path, file.digest.hex());
            note(disagreement().expected(expected).found(format!("{} (SHA256SUMS)", sum.hex())));
        }
    }
    let of_bundle: BTreeSet<&str> = summed().map(|file| file.path.as_str()).collect();
    let of_sums: BTreeSet<&str> = sums.keys().map(String::as_str).filter(|path| *path != BUNDLE_JSON).collect();
    let mut one_sided = |paths: Vec<&str>, what: &str| {
        if let Some(paths) = some_of(&paths) {
            note(disagreement().found(format!("{what} {paths}")));
        }
    };
    one_sided(of_bundle.difference(&of_sums).copied().collect(), "SHA256SUMS does not name");
    one_sided(of_sums.difference(&of_bundle).copied().collect(), "only SHA256SUMS names");
    if !sums.contains_key(BUNDLE_JSON) {
        let found = format!("it does not name {BUNDLE_JSON}");
        note(Problem::new(SUMS, ProblemKind::Disagreement).found(found));
    }
    differs
}

/// The first, and how many more.
fn some_of(items: &[&str]) -> Option<String> {
    match items {
        [] => None,
        [only] => Some((*only).to_owned()),
        [first, more @ ..] => Some(format!("{first} and {} more", more.len())),
    }
}

/// The sums in the file `name`; `None` when there are none. What is wrong in it is a problem, once however long it is.
pub fn read_sums(layout: &Layout, name: &str, problems: &mut Problems) -> Option<Sums> {
    read_list(layout, name, problems).map(|list| list.sums)
}

fn read_list(layout: &Layout, name: &str, problems: &mut Problems) -> Option<SumsList> {
    parse(&read_bytes(layout, name, problems)?, name, problems)
}

fn read_bytes(layout: &Layout, name: &str, problems: &mut Problems) -> Option<bytes::Bytes> {
    match layout.read(name, MAX_SUMS) {
        Ok(Some(bytes)) => return Some(bytes),
        Ok(None) => problems.push(Problem::new(name, ProblemKind::Missing)),
        Err(error) => problems.push(Problem::new(name, ProblemKind::Unreadable).found(error.chain())),
    }
    None
}

/// A file of sums, as far as its lines can be read.
#[derive(Default)]
struct SumsList {
    sums: Sums,
    /// All of them can.
    is_whole: bool,
}

impl SumsList {
    /// Without lines that give a blob another digest than its name does. A line can be damaged in either, and what is there tells in
    /// which; if neither blob is there, the one that is named is missing.
    fn without_misnamed(mut self, layout: &Layout, name: &str, problems: &mut Problems) -> SumsList {
        let (mut first, mut number) = (None, 0_usize);
        self.sums.retain(|path, digest| {
            let Some(named) = Digest::of_blob_path(path).filter(|named| named != digest) else { return true };
            number += 1;
            first.get_or_insert_with(|| format!("{path} has {}", digest.hex()));
            let is_of_other = layout.size_of(path).is_none() && layout.size_of(&digest.blob_path()).is_some();
            *digest = named;
            !is_of_other
        });
        if let Some(first) = first {
            let more = if number > 1 { format!(", and {} more", number - 1) } else { String::new() };
            let found = format!("{first}: a line gives a blob another digest than its name does{more}");
            problems.push(Problem::new(name, ProblemKind::Malformed).found(found));
            self.is_whole = false;
        }
        self
    }
}

fn parse(bytes: &[u8], name: &str, problems: &mut Problems) -> Option<SumsList> {
    let algorithm = if name == SUMS512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
    let (mut sums, mut wrong, mut lines) = (Sums::new(), Vec::new(), 0);
    for line in sums::lines(bytes, algorithm) {
        lines += 1;
        let fits = line.is_some_and(|line| sums.insert(line.path.to_owned(), line.digest).is_none());
        if !fits {
            wrong.push(lines);
        }
    }
    if lines >= MAX_LINES {
        let found = format!("it has more lines than a bundle has files; no more than {MAX_LINES} are read");
        problems.push(Problem::new(name, ProblemKind::Malformed).found(found));
    }
    if let Some(first) = wrong.first() {
        let more = if wrong.len() > 1 { format!(", nor are {} others", wrong.len() - 1) } else { String::new() };
        let found = format!("line {first} is not `<{}>  <path>` of another file{more}", algorithm.name());
        problems.push(Problem::new(name, ProblemKind::Malformed).found(found));
    }
    if lines == 0 {
        problems.push(Problem::new(name, ProblemKind::Malformed).found("it is empty"));
    }
    let is_whole = wrong.is_empty() && lines < MAX_LINES;
    (!sums.is_empty()).then_some(SumsList { sums, is_whole })
}
