//! A repair file: the files that a bundle lacks, in a tar of their own, written where they can be fetched.
//!
//! # Threats
//! Its maker is not trusted: `repair.json` only says which bundle it is for. Each of its files is proven by that bundle before
//! anything is written ([`repair`](crate::bundle::repair)).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::base::document::{Document, Unbounded};
use crate::base::error::{Error, Kind, Result};
use crate::base::fsops::{self, WriteLock};
use crate::base::progress::Events;
use crate::bundle::fileset::{FileSet, KnownFile};
use crate::bundle::format::{BUNDLE_JSON, CHUNKS, Metadata, REPAIR_JSON, SUMS, SUMS512};
use crate::bundle::missing::{Missing, MissingBlob};
use crate::bundle::output::Placement;
use crate::bundle::output::tar::{self, TarOutput};
use crate::bundle::repair::ranges::{self, Patch, RANGES, RepairRange};
use crate::bundle::writer::Writer;
use crate::bundle::{Contents, Tool};
use crate::content::Source;
use crate::files::Layout;
use crate::oci::Digest;
use crate::pipeline::graph::{Located, PlacedBlob};
use crate::pipeline::plan::Plan;
use crate::pipeline::transfer::{Options, Transfer, refuse_failed};

/// The version of the file, the only one that is read and written.
const REPAIR_VERSION: u32 = 1;
/// Maximum size of `repair.json` in bytes.
const MAX_REPAIR_JSON: u64 = 256 * 1024;

/// `repair.json`. See `docs/format.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::bundle) struct RepairJson {
    gapferry_repair: u32,
    /// The program that wrote it, for people.
    tool: String,
    /// The identity of the bundle to repair.
    identity: Digest,
    /// Ranges of blobs that are not included as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<RepairRange>,
}

impl Document for RepairJson {
    const NAME: &'static str = "the repair";
    const VERSION_KEY: &'static str = "gapferryRepair";
    const VERSION: u32 = REPAIR_VERSION;
    const MAX_BYTES: u64 = MAX_REPAIR_JSON;
    // A value takes at least one byte.
    const MAX_VALUES: usize = MAX_REPAIR_JSON as usize;
    const KIND: Kind = Kind::Damaged;
    const TOO_LARGE: &'static str = "repair with another copy of the bundle";
    type Outline = Unbounded;
}

/// A repair file that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairFile {
    /// Number of blobs and manifests in it.
    pub blobs: usize,
    /// Size of the file in bytes.
    pub size: u64,
}

/// The identity of the bundle that this repair file is for; `None` if it is not a repair file.
///
/// # Errors
/// Its `repair.json` is damaged, has an unknown version (`Input`), or cannot be read.
pub fn is_for(layout: &Layout) -> Result<Option<Digest>> {
    Ok(read(layout)?.map(|json| json.identity))
}

/// The ranges of blobs in a repair file, by blob; empty if it is not a repair file.
///
/// # Errors
/// As for [`is_for`], or the ranges are not what `repair.json` states.
pub(super) fn patches(layout: &Layout) -> Result<HashMap<Digest, Vec<Patch>>> {
    ranges::patches(layout, &read(layout)?.map(|json| json.ranges).unwrap_or_default())
}

fn read(layout: &Layout) -> Result<Option<RepairJson>> {
    let Some(bytes) = layout.read(REPAIR_JSON, MAX_REPAIR_JSON)? else { return Ok(None) };
    RepairJson::read(&bytes, &layout.path().join(REPAIR_JSON).display().to_string()).map(Some)
}

/// The contents of a repair file.
pub struct RepairContents<'a> {
    pub missing: &'a Missing,
    /// Metadata is generated from it; manifests are needed only if [`Missing::needs_manifests`].
    pub contents: &'a Contents,
    /// The missing manifests and blobs.
    pub located: Located,
    /// The program that writes it, for people.
    pub tool: &'a str,
}

/// Writes a repair file to `out`. Blobs are fetched from `source`, `jobs` at a time. If interrupted, it leaves what it has for
/// the next run.
///
/// # Errors
/// Something is requested that does not belong to these contents, or that only the whole bundle has; a blob failed (all are
/// listed); or the disk fails.
pub async fn write_repair(
    out: &Path,
    repair: RepairContents<'_>,
    source: &dyn Source,
    jobs: usize,
    events: &Events,
) -> Result<RepairFile> {
    let RepairContents { missing, contents, located, tool } = repair;
    let out = fsops::canonicalize(out)?;
    refuse_foreign(&out)?;
    let Located { manifests, blobs } = located;
    let ranged = ranges::in_ranges(missing);
    let (few, blobs): (Vec<PlacedBlob>, Vec<PlacedBlob>) =
        blobs.into_iter().partition(|placed| ranged.contains_key(&placed.blob.digest));
    let in_ranges: Vec<(&MissingBlob, PlacedBlob)> =
        few.into_iter().filter_map(|placed| Some((*ranged.get(&placed.blob.digest)?, placed))).collect();
    let mut metadata = metadata(missing, contents)?;
    let lock = WriteLock::take(&out)?;
    let number = blobs.len() + manifests.len() + in_ranges.len();
    let (ranges, bytes) = ranges::fetch(in_ranges, source, jobs, events).await?;
    if !ranges.is_empty() {
        metadata.push(Metadata::new(RANGES, bytes));
    }
    metadata.insert(0, repair_json(missing, tool, ranges)?);
    let files = FileSet {
        signer: None,
        identity: missing.identity,
        mtime: contents.lock.mtime(),
        head: metadata.into_iter().map(KnownFile::from).collect(),
        tools: contents.tools.clone(),
        manifests,
        blobs: blobs.iter().map(|placed| placed.blob.clone()).collect(),
        trailer: None,
    };
    let plan = files.tar()?;
    let size = plan.length;
    let place: Arc<dyn Placement> =
        Arc::new(TarOutput::create(lock.output(), plan, files.blobs.iter().map(|blob| blob.digest), events)?);
    // This checks the same occupant that the placement has recorded.
    refuse_foreign(&out)?;
    let writer = Writer::into_place(lock, place, files, &[], events.clone())?;
    let plan = Plan::of_blobs(blobs.into_iter().filter(|placed| !writer.holds(&placed.blob.digest)));
    let transfer = Transfer::new(source, &writer, Options { jobs, fail_fast: false }, events.clone());
    let ended = transfer.blobs(&plan).await;
    refuse_failed(ended, transfer.failures().into_iter().map(|(_, error)| error).collect())?;
    drop(transfer);
    let stopped = |e| Error::new(Kind::Interrupted, "writing the repair file").because(e);
    tokio::task::spawn_blocking(move || writer.finish()).await.map_err(stopped)??;
    Ok(RepairFile { blobs: number, size })
}

/// Only a repair file may be replaced by one.
fn refuse_foreign(out: &Path) -> Result<()> {
    tar::refuse_foreign(out)?;
    if out.symlink_metadata().is_err() || Layout::open(out).is_ok_and(|layout| matches!(is_for(&layout), Ok(Some(_)))) {
        return Ok(());
    }
    let text = "it exists and is not a repair file, so it is not overwritten; name another output";
    Err(Error::input(format!("writing {}: {text}", out.display())))
}

/// Rejects tools that the bundle does not lack or that are known to differ.
///
/// # Errors
/// One of `tools` is not wanted.
pub fn refuse_unwanted(missing: &Missing, tools: &[Tool]) -> Result<()> {
    let fault = |tool: &Tool| {
        let path = tool.path();
        let Some(asked) = missing.tools.iter().find(|asked| asked.path == path) else {
            return Some(format!("{path} is not missing"));
        };
        let found = tool.sha256();
        let was = asked.sha256.filter(|was| *was != found)?;
        Some(format!("{path} was another file: its sha256 was {}, and this one has {}", was.hex(), found.hex()))
    };
    let faults: Vec<String> = tools.iter().filter_map(fault).collect();
    match faults.is_empty() {
        true => Ok(()),
        false => {
            Err(Error::input(format!("{}; leave it out, or name the right file with --tool-file", faults.join("; "))))
        }
    }
}

fn repair_json(missing: &Missing, tool: &str, ranges: Vec<RepairRange>) -> Result<Metadata> {
    let (gapferry_repair, tool) = (REPAIR_VERSION, tool.to_owned());
    let json = RepairJson { gapferry_repair, tool, identity: missing.identity, ranges };
    Ok(Metadata::new(REPAIR_JSON, json.to_file()?.into_bytes()))
}

/// The requested metadata. Sums and `chunks.b3` are generated where the bundle is.
///
/// # Errors
/// `bundle.json` is requested, but these contents belong to another bundle.
fn metadata(missing: &Missing, contents: &Contents) -> Result<Vec<Metadata>> {
    let asked = |path: &str| missing.metadata.iter().any(|file| file == path);
    let is_made_there = |path: &str| matches!(path, SUMS | SUMS512 | CHUNKS);
    if !missing.metadata.iter().any(|path| !is_made_there(path)) {
        return Ok(Vec::new());
    }
    let head = contents.head()?;
    if asked(BUNDLE_JSON) && head.identity != missing.identity {
        let text = format!(
            "the missing {BUNDLE_JSON} is that of the bundle {}, and this lock with these tools and parents gives {}: \
             name the bundle's own lock with --locked, its tools with --include-tool and --tool-file, and what it \
             builds on with --since; or repair it with another copy of the bundle",
            missing.identity, head.identity
        );
        return Err(Error::input(text));
    }
    Ok(head.files.into_iter().filter(|file| asked(&file.path) && !is_made_there(&file.path)).collect())
}
