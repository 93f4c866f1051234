//! `gapferry import`: bundle → registry.

mod report;
mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;

use super::allowlist::read_file;
use super::context::{Context, check_writable};
use super::exit::Outcome;
use super::registry::RegistryArgs;
use crate::allowlist::{Allowlist, refused};
use crate::bundle::Bundle;
use crate::check::{self, Depth};
use crate::content::Cached;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::lock::IndexMode;
use crate::naming::{Map, Naming, Style, Target, landing, parse_target};
use crate::oci::Repository;
use crate::plan::{self, OnExisting, Plan, Targets};
use crate::progress::Event;
use crate::resolve;
use crate::transfer::{self, Transfer};
use crate::transport::registry::Registries;
use crate::walk::{Options, Origin, Walk};

const ABOUT: &str = "\
Pushes the images of a bundle into a registry, Harbor 2.x or any other that speaks the OCI distribution protocol.

Before the first push: sizes of all files and all manifests are proven, names are made, and the target is asked what it has \
of every blob, manifest and tag. Blobs are proven while they are pushed (with --verify-first all of them before), each is \
uploaded once and mounted into the other repositories. Manifests follow, children first, then what refers to them; tags come \
last and are read back: a tag that exists can be pulled.

A failure of one image does not stop the others; the end shows what failed and why. Run again, it does only what is missing.";

const AFTER: &str = "\
Examples:
  gapferry import images.tar --to harbor.internal/mirror --create-projects
  gapferry import images.tar --to registry.internal:5000 --dry-run
  gapferry import images.tar --to harbor.internal --map names.map --receipt receipt.json

Names (docker.io/library/nginx:1.27 to harbor.internal/mirror):
  default    harbor.internal/mirror/library/nginx:1.27
  --scoped   harbor.internal/mirror/docker.io/library/nginx:1.27
  --flatten  harbor.internal/mirror/nginx:1.27
  as=…       of the allowlist counts more than any of these

A map file has one rule a line, the first that matches counts:
  docker.io/library/ -> base/
  ~ ^quay\\.io/([^/]+)/(.*)$ -> quay-$1/$2";

/// Prove a bundle and push its images into a registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle, a directory or a tar
    bundle: PathBuf,
    /// Where to push; PREFIX begins every name (on Harbor: the project)
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    to: String,
    /// Prove every byte before the first push, not on the way
    #[arg(long, help_heading = "What may enter")]
    verify_first: bool,
    /// Refuse images that are not on this allowlist, before any push
    ///
    /// The same kinds of file as for export. `-` is standard input.
    #[arg(long, value_name = "FILE", help_heading = "What may enter")]
    allow: Option<PathBuf>,
    /// Keep the source host as the first part of the path
    #[arg(long, conflicts_with = "flatten", help_heading = "Names")]
    scoped: bool,
    /// Keep only the last part of the path
    #[arg(long, help_heading = "Names")]
    flatten: bool,
    /// File with naming rules, see below
    #[arg(long, value_name = "FILE", help_heading = "Names")]
    map: Option<PathBuf>,
    #[command(flatten)]
    harbor: target::HarborArgs,
    /// What to do with a tag that means another image there
    #[arg(long, value_name = "WHAT", default_value = "overwrite", help_heading = "Pushing")]
    on_existing: Existing,
    /// Stop at the first failure
    #[arg(long, help_heading = "Pushing")]
    fail_fast: bool,
    /// Print the plan and push nothing
    ///
    /// What would be pushed, skipped or overwritten, with new, mounted and present bytes.
    #[arg(long, help_heading = "Pushing")]
    dry_run: bool,
    /// Write what arrived where, as JSON
    ///
    /// For the records, and for the connected side to build on: bundle identity, target, each image's reference, digest and
    /// outcome, and the blobs that are known to be there now.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    receipt: Option<PathBuf>,
    /// Write the digest of each image, as skopeo sync does
    ///
    /// A line `DIGEST docker://REFERENCE` for each image that is at the target.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    digestfile: Option<PathBuf>,
    /// Print the receipt (or the plan) as JSON on standard output
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Existing {
    /// The tag gets its new meaning
    Overwrite,
    /// The image is left out
    Skip,
    /// The image fails
    Fail,
}

impl From<Existing> for OnExisting {
    fn from(existing: Existing) -> OnExisting {
        match existing {
            Existing::Overwrite => OnExisting::Overwrite,
            Existing::Skip => OnExisting::Skip,
            Existing::Fail => OnExisting::Fail,
        }
    }
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let started = Instant::now();
    let target = parse_target(&args.to)?;
    args.registry.claim_stdin()?;
    check_writable(args.receipt.iter().chain(&args.digestfile))?;
    let naming = naming(&args, &target)?;
    let bundle = prove(&args, context)?;
    check_allowed(&args, &bundle)?;
    let graph = read_graph(&bundle, context).await?;
    let targets = name_images(&graph, &naming, &target, context)?;
    let registries = args.registry.connect([target.registry.clone()], &BTreeMap::new(), context)?;
    let mut prepared = target::prepare(&args.harbor, &registries, &target, &targets, args.dry_run, context).await?;
    let plan = make_plan(&args, &registries, &graph, &targets, &prepared, context).await?;
    target::check_quotas(&mut prepared, &registries, &plan, context).await?;
    if args.dry_run {
        return report::plan(&graph, &plan, &prepared.notes, args.json, context);
    }
    check_incomplete_indexes(&graph, context);
    let options = transfer::Options { jobs: args.registry.jobs(), fail_fast: args.fail_fast };
    let transfer = Transfer::new(bundle.layout(), &registries, options, context.events.clone());
    let outcome = transfer.run(&graph, &plan).await;
    context.end();
    let written = report::files(&args, &bundle, &graph, &plan, &outcome, context);
    // Which images failed is told whatever became of the receipt; that it is missing comes last.
    let ended = report::summary(&graph, &plan, &outcome, started, context);
    written.map(|()| ended)
}

fn naming(args: &Args, target: &Target) -> Result<Naming> {
    let style = match (args.scoped, args.flatten) {
        (true, _) => Style::Scoped,
        (_, true) => Style::Flatten,
        _ => Style::Default,
    };
    let map = match &args.map {
        Some(path) => {
            let (name, bytes) = read_file(path)?;
            Map::parse(&bytes, &name).map_err(|problems| refused("the naming rules", &problems))?
        }
        None => Map::default(),
    };
    Ok(Naming { prefix: target.prefix.clone(), style, map })
}

/// What must be right before anything is pushed; a bundle with any problem is refused.
fn prove(args: &Args, context: &Context) -> Result<Bundle> {
    let depth = if args.verify_first { Depth::Full } else { Depth::Structure };
    let report = check::check(&args.bundle, depth, &context.events)?;
    if report.is_clean() {
        return Bundle::open(&args.bundle);
    }
    context.end();
    for problem in report.problems.iter().take(10) {
        context.say(super::verify::shown(problem).trim_end());
    }
    Err(check::refuse(&args.bundle, &report).while_doing("nothing was pushed"))
}

fn check_allowed(args: &Args, bundle: &Bundle) -> Result<()> {
    let Some(path) = &args.allow else { return Ok(()) };
    let allowlist = Allowlist::parse_sources(&[], &[read_file(path)?]);
    let allowlist = allowlist.map_err(|problems| refused("the allowlist", &problems))?;
    let refusals: Vec<String> = bundle.lock().images.iter().filter_map(|image| allowlist.refusal(image)).collect();
    if refusals.is_empty() {
        return Ok(());
    }
    let list: String = refusals.iter().map(|refusal| format!("\n  {refusal}")).collect();
    let text =
        format!("{} does not allow {} images of the bundle; nothing was pushed:{list}", path.display(), refusals.len());
    Err(Error::damaged(text))
}

async fn read_graph(bundle: &Bundle, context: &Context) -> Result<Graph> {
    let cached = Cached::new(bundle.layout(), None);
    let options = Options { index: IndexMode::Trim, referrers: false, foreign_layers: true };
    let walk = Walk::new(&cached, options, context.events.clone());
    // Files are read one after the other fast enough.
    let graph = resolve::assemble(&walk, bundle.lock(), Origin::Bundle, 4, &context.events).await;
    graph.map_err(|failures| failures.into_error("reading the bundle's manifests"))
}

fn name_images(graph: &Graph, naming: &Naming, target: &Target, context: &Context) -> Result<Targets> {
    let names = graph.images.iter().map(|image| naming.target(&target.registry, &image.locked));
    let names: Targets = names.collect::<Result<_>>()?;
    let landed = landing(names.iter().zip(graph.images.iter().map(|image| &image.locked)));
    if !landed.collisions.is_empty() {
        let list: String = landed.collisions.iter().map(|collision| format!("\n  {collision}")).collect();
        let text =
            format!("different images would get one name; nothing was pushed (--scoped keeps them apart):{list}");
        return Err(Error::input(text));
    }
    for notice in landed.notices {
        context.events.report(Event::Notice(notice));
    }
    Ok(names)
}

async fn make_plan(
    args: &Args,
    registries: &Registries,
    graph: &Graph,
    targets: &Targets,
    prepared: &target::Prepared,
    context: &Context,
) -> Result<Plan> {
    let closed = |repository: &Repository| prepared.is_closed(repository);
    let jobs = args.registry.jobs();
    let inventory = plan::take_inventory(registries, graph, targets, &closed, jobs, &context.events).await?;
    let plan = Plan::new(graph, targets, &inventory, args.on_existing.into());
    for step in &plan.images {
        if let (plan::TagState::Other(digest), plan::Action::Push) = (step.tag, step.action) {
            let text = format!("{} is overwritten; it was {digest}", step.to);
            context.events.report(Event::Notice(text));
        }
    }
    Ok(plan)
}

/// Most registries refuse an index whose children are not all there; better to hear it before.
fn check_incomplete_indexes(graph: &Graph, context: &Context) {
    let sparse = graph
        .images
        .iter()
        .filter(|image| image.locked.selection.as_ref().is_some_and(|selection| selection.index == IndexMode::Sparse));
    for image in sparse {
        let text = format!("{}: {}", image.locked.reference, report::SPARSE_REMEDY);
        context.events.report(Event::Warning(text));
    }
}
