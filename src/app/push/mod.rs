//! Pushes a graph from its source to a registry. All commands that push use this module, which must not depend on where the
//! source comes from.

mod failures;
mod not_brought;
mod notices;
mod options;
mod planned;
mod planning;
mod prove_pushed;
mod report;
mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;
use std::time::Instant;

use jiff::Timestamp;

use super::environment::Environment;
use super::local::check_writable;
use super::outcome::Outcome;
use super::receipts;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::content::Source;
use crate::oci::{Digest, Reference, Repository};
use crate::pipeline::companion;
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::{IndexMode, LockedImage, MissingImage};
use crate::pipeline::naming::{Naming, Target, find_collisions, parse_target};
use crate::pipeline::plan::{OnExisting, Plan, Targets};
use crate::pipeline::receipt::{Brought, ImageReceipt};
use crate::pipeline::transfer::{self, Arrivals, Transfer};
use crate::transport::registry::{Denials, Registries};
pub use failures::{ImageFailure, SPARSE_REMEDY};
pub use not_brought::NotBrought;
pub use options::{HarborOptions, NameOptions, Names, PushOptions};
pub use planned::{PlannedAction, PlannedCompanion, PlannedImage, PlannedTag, PushPlan};
pub use report::{PushReport, Pushed};
pub(super) use target::absent;

/// A requested push. Everything that can be checked without asking the target was checked.
pub(in crate::app) struct Push<'a> {
    options: &'a PushOptions,
    target: Target,
    naming: Naming,
    registries: OnceLock<Registries>,
    /// What gapferry pushed according to earlier receipts.
    brought: Brought,
    environment: &'a Environment,
}

/// Records blobs that the target claims to have and cannot return.
pub type NoteLacking<'a> = dyn Fn(&BTreeSet<Digest>) -> Result<()> + Sync + 'a;

/// The input of a push.
pub(in crate::app) struct PushRequest<'a> {
    pub source: &'a dyn Source,
    pub graph: Graph,
    /// Identity of the bundle, and when it was made. `None` for other sources.
    pub identity: Option<Digest>,
    pub created: Option<Timestamp>,
    /// Where the target has the blobs that the source expects there.
    pub places: HashMap<Digest, Repository>,
    /// Records which of those blobs cannot be read at the target, before the push is refused because of them.
    pub note_lacking: Option<&'a NoteLacking<'a>>,
    /// Problems found in the source before the push, for the report.
    pub problems: Vec<String>,
    /// Images that the source cannot deliver, which count as failed.
    pub lost: Vec<ImageReceipt>,
    /// Companions in the source that are not pushed. They make the push an incomplete success.
    pub left_out: Option<LeftOut>,
    /// Images that were requested for the bundle and are missing from it. They do not count as failed.
    pub missing: Vec<MissingImage>,
    /// Set if the content arrives in several runs.
    pub runs: Option<&'a dyn SeveralRuns>,
    /// Set if the content can be read only once, in its own order.
    pub arrivals: Option<&'a dyn Arrivals>,
}

/// Companions that are not pushed: while a policy hides their subjects, it cannot be checked whether they belong to the
/// images.
#[derive(Clone, Debug)]
pub struct LeftOut {
    pub companions: Vec<companion::Kind>,
    /// The images that these companions belong to.
    pub images: Vec<Reference>,
}

impl<'a> PushRequest<'a> {
    /// The push of a source that has everything and is not a bundle.
    pub fn new(source: &'a dyn Source, graph: Graph) -> PushRequest<'a> {
        PushRequest {
            source,
            graph,
            identity: None,
            created: None,
            places: HashMap::new(),
            note_lacking: None,
            problems: Vec::new(),
            lost: Vec::new(),
            left_out: None,
            missing: Vec::new(),
            runs: None,
            arrivals: None,
        }
    }
}

/// A transfer that has ended.
struct Transferred<'p> {
    plan: &'p Plan,
    /// Blobs that are still to arrive.
    waiting: &'p BTreeSet<Digest>,
    outcome: transfer::TransferOutcome,
    /// Start of the command.
    started: Instant,
}

/// The plan of a push, and its state at the end.
struct Ended<'p> {
    plan: &'p Plan,
    /// Numbers of volumes that are still needed.
    wanted: &'p [u32],
    /// For each image, whether it was read back correctly. `None` if it was not read.
    proven: Vec<Option<bool>>,
}

/// Content that arrives in several runs, each with other volumes.
pub trait SeveralRuns {
    /// Whether the blob can be read now.
    fn is_available(&self, blob: &Digest) -> bool;

    /// Called before the first push. Keeps what the `waiting` blobs will need in a later run.
    ///
    /// # Errors
    /// Nothing is pushed then.
    fn before_push(&self, plan: &Plan, waiting: &BTreeSet<Digest>) -> Result<()>;

    /// Called after the last push. Returns the numbers of the volumes that are still needed.
    ///
    /// # Errors
    /// The state could not be written.
    fn after_push(&self, waiting: &BTreeSet<Digest>, outcome: &transfer::TransferOutcome) -> Result<Vec<u32>>;
}

impl<'a> Push<'a> {
    /// Prepares a push. Content that is already at the target is recorded in the receipt as pushed by gapferry if
    /// `brought`, or the receipt that will be replaced, says so.
    ///
    /// # Errors
    /// The target is malformed, or a file cannot be written.
    pub fn new(options: &'a PushOptions, brought: Brought, environment: &'a Environment) -> Result<Push<'a>> {
        let target = parse_target(&options.to)?;
        check_writable(options.receipt.iter().map(|receipt| &receipt.path).chain(&options.digest_file))?;
        let (mut brought, naming) = (brought, options.names.naming(&target));
        let earlier = options.receipt.as_ref().and_then(receipts::earlier);
        earlier.iter().for_each(|receipt| brought.add(receipt));
        Ok(Push { options, target, naming, registries: OnceLock::new(), brought, environment })
    }

    /// Pushes the images. `started` is the start of the command.
    ///
    /// # Errors
    /// No image was pushed: the registry refuses all of them, or cannot be reached.
    pub async fn run(&self, request: &PushRequest<'_>, started: Instant) -> Result<PushReport> {
        let (options, graph, events) = (self.options, &request.graph, &self.environment.events);
        let (targets, notices) = self.name_images(graph.images.iter().map(|image| &image.locked))?;
        notices.into_iter().for_each(|notice| events.report(Event::Notice(notice)));
        warn_untagged(&targets, events);
        let registries = self.connect()?;
        let asked = target::Asked { options: &options.harbor, dry_run: options.dry_run, events };
        let mut prepared = target::prepare(&asked, &registries, &self.target, &targets).await?;
        let mut plan = self.plan(&registries, request, &targets, &prepared).await?;
        target::check_rights(&asked, &mut prepared, &plan)?;
        let waiting = match request.runs {
            Some(runs) => plan.hold_back(graph, |blob| runs.is_available(blob)),
            None => BTreeSet::new(),
        };
        if !options.reupload {
            // Nothing shows how much a blob adds that is uploaded again.
            target::check_quotas(&mut prepared, &registries, &plan, events).await?;
        }
        if options.dry_run {
            let outcome = if prepared.is_refused { Outcome::Failed(Kind::Refused) } else { Outcome::Done };
            return Ok(PushReport::Planned(Box::new(PushPlan::new(request, &plan, prepared.notes, outcome))));
        }
        warn_of_sparse_indexes(graph, events);
        request.runs.map_or(Ok(()), |runs| runs.before_push(&plan, &waiting))?;
        let transfer_options = transfer::Options { jobs: self.jobs(), fail_fast: options.fail_fast };
        let transfer = Transfer::new(request.source, &registries, transfer_options, events.clone());
        let transfer = transfer.noting_tags(&self.environment.publishing);
        let interrupted = report::Interrupted::new(self, request, &plan, &transfer);
        let outcome = transfer.run_with(graph, &plan, request.arrivals).await;
        interrupted.disarm();
        let transferred = Transferred { plan: &plan, waiting: &waiting, outcome, started };
        Ok(self.conclude(request, &registries, transferred).await)
    }

    /// Proves what was pushed, if requested, and writes the receipt.
    async fn conclude(
        &self,
        request: &PushRequest<'_>,
        registries: &Registries,
        transferred: Transferred<'_>,
    ) -> PushReport {
        let Transferred { plan, waiting, mut outcome, started } = transferred;
        let wanted = request.runs.map_or_else(|| Ok(Vec::new()), |runs| runs.after_push(waiting, &outcome));
        let volumes = wanted.as_ref().map_or(&[][..], |wanted| wanted);
        let mut ended = Ended { plan, wanted: volumes, proven: vec![None; outcome.images.len()] };
        let proof = match self.options.prove {
            true => self.prove(registries, request, &mut ended, &mut outcome).await,
            false => Ok(None),
        };
        let receipt = self.receipt(request, &ended, &outcome);
        let written = self.write(&receipt, request, &ended, &outcome);
        let mut pushed = Pushed::new(request, &ended, outcome, receipt, started);
        let failed = match proof {
            Ok(proof) => {
                pushed.add_proof(proof);
                None
            }
            Err(error) => Some(error),
        };
        let mut report = PushReport::Pushed(Box::new(pushed));
        let failures = [wanted.err(), written.err(), failed].into_iter().flatten();
        failures.for_each(|error| report.fail(error, &self.environment.events));
        report
    }

    /// Returns the client for the target, which is shared by all requests.
    ///
    /// # Errors
    /// Credentials or certificates cannot be used.
    pub fn connect(&self) -> Result<Registries> {
        if let Some(registries) = self.registries.get() {
            return Ok(registries.clone());
        }
        let (options, names) = (self.options, [self.target.registry.clone()]);
        let registries = options.registry.connect(names, &BTreeMap::new(), self.environment)?;
        registries.take_denials(match options.on_existing {
            OnExisting::Skip | OnExisting::Fail => Denials::Errors,
            OnExisting::Overwrite if options.dry_run => Denials::Absent,
            OnExisting::Overwrite => Denials::AbsentIfWritable,
        });
        Ok(self.registries.get_or_init(|| registries).clone())
    }

    /// `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.target.registry
    }

    /// Whether a reference is below the target.
    pub fn is_below(&self, name: &Reference) -> bool {
        let below = |prefix: &String| name.repository.path().strip_prefix(prefix).is_some_and(|at| at.starts_with('/'));
        name.repository.registry() == self.target.registry && self.target.prefix.as_ref().is_none_or(below)
    }

    /// Number of requests or transfers at the same time.
    pub fn jobs(&self) -> usize {
        self.options.registry.jobs
    }

    /// Returns a check for repositories that cannot contain anything, such as those of projects that do not exist yet.
    ///
    /// # Errors
    /// The registry gave no clear answer.
    pub async fn closed(
        &self,
        registries: &Registries,
        targets: &Targets,
    ) -> Result<impl Fn(&Repository) -> bool + use<>> {
        target::closed(registries, &self.target, targets).await
    }

    /// Returns the reference of each image at the target, and notices about them.
    ///
    /// # Errors
    /// A reference would be invalid, or two different images would have the same reference.
    pub fn name_images<'i>(&self, images: impl Iterator<Item = &'i LockedImage>) -> Result<(Targets, Vec<String>)> {
        let images: Vec<&LockedImage> = images.collect();
        let names = images.iter().map(|image| self.naming.target(&self.target.registry, image));
        let names: Targets = names.collect::<Result<_>>()?;
        let landed = find_collisions(names.iter().zip(images));
        if !landed.collisions.is_empty() {
            let remedy = match self.options.names.names {
                Names::Hosted => "--scoped",
                Names::Paths => "--map",
            };
            let text = "different images would get the same name; nothing was pushed";
            let remedy = match landed.collisions.iter().any(|collision| collision.is_of_allowlist) {
                true => "another as= in the allowlist, and an export with it,",
                false => remedy,
            };
            let list = landed.collisions.iter().map(|collision| format!("  {collision}"));
            return Err(Error::input(format!("{text} ({remedy} keeps them apart):")).listing(list));
        }
        Ok((names, landed.notices))
    }
}

/// Untagged images can be deleted by the target's garbage collection: in zot after an hour.
fn warn_untagged(targets: &Targets, events: &Events) {
    let untagged = targets.iter().filter(|to| to.tag.is_none()).count();
    if untagged > 0 {
        let (images, verb) = (count(untagged, "image"), if untagged == 1 { "gets" } else { "get" });
        let text =
            "the target's garbage collection may delete untagged images; as=REPOSITORY:TAG in the allowlist sets a tag";
        events.report(Event::Warning(format!("{images} {verb} no tag at the target: {text}")));
    }
}

/// Warns in advance, because most registries refuse an index with missing children.
fn warn_of_sparse_indexes(graph: &Graph, events: &Events) {
    let sparse = graph
        .images
        .iter()
        .filter(|image| image.locked.selection.as_ref().is_some_and(|selection| selection.index == IndexMode::Sparse));
    for image in sparse {
        let text = format!("{}: {}", image.locked.reference, SPARSE_REMEDY);
        events.report(Event::Warning(text));
    }
}
