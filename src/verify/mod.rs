//! Checks a bundle and returns every problem as data.
//!
//! A [`Report`] lists all problems; the check never stops at the first. An error means that there was nothing to check.
//! Damaged files are still used as far as possible: without a readable list, the names of blobs are their digests.
//!
//! # Threats
//! The whole bundle may be forged: a check shows only that the bundle agrees with itself. Whether it is the expected bundle
//! is a question for its identity and signature. A bundle can also be built to be endless, with a million contradictions,
//! or thousands of images that share thousands of layers. The first problems of a kind are listed and the others counted,
//! and what would not fit into memory is refused.

mod chunks;
mod declared;
mod docker;
mod files;
mod graph;
mod index;
mod loaders;
mod manifests;
mod missing;
mod passing;
mod problems;
mod refusal;
mod signatures;
mod table;
mod volumes;
mod whole_volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::base::error::{Kind, Result};
use crate::base::progress::Events;
use crate::bundle::volumes::Opened;
use crate::bundle::{
    BUNDLE_JSON, BundleJson, CHUNKS, MAX_BUNDLE_JSON, Parent, Proven, SUMS, identity_of, is_tool, no_bundle,
    refuse_unfinished, signed_file,
};
use crate::files::Layout;
use crate::oci::Digest;
use crate::pipeline::lock::MissingImage;
pub use missing::missing_of;
pub use passing::pass;
use problems::Problems;
pub use refusal::{Refusal, refuse};
pub use table::BlobProof;
use table::Table;
pub use volumes::{SetReport, VolumeReport, VolumeState, is_of_lost_volume};
use whole_volumes::WholeVolumes;

/// How much a check reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every byte, proven by digest; `chunks.b3` is checked in the same pass.
    Full,
    /// Every byte; blobs are checked by `chunks.b3` where it may be used.
    Chunks,
    /// Sizes of all files, and digests of metadata and manifests: for an import, which proves blobs while it pushes them.
    Structure,
}

/// The result of a check.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// SHA-256 of `bundle.json`, if it could be read.
    pub identity: Option<Digest>,
    /// Number of images in the lock, or in `index.json` if the lock cannot be read.
    pub image_count: usize,
    /// Images that the export was asked for and could not get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingImage>,
    /// Number of files that exist.
    pub files: usize,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// What proved the blobs, if they were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<BlobProof>,
    /// Why `chunks.b3` did not prove the blobs, although the check should have used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof_reason: Option<&'static str>,
    /// The bundles that this increment builds on. Empty if the bundle is complete in itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// What the bundle expects at the target.
    #[serde(skip_serializing_if = "Expects::is_nothing")]
    pub expects: Expects,
    /// Sorted by path.
    pub problems: Vec<Problem>,
    /// The volumes, if volumes of a bundle were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<SetReport>,
    /// Files that are missing only because their volumes are absent: not problems of the volumes that were given.
    #[serde(skip)]
    pub lacking: Vec<Problem>,
}

/// Blobs and manifests that an increment leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expects {
    pub blobs: usize,
    pub bytes: u64,
}

impl Expects {
    pub fn is_nothing(&self) -> bool {
        self.blobs == 0
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Path relative to the bundle, or to the volume. Empty for the tar itself.
    pub path: String,
    /// The volume that has the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What is wrong, for programs.
    #[serde(rename = "code")]
    pub kind: ProblemKind,
    /// What should be there, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was found, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Where the bytes are wrong, in whole chunks, if known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<ByteRange>,
    /// The images that cannot be used because of the problem. Problems that affect the same images share one set.
    #[serde(serialize_with = "shared")]
    pub images: Arc<BTreeSet<String>>,
    /// What to do.
    pub remedy: &'static str,
    /// What has the problem, if it is not a file.
    #[serde(skip)]
    pub subject: Subject,
}

/// What has a problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The file at its path.
    #[default]
    File,
    /// A volume that was not given, with its number.
    LostVolume(u32),
    /// This many more problems of the same kind, which are only counted.
    Unlisted(usize),
}

/// A range of a file, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ByteRange {
    /// The first byte, counted from 0.
    pub first: u64,
    /// The last byte.
    pub last: u64,
}

/// What is wrong with a file: the `code` of its problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The file is declared and does not exist.
    Missing,
    /// The size differs from the declared size.
    WrongSize,
    /// The digest differs from the declared digest.
    WrongDigest,
    /// The file system could not read the file.
    Unreadable,
    /// The contents are not of the required kind: not JSON, not a manifest, another version.
    Malformed,
    /// The file exists and is not declared.
    Undeclared,
    /// Two files of the bundle contradict each other.
    Disagreement,
    /// A link, a device, a name that leads elsewhere, or a tar that programs read differently.
    Unsafe,
    /// The tar ends too early.
    CutShort,
    /// A volume of another set.
    Foreign,
    /// No accepted key has signed the bundle, and the copy used for its repair has such a signature.
    Unsigned,
    /// A recovery volume computed from other bytes than those of the volumes: it cannot reconstruct any of them.
    StaleRecovery,
}

impl ProblemKind {
    fn remedy(self) -> &'static str {
        match self {
            ProblemKind::Missing | ProblemKind::WrongSize | ProblemKind::WrongDigest | ProblemKind::Malformed => {
                "copy the bundle from its medium again; if that does not help, repair it with `gapferry repair`"
            }
            ProblemKind::Unreadable => {
                "the medium may be failing: copy the bundle from another one, or repair it with `gapferry repair`"
            }
            ProblemKind::Undeclared => "find out where it came from; remove it, or export the bundle again",
            ProblemKind::Disagreement => "do not use it until you know why; export it again from the same lock",
            ProblemKind::CutShort => {
                "copy or send it again; if that does not help, the source is cut short too: export it again from the \
                 same lock"
            }
            ProblemKind::Unsafe => "do not unpack it; find out where it came from, and export the bundle again",
            ProblemKind::Foreign => "remove it, and bring the volume of this set",
            ProblemKind::Unsigned => {
                "bring a signed copy, or write the copy anew with its signatures: `gapferry convert COPY -o NEW`"
            }
            ProblemKind::StaleRecovery => {
                "`gapferry repair` cannot reconstruct a lost volume with it: while you have all volumes, write the set again as \
                 before (`split` or `export` with --recovery), which computes its recovery volumes anew; or bring the recovery \
                 volumes computed from these volumes"
            }
        }
    }

    fn remedy_of_tool(self) -> &'static str {
        match self {
            ProblemKind::Missing | ProblemKind::WrongSize | ProblemKind::WrongDigest | ProblemKind::Unreadable => {
                "do not run it; no image needs it; copy the bundle from its medium again; if that does not help, bring the same \
                 file (`verify --missing`, then `export --repair` with --include-tool or --tool-file)"
            }
            ProblemKind::Undeclared => "do not run it: find out where it came from, and remove it",
            other => other.remedy(),
        }
    }

    /// The label shown to people.
    pub fn label(self) -> &'static str {
        match self {
            ProblemKind::Missing => "missing",
            ProblemKind::WrongSize => "wrong size",
            ProblemKind::WrongDigest => "wrong digest",
            ProblemKind::Unreadable => "unreadable",
            ProblemKind::Malformed => "malformed",
            ProblemKind::Undeclared => "not declared",
            ProblemKind::Disagreement => "contradiction",
            ProblemKind::Unsafe => "unsafe",
            ProblemKind::CutShort => "cut short",
            ProblemKind::Foreign => "of another set",
            ProblemKind::Unsigned => "not signed",
            ProblemKind::StaleRecovery => "stale",
        }
    }
}

impl Problem {
    fn new(path: &str, kind: ProblemKind) -> Problem {
        let path = shortened(path);
        let (ranges, images) = (Vec::new(), Arc::default());
        let remedy = match () {
            () if is_tool(&path) => kind.remedy_of_tool(),
            () if is_of_chunks(&path) && kind != ProblemKind::Unsafe => {
                "no image needs it: repair the bundle (`verify --missing`, then `gapferry repair`), or remove it with its \
                 signatures"
            }
            () => kind.remedy(),
        };
        let subject = Subject::File;
        Problem { path, volume: None, kind, expected: None, found: None, ranges, images, remedy, subject }
    }

    /// Stands for `number` more problems of one kind.
    fn unlisted(kind: ProblemKind, number: usize) -> Problem {
        let problem = Problem::new("…", kind).found(format!("and {number} more of this kind"));
        Problem { subject: Subject::Unlisted(number), ..problem }
    }

    fn expected(mut self, expected: impl ToString) -> Problem {
        self.expected = Some(shortened(&expected.to_string()));
        self
    }

    fn found(mut self, found: impl ToString) -> Problem {
        self.found = Some(shortened(&found.to_string()));
        self
    }

    fn at(mut self, ranges: Vec<ByteRange>) -> Problem {
        self.ranges = ranges;
        self
    }

    fn in_volume(mut self, volume: &Path) -> Problem {
        self.volume = Some(volume.display().to_string());
        self
    }
}

/// Whether the path is `chunks.b3` or a signature of it, which are derived and needed by no image.
fn is_of_chunks(path: &str) -> bool {
    path == CHUNKS || signed_file(path) == Some(CHUNKS)
}

/// Cuts long text: a damaged or forged file can contain any text of any length.
fn shortened(text: &str) -> String {
    if text.len() <= 2_000 { text.to_owned() } else { text.chars().take(1_999).chain(['…']).collect() }
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Drops problems that do not matter to an import: those of `chunks.b3`, because every blob is proven by its digest,
    /// and recovery volumes computed from other volumes.
    pub fn ignore_unneeded(&mut self) {
        self.problems.retain(|problem| !is_of_chunks(&problem.path) && problem.kind != ProblemKind::StaleRecovery);
    }
}

/// Checks the bundle at `path`.
///
/// # Errors
/// `path` is not a bundle, or it has a format that this version does not read.
pub fn check(path: &Path, depth: Depth, events: &Events) -> Result<Report> {
    refuse_unfinished(path)?;
    check_opened(&Opened::Whole(Box::new(Layout::open(path)?)), depth, events)
}

/// Checks a bundle, or volumes of one, that are already open.
///
/// # Errors
/// As for [`check`].
pub fn check_opened(opened: &Opened, depth: Depth, events: &Events) -> Result<Report> {
    check_proven(opened, depth, None, events)
}

/// As [`check_opened`]. If a signature has `proven` the identity of the bundle, `bundle.json` is not read again, and
/// `chunks.b3` is used only if it is signed too.
///
/// # Errors
/// As for [`check`].
pub fn check_proven(opened: &Opened, depth: Depth, proven: Option<&Proven>, events: &Events) -> Result<Report> {
    let layout = match opened {
        Opened::Volumes(set) => return volumes::check(set, depth, proven, events),
        Opened::Whole(layout) => layout,
    };
    let mut problems = Problems::default();
    problems.extend(problems_in(layout));
    problems.extend(signatures::check(layout));
    let asked = Asked { depth, proven, read: &WholeVolumes::default(), events };
    examine(layout, &asked, problems).map(|examined| examined.report)
}

/// Returns what does not belong in a layout.
fn problems_in(layout: &Layout) -> Vec<Problem> {
    let kind = |is_cut| if is_cut { ProblemKind::CutShort } else { ProblemKind::Unsafe };
    layout
        .problems()
        .iter()
        .map(|problem| Problem::new(&problem.path, kind(problem.is_cut)).found(&problem.what))
        .collect()
}

/// `bundle.json`, as far as it can be read.
struct Document<'a> {
    json: Option<&'a BundleJson>,
    identity: Option<Digest>,
    /// Whether a signature has proven the document.
    is_proven: bool,
}

/// The result of checking the files of a bundle.
#[derive(Default)]
struct Examined {
    report: Report,
    /// The files that each image needs.
    reach: graph::NeededFiles,
    declared: declared::Declarations,
}

/// The parameters of a check.
struct Asked<'a> {
    depth: Depth,
    proven: Option<&'a Proven>,
    /// Volumes that were read before.
    read: &'a WholeVolumes<'a>,
    events: &'a Events,
}

/// Checks everything but the layout, whose problems can be in `problems` already.
fn examine(layout: &Layout, asked: &Asked<'_>, mut problems: Problems) -> Result<Examined> {
    let Asked { depth, proven, read: whole_volumes, events } = *asked;
    let read = if proven.is_none() { open_json(layout, &mut problems)? } else { Read::default() };
    let document = match proven {
        Some(proven) => Document { json: Some(&proven.document), identity: Some(proven.identity), is_proven: true },
        None => Document { json: read.json.as_ref(), identity: read.identity, is_proven: false },
    };
    let (bundle, identity) = (document.json, document.identity);
    let declared = declared::declared(layout, &document, &mut problems);
    let table = match bundle.zip(identity).filter(|_| !declared.changed && depth != Depth::Structure) {
        Some((bundle, identity)) => Table::read(layout, bundle, identity),
        None => Table { why: Some("bundle.json is damaged"), ..Table::default() },
    };
    problems.extend(table.problem.clone());
    let read = whole_volumes;
    let check = files::Check { layout, declared: &declared, table: &table, proven, read, depth, events };
    let proved = check.run(&mut problems);
    let reach = match bundle {
        Some(bundle) => graph::check(layout, bundle, &mut problems),
        None => graph::by_index(layout),
    };
    if let Some(bundle) = bundle {
        loaders::agree(layout, bundle, &reach, &mut problems);
    }
    let mut problems = problems.into_sorted();
    name_images(&mut problems, &reach);
    let report = Report {
        identity,
        image_count: reach.images.len(),
        missing: bundle.iter().flat_map(|bundle| bundle.lock.missing.clone()).collect(),
        files: layout.entries().count(),
        proof: proved.proof,
        proof_reason: proved.reason,
        parents: bundle.iter().flat_map(|bundle| bundle.parents.clone()).collect(),
        expects: bundle.map(expects).unwrap_or_default(),
        bytes: layout.entries().map(|(_, size)| size).fold(0, u64::saturating_add),
        problems,
        set: None,
        lacking: Vec::new(),
    };
    Ok(Examined { report, reach, declared })
}

/// `bundle.json` as read.
#[derive(Default)]
struct Read {
    json: Option<BundleJson>,
    identity: Option<Digest>,
}

/// Reads `bundle.json`. If it is missing, the sums show that this is meant to be a bundle.
fn open_json(layout: &Layout, problems: &mut Problems) -> Result<Read> {
    if layout.size_of(BUNDLE_JSON).is_none() {
        if layout.size_of(SUMS).is_none() && layout.problems().is_empty() {
            return Err(no_bundle(layout));
        }
        problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Missing));
        return Ok(Read::default());
    }
    let mut identity = None;
    let mut read = || -> Result<BundleJson> {
        let bytes = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON)?.unwrap_or_default();
        identity = Some(identity_of(&bytes));
        BundleJson::parse(&bytes, BUNDLE_JSON)
    };
    match read() {
        Ok(json) => Ok(Read { json: Some(json), identity }),
        Err(error) if error.kind() == Kind::Input => Err(error),
        Err(error) => {
            problems.push(Problem::new(BUNDLE_JSON, ProblemKind::Malformed).found(error.chain()));
            Ok(Read { json: None, identity })
        }
    }
}

fn expects(bundle: &BundleJson) -> Expects {
    let bytes = bundle.assumed.iter().map(|assumed| assumed.size).fold(0, u64::saturating_add);
    Expects { blobs: bundle.assumed.len(), bytes }
}

/// Adds the affected images to every problem. A file that concerns the whole bundle affects all images.
fn name_images(problems: &mut [Problem], reach: &graph::NeededFiles) {
    let mut users: BTreeMap<String, BTreeSet<String>> =
        problems.iter().map(|problem| (problem.path.clone(), BTreeSet::new())).collect();
    for (image, paths) in &reach.images {
        for path in paths {
            if let Some(images) = users.get_mut(&**path) {
                images.insert(image.clone());
            }
        }
    }
    let users: BTreeMap<String, Arc<BTreeSet<String>>> =
        users.into_iter().map(|(path, images)| (path, Arc::new(images))).collect();
    let all: Arc<BTreeSet<String>> = Arc::new(reach.images.iter().map(|(image, _)| image.clone()).collect());
    for problem in problems {
        let is_of_some = problem.path.starts_with("blobs/") || is_tool(&problem.path);
        let is_derived = is_of_chunks(&problem.path);
        let of_whole = !matches!(problem.kind, ProblemKind::Undeclared) && !is_of_some && !is_derived;
        problem.images = match users.get(&problem.path).filter(|images| !images.is_empty()) {
            Some(images) => images.clone(),
            None if of_whole => all.clone(),
            None => Arc::default(),
        };
    }
}

fn shared<S: Serializer>(images: &Arc<BTreeSet<String>>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    images.serialize(serializer)
}
