//! Exports only the part of a lock that a damaged bundle lacks.

use crate::app::units::as_path;
use std::path::PathBuf;

use serde::Serialize;

use crate::app::TOOL;
use crate::app::environment::Environment;
use crate::app::local::Text;
use crate::app::outcome::{JsonReport, Outcome, REPORT_VERSION};
use crate::app::registry::RegistryOptions;
use crate::app::resolve::{self, ResolveOptions, Resolver, connect_for};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::progress::units::count;
use crate::bundle::{
    Contents, Form, Missing, RepairContents, Tool, is_tar, preflight, refuse_unwanted, walk_file, write_repair,
};
use crate::content::{Cached, Checkpoint};
use crate::increment::Baseline;
use crate::oci::{Digest, Reference};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::{self, Lock};
use crate::pipeline::resolve::{self as stage, Search};
use crate::pipeline::walk::{LockOrigin, LockedCompanions, Walk};

/// The most names in one message.
const MOST_NAMED: usize = 5;

/// What a bundle lacks, and where to fetch it.
pub struct ExportRepairRequest {
    /// The list that `verify` wrote for the bundle.
    pub missing: Text,
    /// The lock of the bundle.
    pub lock: Text,
    /// What is exported of its images.
    pub resolve: ResolveOptions,
    /// A tar. Its name must end in `.tar`.
    pub output: PathBuf,
    /// What the bundle builds on, if it is an increment.
    pub since: Option<Baseline>,
    /// Tools that the bundle lacks.
    pub tools: Vec<Tool>,
    pub registry: RegistryOptions,
}

/// A repair file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedRepair {
    pub version: u32,
    /// Whether it contains every blob that the bundle lacks.
    pub ok: bool,
    /// The repair file.
    #[serde(serialize_with = "as_path")]
    pub output: PathBuf,
    /// Identity of the bundle to repair.
    pub identity: Digest,
    /// Number of blobs in the file.
    pub blobs: usize,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Blobs that the registries no longer have.
    pub lost: Vec<Digest>,
    #[serde(skip)]
    pub outcome: Outcome,
}

impl JsonReport for ExportedRepair {}

/// Fetches what a bundle lacks and writes a repair file.
///
/// # Errors
/// Nothing of the requested content exists, or the repair file cannot be written.
pub async fn export_repair(request: ExportRepairRequest, environment: &Environment) -> Result<ExportedRepair> {
    let (ExportRepairRequest { missing, lock: text, resolve, output, since, tools, registry }, events) =
        (request, &environment.events);
    if !is_tar(&output) {
        return Err(Error::input(format!(
            "writing {}: a repair file is a tar, so its name must end in .tar",
            output.display()
        )));
    }
    let missing = Missing::parse(&missing.bytes, &missing.name)?;
    preflight::check_free(&output, &Form::Tar)?;
    refuse_unwanted(&missing, &tools)?;
    report_left(&missing, &tools, environment);
    let lock = Lock::parse(&text.bytes, &text.name)?;
    let registries = connect_for(&lock, &registry, environment)?;
    let kept = Checkpoint::new(&registries, Some(walk_file(&output)));
    resolve::report_obstacle(&kept, events);
    let written = lock::written(&text.bytes, &text.name);
    let made = async {
        let (source, jobs) = (Cached::new(&kept, None), registry.jobs);
        let resolver = Resolver { options: &resolve, jobs, environment };
        // A companion that no longer exists is an error only if the bundle lacks it.
        let walk = resolver.walk(&source).with_written(written).with_companions(LockedCompanions::Remaining);
        let graph = match missing.needs_manifests() {
            true => stage::assemble(&walk, &lock, LockOrigin::Registry, jobs, events).await,
            false => Ok(Graph::default()),
        };
        let graph = graph.map_err(|failures| {
            let why =
                "index.json and manifest.json follow from all manifests; another copy of the bundle has both files too";
            failures.into_error("following the lock").while_doing(why)
        })?;
        let wanted = missing.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
        let located = stage::locate(&walk, &lock, &graph.images, wanted, jobs, events).await;
        let is_whole = located.as_ref().is_ok_and(|found| found.lost.is_empty());
        if missing.needs_manifests() || !is_whole {
            report_denied(&walk, environment);
        }
        let Search { located, lost, why } = located?;
        if let Some(why) = why {
            let is_empty = located.manifests.is_empty() && located.blobs.is_empty();
            if is_empty && tools.is_empty() && missing.metadata.is_empty() {
                return Err(why);
            }
            // The rest is written anyway.
            why.lines().into_iter().for_each(|line| events.report(Event::Warning(line.trim_start().to_owned())));
        }
        let mut contents = Contents::new(lock, &graph)?.carrying(tools);
        // Any file of an increment can be missing, but its `index.json` lists only what the increment contains.
        contents.basis = since.map(|baseline| baseline.basis(&contents)).unwrap_or_default();
        let made = RepairContents { missing: &missing, contents: &contents, located, tool: TOOL };
        let repair = write_repair(&output, made, &source, jobs, events).await?;
        Ok::<_, Error>((repair, lost))
    };
    let (repair, lost) = resolve::finish_walk_file(&kept, made.await, events)?;
    let outcome = if lost.is_empty() { Outcome::Done } else { Outcome::SomeImagesFailed };
    Ok(ExportedRepair {
        version: REPORT_VERSION,
        ok: outcome.is_ok(),
        output,
        identity: missing.identity,
        blobs: repair.blobs,
        bytes: repair.size,
        lost,
        outcome,
    })
}

/// Reports companions that a registry denied: they may still exist.
fn report_denied(walk: &Walk<'_>, environment: &Environment) {
    let denied = walk.denied_companions();
    if !denied.is_empty() {
        let text = "access denied, so they count as gone; if they exist, use an account that may read them";
        let companions = count(denied.len(), "companion");
        let text = format!("{companions} of the lock: {text} ({})", named(&denied));
        environment.events.report(Event::Warning(text));
    }
}

/// The first references, as text.
fn named<'t>(references: impl IntoIterator<Item = &'t Reference>) -> String {
    let mut names = references.into_iter().map(ToString::to_string);
    let named: Vec<String> = names.by_ref().take(MOST_NAMED).collect();
    let more = if names.next().is_some() { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// Reports tools that neither the bundle nor this repair file has.
fn report_left(missing: &Missing, tools: &[Tool], environment: &Environment) {
    let is_left = |path: &String| tools.iter().all(|tool| tool.path() != *path);
    let left: Vec<String> = missing.tools.iter().map(|tool| tool.path.clone()).filter(is_left).collect();
    if !left.is_empty() {
        let text = format!(
            "the bundle also lacks {}, which is not in this repair: add the same file with --include-tool or --tool-file; \
             without it, the bundle stays incomplete, and so does every volume that contains part of it",
            left.join(", ")
        );
        environment.events.report(Event::Warning(text));
    }
}
