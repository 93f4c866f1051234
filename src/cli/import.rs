//! `gapferry import`: bundle → registry.

mod allowed;
mod increment;
mod piped;
mod prune;
mod volumes;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::allowlist::{missing_line, read_bounded};
use super::context::{Context, check_writable};
use super::exit::Outcome;
use super::piped::Piped;
use super::push::report::volumes as numbers;
use super::push::{Arriving, Cargo, Names, Push, PushArgs};
use super::signing::{KeyArgs, SignArgs, signed_by};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::bundle::volumes::{Opened, State};
use crate::bundle::{Bundle, Proven};
use crate::content::{Cached, Source};
use crate::oci::Digest;
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Lock;
use crate::pipeline::receipt::{MAX_RECEIPT, Receipt};
use crate::pipeline::resolve;
use crate::pipeline::walk::{Options, Origin, Referrers, Walk};
use crate::verify::{self, Depth, Report};
use allowed::Allowed;
use prune::{Arrived, PruneArgs};

const ABOUT: &str = "\
Pushes the images of a bundle into a registry, Harbor 2.x or any other that speaks the OCI distribution protocol.

Before the first push: sizes of all files and all manifests are proven, names are made, and the target is asked what it has \
of every blob, manifest and tag. Blobs are proven while they are pushed (with --verify-first all of them before), each is \
uploaded once and mounted into the other repositories. Manifests follow, children first, then what refers to them; tags come \
last and are read back: a tag that exists can be pulled.

The volumes of a bundle that was split are given together, in any order, and read as they are. With --state they may come one \
at a time, as the media arrive: every run pushes what is at hand, an image gets its tag when all of it is there, and exit code 6 \
says that more is to come. Pieces of a blob that was cut are kept beside FILE until it is whole.

`-`, and a pipe by its name, is read once: metadata and manifests are proven first, then blobs are pushed as they come, each once \
all of it is proven. It needs room in TMPDIR for the largest blob, or for 256 MiB of smaller ones that wait. What the target has \
is read, proven and not sent. If the pipe ends early, images that were complete have their tags; run again, only the rest is \
sent. That something is wrong behind the last blob can be told only then.

Harbor refuses to serve an image that violates a policy of its project (signatures, vulnerabilities). Such images arrive all the same: \
a note says that they cannot be pulled yet, and the exit code is 0. A tag that a rule makes immutable and that means another image \
fails; --on-existing skip leaves it alone.

A failure of one image does not stop the others; the end shows what failed and why. Run again, it does only what is missing.

With --sign-key the receipt is signed too, in FILE.sig: `openssl dgst -sha256 -verify here.pub -signature FILE.sig FILE`.";

const AFTER: &str = "\
Examples:
  gapferry import images.tar --to harbor.internal/mirror --create-projects
  gapferry import images.tar --to registry.internal:5000 --dry-run
  gapferry import images.tar --to harbor.internal/mirror --key them.pub
  gapferry import images.tar --to harbor.internal --map names.map --receipt receipt.json
  ssh outside cat images.tar | gapferry import - --to harbor.internal/mirror
  gapferry import images.*.tar --to harbor.internal/mirror
  gapferry import images.003.tar --state FILE --to harbor.internal/mirror

Names (docker.io/library/nginx:1.27 to harbor.internal/mirror):
  default    harbor.internal/mirror/library/nginx:1.27
  --scoped   harbor.internal/mirror/docker.io/library/nginx:1.27
  --flatten  harbor.internal/mirror/nginx:1.27
  as=…       of the allowlist counts more than any of these

A map file has one rule a line, the first that matches counts:
  docker.io/library/ -> base/
  ~ ^quay\\.io/([^/]+)/(.*)$ -> quay-$1/$2";

const NOTHING: &str = "nothing was pushed";

/// Prove a bundle and push its images into a registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle: directory, tar, volumes, or `-`
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
    /// Where to push; PREFIX begins every name (on Harbor: the project)
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    to: String,
    /// Prove every byte before the first push, not on the way
    #[arg(long, help_heading = "What may enter")]
    verify_first: bool,
    /// Refuse images that are not on this allowlist
    ///
    /// Before any push. The same kinds of file as for export. An image needs the `as` that the list gives it, and may carry only
    /// the platforms of its entry. `-` is standard input.
    #[arg(long, value_name = "FILE", help_heading = "What may enter")]
    allow: Option<PathBuf>,
    /// Take volumes one by one; FILE says how far
    ///
    /// The same FILE with every volume, on a disk with room for FILE.segments: the pieces of a blob that is larger than a volume.
    #[arg(long, value_name = "FILE", help_heading = "What may enter")]
    state: Option<PathBuf>,
    /// Of an increment, write to FILE what the target lacks, as JSON
    ///
    /// For `export --repair` on the connected side. It is written whatever is found, and says nothing is missing where nothing is.
    #[arg(long, value_name = "FILE", help_heading = "Output", hide_short_help = true)]
    missing: Option<PathBuf>,
    /// Of an increment, take what the target lacks from this repair
    ///
    /// Made by `export --repair`, of what --missing has written.
    #[arg(long, value_name = "FILE", help_heading = "What may enter", hide_short_help = true)]
    repair: Option<PathBuf>,
    /// Refuse a bundle that is not newer than the one of this receipt
    ///
    /// This keeps an old bundle from being imported again. The times of the two bundles are compared; only --key proves them.
    /// The same bundle is accepted, and so is one made at the same time if the receipt's bundle lacked images.
    #[arg(long, value_name = "RECEIPT", help_heading = "What may enter", hide_short_help = true)]
    newer_than: Option<PathBuf>,
    /// Keep the source host as the first part of the path
    #[arg(long, conflicts_with = "flatten", help_heading = "Names")]
    scoped: bool,
    /// Print the receipt (or the plan) as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    prune: PruneArgs,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    push: PushArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let started = Instant::now();
    let push = Push::new(&args.push, &args.to, Names::Hosted { scoped: args.scoped }, args.json)?;
    let (key, arrived) = (args.sign.key(context)?, args.prune.arrived(context)?);
    let brought = arrived.for_receipt(key.is_some());
    let push = push.signing(key)?.knowing(brought).holding(args.prune.is_asked_for());
    let ended = import(&args, &push, &arrived, started, context).await;
    // The result of the push is shown even if a later step failed.
    let shown = push.show(context);
    let ended = ended?;
    shown.map(|()| ended)
}

async fn import(
    args: &Args,
    push: &Push<'_>,
    arrived: &Arrived,
    started: Instant,
    context: &Context,
) -> Result<Outcome> {
    check_writable(&args.missing)?;
    if let [only] = &args.bundle[..]
        && let Some(piped) = Piped::open(only)?
    {
        return piped::run(args, piped, push, arrived, started, context).await;
    }
    args.state.as_ref().map_or(Ok(()), |_| args.push.check_several_runs())?;
    let mut state = args.state.as_ref().map(|path| State::open(path, &args.to, !args.push.is_dry_run())).transpose()?;
    let kept = state.as_ref().map_or(Ok(None), State::pieces)?;
    let opened = Opened::open_with(&args.bundle, kept)?;
    if let Some(state) = &mut state {
        volumes::bind(state, &opened)?;
    }
    let proven = prove(args, &opened, context).map_err(|error| error.while_doing(NOTHING))?;
    let (bundle, given) = opened.into_bundle(proven)?;
    let allowed = Allowed::read(args)?;
    allowed.check(bundle.lock())?;
    check_newer(args, &bundle)?;
    report_missing(&bundle, context);
    let arriving = state.map(|state| volumes::Crossing::new(state, given, &bundle));
    let arriving = arriving.as_ref().map(|arriving| arriving as &dyn Arriving);
    let ended = if bundle.json().is_increment() {
        let from = increment::From { arriving, pump: None, allowed: &allowed };
        increment::run(args, push, &bundle, from, started, context).await?
    } else {
        increment::not_needed(args, &bundle, context)?;
        let graph = read_graph(bundle.layout(), bundle.lock(), &allowed, context).await?;
        allowed.check_configs(bundle.layout(), &graph, has_config(&bundle)).await?;
        push.run(&cargo(&bundle, bundle.layout(), graph, arriving), started, context).await?
    };
    prune::after(ended, args, push, &bundle, arrived, context).await
}

/// Whether a config is in the bundle, or expected at the target: with --state, it may come later.
fn has_config(bundle: &Bundle) -> impl Fn(&Digest) -> bool {
    let assumed: HashSet<Digest> = bundle.json().assumed.iter().map(|assumed| assumed.digest).collect();
    move |config| assumed.contains(config) || bundle.layout().size_of(&config.blob_path()).is_some()
}

/// What the bundle does not bring though it was asked for: nothing of it changes at the target.
fn report_missing(bundle: &Bundle, context: &Context) {
    if let Some(line) = missing_line(&bundle.lock().missing) {
        let text = format!("{}: {line}", bundle.layout().path().display());
        context.events.report(Event::Warning(text));
    }
}

/// # Errors
/// The bundle is older than that of `--newer-than`.
fn check_newer(args: &Args, bundle: &Bundle) -> Result<()> {
    let Some(path) = &args.newer_than else { return Ok(()) };
    let (name, bytes) = read_bounded(path, MAX_RECEIPT + 1)?;
    let receipt = Receipt::parse(&bytes, &name)?;
    let Some(last) = receipt.created else {
        return Err(Error::input(format!("reading {name}: it does not say when its bundle was made")));
    };
    let made = bundle.lock().created;
    // Bundles of one lock are of one time: one that lacked images or companions must not keep the whole one out.
    let completes = made == last && receipt.is_completed_by(bundle.lock());
    if made > last || completes || receipt.bundle == Some(bundle.identity()) {
        return Ok(());
    }
    let path = bundle.layout().path().display();
    let text = format!("{path} was made {made}, which is not later than the bundle of {name}, made {last}");
    Err(Error::damaged(text).while_doing(NOTHING))
}

fn cargo<'a>(bundle: &Bundle, source: &'a dyn Source, graph: Graph, arriving: Option<&'a dyn Arriving>) -> Cargo<'a> {
    let (identity, created) = (Some(bundle.identity()), Some(bundle.lock().created));
    Cargo {
        source,
        graph,
        identity,
        created,
        places: HashMap::new(),
        note_lacking: None,
        faults: Vec::new(),
        lost: Vec::new(),
        left_out: None,
        missing: bundle.lock().missing.clone(),
        arriving,
        arrivals: None,
    }
}

/// What must be right before anything is pushed; a bundle with any problem is refused.
fn prove(args: &Args, opened: &Opened, context: &Context) -> Result<Option<Proven>> {
    let depth = if args.verify_first { Depth::Full } else { Depth::Structure };
    let path = opened.layout().path();
    let signed = args.keys.check_layout(opened.layout(), context)?;
    let mut report = verify::check_proven(opened, depth, signed.as_ref(), &context.events)?;
    report.ignore_chunks();
    if args.state.is_some() {
        report.problems.retain(|problem| !verify::is_of_lost_volume(problem));
    }
    if !report.is_clean() {
        context.end();
        return Err(refusal(path, &report, context));
    }
    if args.state.is_none() {
        refuse_incomplete(opened, &report, context)?;
    }
    if let Some(signed) = &signed {
        context.say(&signed_by(&signed.by));
    }
    Ok(signed)
}

/// Lists the first problems, and gives the error.
fn refusal(path: &Path, report: &Report, context: &Context) -> Error {
    for problem in report.problems.iter().take(10) {
        context.say_lines(&super::verify::shown(problem).lines().collect::<Vec<_>>());
    }
    verify::refuse(path, report)
}

/// All volumes have to be there, and right.
///
/// # Errors
/// Some are not: which.
pub fn refuse_incomplete(opened: &Opened, report: &Report, context: &Context) -> Result<()> {
    let path = opened.layout().path();
    let missing = opened.volumes().map(|volumes| volumes.missing()).unwrap_or_default();
    match (missing.is_empty(), report.is_clean()) {
        (true, true) => Ok(()),
        (true, false) => Err(refusal(path, report, context)),
        (false, _) => {
            let are = if missing.len() == 1 { "is" } else { "are" };
            let of = opened.volumes().map_or(0, |volumes| volumes.set.of);
            Err(Error::damaged(format!("{}: {} of {of} {are} missing", path.display(), numbers(&missing))))
        }
    }
}

/// How the images of a bundle are followed: what belongs to them is in the lock.
const OF_BUNDLE: Options =
    Options { index: None, available_platforms: false, referrers: Referrers::Leave, foreign_layers: true };
/// Images that are assembled at a time: files are read one after the other fast enough.
const FILES_AT_ONCE: usize = 4;

/// What the manifests of a bundle that expects nothing at the target lead to.
///
/// # Errors
/// They are not what the lock says, or not `allowed`.
async fn read_graph(source: &dyn Source, lock: &Lock, allowed: &Allowed, context: &Context) -> Result<Graph> {
    let cached = Cached::new(source, None);
    let walk = Walk::new(&cached, OF_BUNDLE, context.events.clone());
    let graph = resolve::assemble(&walk, lock, Origin::Bundle, FILES_AT_ONCE, &context.events).await;
    let graph = graph.map_err(|failures| failures.into_error("reading the bundle's manifests"))?;
    allowed.check_content(&graph)?;
    Ok(graph)
}
