//! Imports a bundle into a registry: checks the bundle and pushes its images. Blobs are proven before the push, or while
//! they are read.

mod allowed;
mod increment;
mod piped;
mod prune;
mod pump;
mod request;
mod volumes;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use super::environment::Environment;
use super::local::check_writable;
use super::missing::missing_line;
use super::outcome::JsonReport;
use super::push::{Push, PushReport, PushRequest, SeveralRuns};
use super::receipts::NamedReceipt;
use crate::base::error::{Error, Fact, Kind, Result};
use crate::base::progress::Event;
use crate::bundle::volumes::{ImportState, Opened, VolumesMissing};
use crate::bundle::{Bundle, Proven};
use crate::content::{Cached, Source};
use crate::oci::Digest;
use crate::pipeline::graph::Graph;
use crate::pipeline::resolve;
use crate::pipeline::walk::{LockOrigin, Options, Referrers, Walk};
use crate::signing::PublicKey;
use crate::verify::{self, Depth, Report};
use allowed::Allowed;
pub use allowed::NotAllowed;
pub use prune::{Arrived, PruneOptions, PruneReport, Pruned};
pub use request::{BundleInput, ImportRequest, NamedAllowlist};

const NOTHING: &str = "nothing was pushed";

/// What an import did, or would do. Its JSON is that of the push.
#[derive(Serialize)]
pub struct ImportReport {
    #[serde(flatten)]
    pub push: PushReport,
    /// The key whose signature was verified.
    #[serde(skip)]
    pub signed_by: Option<PublicKey>,
    /// `None` if no pruning was requested.
    #[serde(skip)]
    pub pruned: Option<Pruned>,
}

impl JsonReport for ImportReport {}

/// Checks a bundle and pushes its images into a registry.
///
/// # Errors
/// The bundle is refused, or no image can be pushed: nothing was pushed. The problems of a refused bundle are in the error
/// ([`verify::Refusal::of`]). Errors that occur after the push are in the report.
pub async fn import(mut request: ImportRequest, environment: &Environment) -> Result<ImportReport> {
    let started = Instant::now();
    let input = std::mem::take(&mut request.bundle);
    let brought = request.prune.as_ref().map(|prune| prune.brought(request.push.receipt.as_ref())).unwrap_or_default();
    let push = Push::new(&request.push, brought, environment)?;
    check_writable(&request.missing)?;
    let import = Import { request: &request, push: &push, environment, started };
    match input {
        BundleInput::Files { paths, state, verify_first } => {
            let depth = if verify_first { Depth::Full } else { Depth::Structure };
            import.files(&paths, state.as_deref(), depth).await
        }
        BundleInput::Stream(stream) => import.stream(stream).await,
    }
}

/// A running import.
struct Import<'a> {
    request: &'a ImportRequest,
    push: &'a Push<'a>,
    environment: &'a Environment,
    started: Instant,
}

impl Import<'_> {
    async fn files(&self, paths: &[PathBuf], state: Option<&Path>, depth: Depth) -> Result<ImportReport> {
        let request = self.request;
        if state.is_some() && request.push.reupload {
            // A later run relies on what earlier runs have pushed.
            let text = "--reupload needs the whole bundle, and with --state part of it was pushed before";
            return Err(Error::input(text));
        }
        let mut state =
            state.map(|path| ImportState::open(path, &request.push.to, !request.push.dry_run)).transpose()?;
        let kept = state.as_ref().map_or(Ok(None), ImportState::pieces)?;
        let opened = Opened::open_with(paths, kept)?;
        if let Some(state) = &mut state {
            volumes::bind(state, &opened)?;
        }
        let proven = self.check(&opened, depth, state.is_some()).map_err(|error| error.while_doing(NOTHING))?;
        let signed_by = proven.as_ref().map(|proven| proven.by.clone());
        let (bundle, given) = opened.into_bundle(proven)?;
        let allowed = self.admit(&bundle)?;
        let run = state.map(|state| volumes::VolumeRun::new(state, given, &bundle));
        let runs = run.as_ref().map(|run| run as &dyn SeveralRuns);
        let pushed = if bundle.json().is_increment() {
            self.increment(&bundle, increment::From { runs, pump: None, allowed: &allowed }).await?
        } else {
            self.expects_nothing(&bundle)?;
            let graph = self.read_graph(&bundle, &allowed).await?;
            allowed.check_configs(bundle.layout(), &graph, has_config(&bundle)).await?;
            let push = PushRequest { runs, ..of_bundle(&bundle, bundle.layout(), graph) };
            self.push.run(&push, self.started).await?
        };
        let mut report = ImportReport { push: pushed, signed_by, pruned: None };
        self.prune(&mut report, &bundle).await;
        Ok(report)
    }

    /// Checks the bundle before anything is pushed, and refuses it if it has any problem. Returns what an accepted key has
    /// signed.
    fn check(&self, opened: &Opened, depth: Depth, may_lack_volumes: bool) -> Result<Option<Proven>> {
        let (path, events) = (opened.layout().path(), &self.environment.events);
        let signed = self.request.trust.check(opened.layout(), self.environment)?;
        let mut report = verify::check_proven(opened, depth, signed.as_ref(), events)?;
        report.ignore_unneeded();
        if may_lack_volumes {
            report.problems.retain(|problem| !verify::is_of_lost_volume(problem));
        }
        if !report.is_clean() {
            return Err(verify::refuse(path, &report));
        }
        if !may_lack_volumes {
            refuse_incomplete(opened, &report)?;
        }
        if let Some(signed) = &signed {
            events.report(Event::Status(format!("signed by {}", signed.by)));
        }
        Ok(signed)
    }

    /// Checks whether the lock of the bundle may be imported. Warns about images that the bundle lacks.
    ///
    /// # Errors
    /// An image is not allowed, or the bundle is not newer than the last one.
    fn admit(&self, bundle: &Bundle) -> Result<Allowed<'_>> {
        let allowed = Allowed(self.request.allow.as_ref());
        allowed.check(bundle.lock())?;
        if let Some(receipt) = &self.request.newer_than {
            check_newer(receipt, bundle)?;
        }
        // Images that the bundle lacks stay unchanged at the target.
        if let Some(line) = missing_line(&bundle.lock().missing) {
            let text = format!("{}: {line}", bundle.layout().path().display());
            self.environment.events.report(Event::Warning(text));
        }
        Ok(allowed)
    }

    /// Reads the graph of a bundle that expects nothing at the target.
    ///
    /// # Errors
    /// The manifests contradict the lock, or are not allowed.
    async fn read_graph(&self, bundle: &Bundle, allowed: &Allowed<'_>) -> Result<Graph> {
        let (cached, events) = (Cached::new(bundle.layout(), None), &self.environment.events);
        let walk = Walk::new(&cached, OF_BUNDLE, events.clone());
        let graph = resolve::assemble(&walk, bundle.lock(), LockOrigin::Bundle, FILES_AT_ONCE, events).await;
        let graph = graph.map_err(|failures| failures.into_error("reading the bundle's manifests"))?;
        allowed.check_content(&graph)?;
        Ok(graph)
    }
}

/// Whether a config is in the bundle or expected at the target. With `--state`, it can arrive in a later run.
fn has_config(bundle: &Bundle) -> impl Fn(&Digest) -> bool {
    let assumed: HashSet<Digest> = bundle.json().assumed.iter().map(|assumed| assumed.digest).collect();
    move |config| assumed.contains(config) || bundle.layout().size_of(&config.blob_path()).is_some()
}

/// Checks that a bundle is newer than that of a receipt.
///
/// # Errors
/// The bundle is not newer.
fn check_newer(NamedReceipt { name, receipt }: &NamedReceipt, bundle: &Bundle) -> Result<()> {
    let Some(last) = receipt.created else {
        return Err(Error::input(format!("reading {name}: it does not state when its bundle was made")));
    };
    let made = bundle.lock().created;
    // Bundles of one lock have one time. If the last one lacked images or companions, the complete one must not be refused.
    let completes = made == last && receipt.is_completed_by(bundle.lock());
    if made > last || completes || receipt.bundle == Some(bundle.identity()) {
        return Ok(());
    }
    let path = bundle.layout().path();
    let fact = NotNewer { path: path.to_owned(), made, receipt: name.clone(), last };
    Err(Error::of(Kind::Damaged, fact).while_doing(NOTHING))
}

/// A bundle that is not newer than the last one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} was made {made}, which is not later than the bundle of {receipt}, made {last}", path.display())]
pub struct NotNewer {
    pub path: PathBuf,
    pub made: Timestamp,
    /// The name of the receipt.
    pub receipt: String,
    /// When the bundle of the receipt was made.
    pub last: Timestamp,
}

impl Fact for NotNewer {}

/// Returns the push of a bundle.
fn of_bundle<'a>(bundle: &Bundle, source: &'a dyn Source, graph: Graph) -> PushRequest<'a> {
    let (identity, created) = (Some(bundle.identity()), Some(bundle.lock().created));
    PushRequest { identity, created, missing: bundle.lock().missing.clone(), ..PushRequest::new(source, graph) }
}

/// Checks that all volumes were given and have no problem.
///
/// # Errors
/// Volumes are missing, or have problems.
pub(in crate::app) fn refuse_incomplete(opened: &Opened, report: &Report) -> Result<()> {
    let path = opened.layout().path();
    let missing = opened.volumes().map(|volumes| volumes.missing()).unwrap_or_default();
    match (missing.is_empty(), report.is_clean()) {
        (true, true) => Ok(()),
        (true, false) => Err(verify::refuse(path, report)),
        (false, _) => {
            let fact = VolumesMissing { of: opened.volumes().map_or(0, |volumes| volumes.set.of), missing };
            Err(Error::damaged(format!("{}: {fact}", path.display())).with_fact(fact))
        }
    }
}

/// How the images of a bundle are followed: their companions are in the lock.
const OF_BUNDLE: Options =
    Options { index: None, available_platforms: false, referrers: Referrers::Leave, foreign_layers: true };
/// Images assembled at the same time: few, because local files are fast to read.
const FILES_AT_ONCE: usize = 4;
