//! Combines what `bundle.json` and `SHA256SUMS` declare about the files, and decides which of the two is at fault if they
//! differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{Document, Problem, ProblemKind, Problems};
use crate::base::progress::units::count;
use crate::bundle::sums::{self, MAX_LINES, MAX_SUMS};
use crate::bundle::{BUNDLE_JSON, FileEntry, SUMS, SUMS512};
use crate::files::Layout;
use crate::oci::{Algorithm, Digest};

/// What is declared about a file.
pub struct Declared {
    pub path: String,
    /// Size in bytes, if it is declared.
    pub size: Option<u64>,
    pub digest: Digest,
}

/// Digests by path, as a sums file lists them.
pub type Sums = BTreeMap<String, Digest>;

/// Everything that is declared.
#[derive(Default)]
pub struct Declarations {
    pub files: Vec<Declared>,
    /// Whether `SHA256SUMS` gives another digest for `bundle.json`, which is then not trusted.
    pub changed: bool,
    /// Whether no list could be read to its last line. Blobs that exist are then declared by their own names as well, and
    /// metadata that no line lists is allowed.
    pub by_names: bool,
}

/// Combines what `bundle.json` and `SHA256SUMS` declare. Every difference is a problem.
///
/// If `SHA256SUMS` gives another digest for `bundle.json` than it has, `bundle.json` has changed and is not trusted.
/// Otherwise, `SHA256SUMS` is at fault. If a signature has proven both, they agree.
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
        let found = "it differs from the sums that follow from bundle.json";
        problems.push(Problem::new(SUMS, ProblemKind::Disagreement).found(found));
    }
    if changed {
        for file in &mut files {
            file.size = None;
            // The name of a blob is its digest.
            if let Some(sum) = sums.get(&file.path).filter(|_| !file.path.starts_with("blobs/")) {
                file.digest = *sum;
            }
        }
    }
    files.extend(own.map(of_json));
    Declarations { files, changed, by_names }
}

/// Returns what the sums declare without `bundle.json`. The name of a blob takes precedence over a damaged line.
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

/// Reports every difference between the two as a problem of the file `to_blame`. Returns whether they differ.
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
    one_sided(of_bundle.difference(&of_sums).copied().collect(), "SHA256SUMS does not list");
    one_sided(of_sums.difference(&of_bundle).copied().collect(), "only SHA256SUMS lists");
    if !sums.contains_key(BUNDLE_JSON) {
        let found = format!("it does not list {BUNDLE_JSON}");
        note(Problem::new(SUMS, ProblemKind::Disagreement).found(found));
    }
    differs
}

/// Describes a list of paths: the first, and the number of the others.
fn some_of(items: &[&str]) -> Option<String> {
    match items {
        [] => None,
        [only] => Some((*only).to_owned()),
        [first, more @ ..] => Some(format!("{first} and {} more", more.len())),
    }
}

/// Returns the sums in the file `name`, or `None` if it lists none. All damaged lines of the file are one problem.
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

/// A sums file, as far as its lines can be read.
#[derive(Default)]
struct SumsList {
    sums: Sums,
    /// Whether every line could be read.
    is_whole: bool,
}

impl SumsList {
    /// Drops lines that give a blob another digest than its name does. Either part of such a line can be damaged: the line
    /// is dropped if only a blob with the digest exists, and otherwise the name decides.
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
            let found = format!("{first}: the line gives the blob another digest than its name{more}");
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
        let found = format!("it has more lines than a bundle has files; only {MAX_LINES} are read");
        problems.push(Problem::new(name, ProblemKind::Malformed).found(found));
    }
    if let Some(first) = wrong.first() {
        let more = match wrong.len() - 1 {
            0 => String::new(),
            more => format!("; also {}", count(more, "more line")),
        };
        let found =
            format!("line {first} is malformed or repeats a path (expected `<{}>  <path>`){more}", algorithm.name());
        problems.push(Problem::new(name, ProblemKind::Malformed).found(found));
    }
    if lines == 0 {
        problems.push(Problem::new(name, ProblemKind::Malformed).found("it is empty"));
    }
    let is_whole = wrong.is_empty() && lines < MAX_LINES;
    (!sums.is_empty()).then_some(SumsList { sums, is_whole })
}
