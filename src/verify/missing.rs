//! Derives what would repair a bundle from the result of a check.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::chunks;
use super::table::Table;
use super::{ByteRange, Problem, ProblemKind, Report, Subject};
use crate::base::error::{Error, Result};
use crate::bundle::chunks::Reader;
use crate::bundle::sums::{self, MAX_SUMS};
use crate::bundle::{
    BUNDLE_JSON, Bundle, CHUNKS, DOCKER_JSON, FileEntry, INDEX_JSON, MAX_BUNDLE_JSON, MISSING_VERSION, Missing,
    MissingBlob, MissingRange, MissingTool, OCI_LAYOUT, SUMS, SUMS512, is_signature, is_tool,
};
use crate::content::chunks::{CHUNK, Chunks};
use crate::files::Layout;
use crate::oci::{Blake3, Digest};

/// Returns what a bundle lacks according to `report`, which must cover all its bytes. For volumes, the contents of absent
/// volumes count too. `tool` names the program that wrote the list.
///
/// Problems that fetched bytes cannot repair are left out: undeclared files, contradictions, links.
///
/// # Errors
/// `Damaged` if the identity of the bundle cannot be determined, or if more problems exist than the report lists. Also
/// errors of the disk.
pub fn missing_of(layout: Layout, report: &Report, tool: &str) -> Result<Missing> {
    let path = layout.path().to_owned();
    let shown = path.display();
    let identity = identity(&layout, report).ok_or_else(|| {
        let text = "neither bundle.json nor SHA256SUMS shows which bundle this was; export the whole bundle again";
        Error::damaged(format!("{shown}: {text}"))
    })?;
    let losses = || report.problems.iter().chain(&report.lacking).filter(|problem| is_loss(problem));
    if losses().any(|problem| matches!(problem.subject, Subject::Unlisted(_))) {
        return Err(Error::damaged(format!(
            "{shown}: it has more problems than can be listed; export the whole bundle again"
        )));
    }
    // If the identity differs, the sizes in `bundle.json` are not trusted.
    let lacks_chunks = layout.size_of(CHUNKS).is_none();
    let bundle = (report.identity == Some(identity)).then(|| Bundle::in_layout(layout).ok()).flatten();
    let bundle = bundle.filter(|bundle| bundle.identity() == identity);
    let files: HashMap<&str, &FileEntry> =
        bundle.iter().flat_map(Bundle::files).map(|file| (file.path.as_str(), file)).collect();
    // Volumes are written anew, from whole blobs.
    let table = bundle.as_ref().filter(|_| report.set.is_none());
    let table = table.and_then(|bundle| Table::read(bundle.layout(), bundle.json(), identity).reader);
    let mut blobs: BTreeMap<Digest, MissingBlob> = BTreeMap::new();
    for problem in losses() {
        let Some(digest) = Digest::of_blob_path(&problem.path) else { continue };
        let file = files.get(problem.path.as_str());
        let ranges = table.as_ref().zip(file).and_then(|(table, file)| ranges(table, file, &problem.ranges));
        let blob = MissingBlob { digest, size: file.map(|file| file.size), ranges: ranges.unwrap_or_default() };
        // If a blob has two problems, the one without ranges wins: more of the blob is fetched.
        let known = blobs.entry(digest).or_insert_with(|| blob.clone());
        if blob.ranges.is_empty() {
            *known = blob;
        }
    }
    let tools = tools(report, &files);
    let metadata = metadata(report, identity, lacks_chunks);
    let blobs = blobs.into_values().collect();
    Ok(Missing { gapferry_missing: MISSING_VERSION, tool: tool.to_owned(), identity, metadata, tools, blobs })
}

impl Report {
    /// Whether `gapferry repair` can put any of the problems right.
    pub fn is_repairable(&self) -> bool {
        let is_repairable = |problem: &Problem| match problem.kind {
            ProblemKind::CutShort => true,
            _ => is_loss(problem) && !is_signature(&problem.path),
        };
        self.problems.iter().any(is_repairable)
    }
}

/// Returns the identity. `SHA256SUMS` takes precedence over `bundle.json`, as in the check.
fn identity(layout: &Layout, report: &Report) -> Option<Digest> {
    let sums = layout.read(SUMS, MAX_SUMS).ok().flatten();
    let is_readable = || layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON).is_ok_and(|bytes| bytes.is_some());
    let of_json = || report.identity.filter(|_| is_readable() && !is_bad(report, BUNDLE_JSON));
    sums.and_then(|sums| sums::identity(&sums)).or_else(of_json)
}

/// Whether the bytes are missing or wrong.
fn is_loss(problem: &Problem) -> bool {
    use ProblemKind::{Malformed, Missing, Unreadable, WrongDigest, WrongSize};
    match problem.kind {
        Missing | WrongSize | WrongDigest | Unreadable => true,
        // A blob that is not a manifest but has its digest is what was exported.
        Malformed => !problem.path.starts_with("blobs/"),
        _ => false,
    }
}

fn is_bad(report: &Report, path: &str) -> bool {
    report.problems.iter().any(|problem| problem.path == path && is_loss(problem))
}

fn tools(report: &Report, files: &HashMap<&str, &FileEntry>) -> Vec<MissingTool> {
    let lost =
        report.problems.iter().chain(&report.lacking).filter(|problem| is_loss(problem) && is_tool(&problem.path));
    let paths: BTreeSet<&str> = lost.map(|problem| problem.path.as_str()).collect();
    let sha256 = |path| files.get(path).map(|file| file.digest);
    paths.into_iter().map(|path| MissingTool { path: path.to_owned(), sha256: sha256(path) }).collect()
}

/// `lacks_chunks`: no regular file `chunks.b3` exists. If the name is unsafe, it is a link.
fn metadata(report: &Report, identity: Digest, lacks_chunks: bool) -> Vec<String> {
    let has = |path: &str, kind| report.problems.iter().any(|problem| problem.path == path && problem.kind == kind);
    let disagrees = |path: &str| has(path, ProblemKind::Disagreement);
    let mut bad: BTreeSet<&str> = [OCI_LAYOUT, INDEX_JSON, DOCKER_JSON, SUMS512, SUMS, CHUNKS]
        .into_iter()
        .filter(|path| is_bad(report, path))
        .collect();
    if lacks_chunks && has(CHUNKS, ProblemKind::Unsafe) {
        bad.insert(CHUNKS);
    }
    if report.identity != Some(identity) {
        bad.insert(BUNDLE_JSON);
    } else if disagrees(SUMS) {
        bad.insert(SUMS);
    }
    let in_order = [OCI_LAYOUT, BUNDLE_JSON, INDEX_JSON, DOCKER_JSON, SUMS512, SUMS, CHUNKS];
    in_order.into_iter().filter(|path| bad.contains(path)).map(str::to_owned).collect()
}

/// Returns the ranges with the value of every chunk. `None` if the whole blob must be fetched, or if nothing proves the
/// values.
fn ranges(table: &Reader, file: &FileEntry, bad: &[ByteRange]) -> Option<Vec<MissingRange>> {
    let all = bad.iter().map(|range| range.last - range.first + 1).sum::<u64>();
    // Ranges of a segment are not always chunks of the blob.
    let are_chunks = bad.iter().all(|ByteRange { first, last }| {
        first.is_multiple_of(CHUNK) && ((last + 1).is_multiple_of(CHUNK) || last + 1 == file.size)
    });
    if bad.is_empty() || bad.len() >= chunks::MOST_RANGES || all == file.size || !are_chunks {
        return None;
    }
    let expected = table.values(&file.digest)?;
    bad.iter().map(|range| valued(&expected, *range)).collect()
}

fn valued(expected: &Chunks, ByteRange { first, last }: ByteRange) -> Option<MissingRange> {
    let (from, to) = (usize::try_from(first / CHUNK).ok()?, usize::try_from(last / CHUNK).ok()?);
    let values = expected.values().get(from..=to)?.iter().copied().map(Blake3::from).collect();
    Some(MissingRange { first, last, values })
}
