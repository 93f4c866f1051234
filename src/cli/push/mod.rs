//! Pushing into a registry, from a graph and its source onward: the same for every command that has both. It must not know
//! where they come from.

mod companions;
mod planning;
mod proof;
pub mod report;
mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::allowlist::read_file;
use super::context::{Context, check_writable};
use super::exit::Outcome;
use super::receipts;
use super::registry::RegistryArgs;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::base::progress::units::count;
use crate::content::Source;
use crate::oci::{Digest, Reference, Repository};
use crate::pipeline::allowlist::refused;
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::{IndexMode, LockedImage, MissingImage};
use crate::pipeline::naming::{Map, Naming, Style, Target, landing, parse_target};
use crate::pipeline::plan::{OnExisting, Plan, Targets};
use crate::pipeline::receipt::{Brought, ImageReceipt, PrunedReceipt, Receipt};
use crate::pipeline::transfer::{self, Arrivals, Transfer};
use crate::signing::PrivateKey;
use crate::transport::registry::{Denials, Registries};
pub use target::absent;

/// How to push. The command that has these has `--to` as well.
#[derive(clap::Args)]
pub struct PushArgs {
    #[command(flatten)]
    names: NameArgs,
    #[command(flatten)]
    harbor: target::HarborArgs,
    /// What to do with a tag that means something else there
    ///
    /// This holds for tags of images and of their companions (sha256-….sig, .att, .sbom). Signatures that the target has are never
    /// overwritten: `overwrite` joins the lists of both sides under a .sig or .att tag, and the plan and the receipt say so.
    #[arg(long, value_name = "WHAT", default_value = "overwrite", help_heading = "Pushing")]
    on_existing: Existing,
    /// Rely on nothing that the target has: upload every blob, put every manifest
    ///
    /// For a target whose storage or cache is in doubt. What its tags mean is still asked. What an increment leaves to the target is
    /// read there to its last byte and proven before anything is pushed; a dry run does not read it.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    reupload: bool,
    /// Afterwards read everything back and prove its digests
    ///
    /// Over HTTP, as `gapferry prove` does at any later time; --receipt FILE is written before, and again with what was found. An
    /// image that was not proven has failed. With --receipt, an interrupted proof goes on when the same command is run again.
    #[arg(long, help_heading = "Pushing", hide_short_help = true)]
    prove: bool,
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
    /// For the records, and for the connected side to build on: the bundle's identity, target, each image's reference, digest
    /// and outcome, the blobs that are known to be there now, and the manifests, which the next export then need not read. Ctrl-C
    /// leaves one as well. An image that failed has the reason; one that migrate found faulty in the storage has a source, and no reference.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    receipt: Option<PathBuf>,
    /// Write the digest of each image, as skopeo sync does
    ///
    /// A line `DIGEST docker://REFERENCE` for each image that is at the target.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// How names at the target are made.
#[derive(clap::Args)]
pub struct NameArgs {
    /// Keep only the last part of the path
    #[arg(long, help_heading = "Names")]
    flatten: bool,
    /// File with naming rules, see below
    #[arg(long, value_name = "FILE", help_heading = "Names")]
    map: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Existing {
    /// The tag gets its new meaning
    Overwrite,
    /// The image, or the companion, is left out
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

/// What the names at the source are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// They begin with a registry, which the name at the target may keep (`scoped`).
    Hosted { scoped: bool },
    /// They are paths: nobody knows what the registry was called.
    Paths,
}

/// A push that was asked for, all that was said about it proven as far as that goes without asking anybody.
pub struct Push<'a> {
    args: &'a PushArgs,
    /// As it was given.
    to: &'a str,
    target: Target,
    naming: Naming,
    names: Names,
    json: bool,
    /// Signs the receipt.
    key: Option<Arc<PrivateKey>>,
    registries: OnceLock<Registries>,
    /// What earlier receipts say that gapferry pushed.
    brought: Brought,
    /// More is to be done after the push, and belongs in the same document.
    holds: bool,
    held: Mutex<Option<Held>>,
}

/// The document of a push, before it is printed.
enum Held {
    /// Of a dry run.
    Plan(Value),
    Receipt(Box<Receipt>),
}

/// Writes down blobs that the target claims to have and cannot give.
pub type NoteLacking<'a> = dyn Fn(&BTreeSet<Digest>) -> Result<()> + Sync + 'a;

/// What is to be pushed.
pub struct Cargo<'a> {
    pub source: &'a dyn Source,
    pub graph: Graph,
    /// Of the bundle it comes from, and when that was made.
    pub identity: Option<Digest>,
    pub created: Option<Timestamp>,
    /// Where the target has blobs that the source expects there.
    pub places: HashMap<Digest, Repository>,
    /// Notes those of them that turn out not to be readable there, before nothing is pushed because of them.
    pub note_lacking: Option<&'a NoteLacking<'a>>,
    /// What was found wrong with the source before: for the end, where it is read.
    pub faults: Vec<String>,
    /// Images that failed already: the source cannot give them.
    pub lost: Vec<ImageReceipt>,
    /// A warning about companions that the source has and that are not pushed. Then the push is no full success.
    pub left_out: Option<String>,
    /// Images that the bundle was to bring and lacks: no failure of this push.
    pub missing: Vec<MissingImage>,
    /// It comes in several runs, and this is the one that knows of the others.
    pub arriving: Option<&'a dyn Arriving>,
    /// It can be read once, in an order of its own.
    pub arrivals: Option<&'a dyn Arrivals>,
}

/// What a push was to do, and what was found afterwards.
struct Ended<'p> {
    plan: &'p Plan,
    /// Volumes that are still wanted.
    wanted: &'p [u32],
    /// Of each image, whether it was read back and is right; `None`: it was not read.
    proven: Vec<Option<bool>>,
}

/// Content that arrives in several runs.
pub trait Arriving {
    /// Whether the blob can be read now.
    fn is_at_hand(&self, blob: &Digest) -> bool;

    /// Before the first push: keeps what the blobs that are `waiting` will need later.
    ///
    /// # Errors
    /// Then nothing is pushed.
    fn before(&self, plan: &Plan, waiting: &BTreeSet<Digest>) -> Result<()>;

    /// After the last one; gives the numbers of the volumes that are still wanted.
    ///
    /// # Errors
    /// It could not be written down.
    fn after(&self, waiting: &BTreeSet<Digest>, outcome: &transfer::Outcome) -> Result<Vec<u32>>;
}

impl<'a> Push<'a> {
    /// # Errors
    /// The target, the naming rules, or a file to be written is not what it should be.
    pub fn new(args: &'a PushArgs, to: &'a str, names: Names, json: bool) -> Result<Push<'a>> {
        let target = parse_target(to)?;
        args.registry.claim_stdin()?;
        check_writable(args.receipt.iter().chain(&args.digestfile))?;
        let naming = args.names.naming(&target, names)?;
        Ok(Push {
            args,
            to,
            target,
            naming,
            names,
            json,
            key: None,
            registries: OnceLock::new(),
            brought: Brought::default(),
            holds: false,
            held: Mutex::default(),
        })
    }

    /// The receipt gets a signature by `key`, if there is one.
    ///
    /// # Errors
    /// There is to be no receipt.
    pub fn signing(self, key: Option<Arc<PrivateKey>>) -> Result<Push<'a>> {
        if key.is_some() && self.args.receipt.is_none() {
            return Err(Error::input("--sign-key signs the receipt here: name one by --receipt FILE"));
        }
        Ok(Push { key, ..self })
    }

    /// The receipt also says of what is there already that `brought` or the receipt that it replaces says that gapferry pushed it.
    /// One that is to be signed believes only what the same key has signed.
    pub fn knowing(self, brought: Brought) -> Push<'a> {
        let mut brought = brought;
        let earlier = self.args.receipt.as_ref().and_then(|path| receipts::earlier(path, self.key.as_deref()));
        earlier.iter().for_each(|receipt| brought.add(receipt));
        Push { brought, ..self }
    }

    /// The document of the push is held back until [`Push::show`], so that [`Push::complete`] can add to it.
    pub fn holding(self, holds: bool) -> Push<'a> {
        Push { holds, ..self }
    }

    /// Adds what was deleted after the push to its document and its receipt.
    ///
    /// # Errors
    /// The receipt cannot be written again.
    pub fn complete(&self, pruned: Vec<PrunedReceipt>) -> Result<()> {
        match &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Held::Plan(plan)) => plan["pruned"] = json!(pruned),
            Some(Held::Receipt(receipt)) => {
                receipt.pruned = pruned;
                let path = self.args.receipt.as_ref().filter(|_| !receipt.pruned.is_empty());
                path.map_or(Ok(()), |path| report::keep(path, receipt, self.key.as_deref()))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Prints the document that was held back, if one was asked for.
    ///
    /// # Errors
    /// Standard output's.
    pub fn show(&self, context: &Context) -> Result<()> {
        match self.held.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|_| self.json) {
            Some(Held::Plan(plan)) => context.print_json(&plan),
            Some(Held::Receipt(receipt)) => context.print(&receipt.to_file_that_fits()?),
            None => Ok(()),
        }
    }

    fn hold(&self, document: Held) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(document);
    }

    /// # Errors
    /// Whatever stands in the way of all images.
    pub async fn run(&self, cargo: &Cargo<'_>, started: Instant, context: &Context) -> Result<Outcome> {
        let (args, graph) = (self.args, &cargo.graph);
        let (targets, notices) = self.name_images(graph.images.iter().map(|image| &image.locked))?;
        notices.into_iter().for_each(|notice| context.events.report(Event::Notice(notice)));
        warn_untagged(&targets, context);
        let registries = self.connect(context)?;
        let prepared = target::prepare(&args.harbor, &registries, &self.target, &targets, args.dry_run, context);
        let mut prepared = prepared.await?;
        let mut plan = self.plan(&registries, cargo, &targets, &prepared, context).await?;
        target::check_rights(&args.harbor, &mut prepared, &plan, args.dry_run)?;
        let waiting = match cargo.arriving {
            Some(arriving) => plan.hold_back(graph, |blob| arriving.is_at_hand(blob)),
            None => BTreeSet::new(),
        };
        if !args.reupload {
            // Of what is sent again nobody knows what it adds.
            target::check_quotas(&mut prepared, &registries, &plan, context).await?;
        }
        if args.dry_run {
            report::faults(cargo, context);
            let planned = report::plan(self, cargo, &plan, &prepared.notes, context)?;
            return Ok(if prepared.is_refused { Outcome::Failed(Kind::Refused) } else { planned });
        }
        check_incomplete_indexes(graph, context);
        cargo.arriving.map_or(Ok(()), |arriving| arriving.before(&plan, &waiting))?;
        let options = transfer::Options { jobs: args.registry.jobs(), fail_fast: args.fail_fast };
        let transfer = Transfer::new(cargo.source, &registries, options, context.events.clone());
        let transfer = transfer.noting_tags(&context.publishing);
        let interrupted = report::Interrupted::new(self, cargo, &plan, &transfer);
        let mut outcome = transfer.run_with(graph, &plan, cargo.arrivals).await;
        interrupted.disarm();
        context.end();
        let wanted = cargo.arriving.map_or_else(|| Ok(Vec::new()), |arriving| arriving.after(&waiting, &outcome));
        let volumes = wanted.as_ref().map_or(&[][..], |wanted| wanted);
        let mut ended = Ended { plan: &plan, wanted: volumes, proven: vec![None; outcome.images.len()] };
        let proven = match args.prove {
            true => {
                // How a proof of hours ends must not cost the receipt.
                report::receipt(self, cargo, &ended, &outcome)?;
                self.prove(&registries, graph, (&mut ended, &mut outcome), context).await
            }
            false => Ok(Outcome::Done),
        };
        let written = report::files(self, cargo, &ended, &outcome, context);
        // Which images failed is told whatever became of the receipt; that it is missing comes last.
        let ended = report::summary(cargo, &ended, &outcome, started, context);
        let proven = wanted.and(written).and(proven)?;
        Ok(if proven == Outcome::Damaged || ended == Outcome::Done { proven } else { ended })
    }

    /// The client for the target, one for all that is asked of it.
    ///
    /// # Errors
    /// Credentials or certificates that cannot be used.
    pub fn connect(&self, context: &Context) -> Result<Registries> {
        if let Some(registries) = self.registries.get() {
            return Ok(registries.clone());
        }
        let registries = self.args.registry.connect([self.target.registry.clone()], &BTreeMap::new(), context)?;
        registries.take_denials(match self.args.on_existing {
            Existing::Skip | Existing::Fail => Denials::Errors,
            Existing::Overwrite if self.args.dry_run => Denials::Absent,
            Existing::Overwrite => Denials::AbsentIfWritable,
        });
        Ok(self.registries.get_or_init(|| registries).clone())
    }

    /// `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.target.registry
    }

    /// Whether a name is one below the target.
    pub fn is_below(&self, name: &Reference) -> bool {
        let below = |prefix: &String| name.repository.path().strip_prefix(prefix).is_some_and(|at| at.starts_with('/'));
        name.repository.registry() == self.target.registry && self.target.prefix.as_ref().is_none_or(below)
    }

    /// How many things are asked or moved at a time.
    pub fn jobs(&self) -> usize {
        self.args.registry.jobs()
    }

    /// Of which repositories nothing can be there, such as those of projects that are still to be created.
    ///
    /// # Errors
    /// No clear answer.
    pub async fn closed(
        &self,
        registries: &Registries,
        targets: &Targets,
    ) -> Result<impl Fn(&Repository) -> bool + use<>> {
        target::closed(registries, &self.target, targets).await
    }

    /// The name of each image at the target, and what is worth telling of them.
    ///
    /// # Errors
    /// One that would be no name, or the name of two different images.
    pub fn name_images<'i>(&self, images: impl Iterator<Item = &'i LockedImage>) -> Result<(Targets, Vec<String>)> {
        let images: Vec<&LockedImage> = images.collect();
        let names = images.iter().map(|image| self.naming.target(&self.target.registry, image));
        let names: Targets = names.collect::<Result<_>>()?;
        let landed = landing(names.iter().zip(images));
        if !landed.collisions.is_empty() {
            let remedy = match self.names {
                Names::Hosted { .. } => "--scoped",
                Names::Paths => "--map",
            };
            let text = "different images would get one name; nothing was pushed";
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

impl PushArgs {
    /// Nothing is to change, neither there nor here.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// # Errors
    /// A bundle that comes in several runs relies on what earlier ones have pushed.
    pub fn check_several_runs(&self) -> Result<()> {
        match self.reupload {
            true => Err(Error::input("--reupload needs the whole bundle; with --state some of it was there before")),
            false => Ok(()),
        }
    }
}

impl NameArgs {
    pub fn naming(&self, target: &Target, names: Names) -> Result<Naming> {
        let style = match (names, self.flatten) {
            (Names::Hosted { scoped: true }, _) => Style::Scoped,
            (_, true) => Style::Flatten,
            _ => Style::Default,
        };
        let map = match &self.map {
            Some(path) => {
                let (file, bytes) = read_file(path)?;
                let map = match names {
                    Names::Hosted { .. } => Map::parse(&bytes, &file),
                    Names::Paths => Map::parse_paths(&bytes, &file),
                };
                map.map_err(|problems| refused("the naming rules", &problems))?
            }
            None => Map::default(),
        };
        Ok(Naming { prefix: target.prefix.clone(), style, map })
    }
}

/// What has no tag at the target is for its garbage collection to take: in zot after an hour.
fn warn_untagged(targets: &Targets, context: &Context) {
    let untagged = targets.iter().filter(|to| to.tag.is_none()).count();
    if untagged > 0 {
        let (images, verb) = (count(untagged, "image"), if untagged == 1 { "gets" } else { "get" });
        let text =
            "garbage collection there may delete what has no tag; as=REPOSITORY:TAG in the allowlist gives it one";
        context.events.report(Event::Warning(format!("{images} {verb} no tag at the target: {text}")));
    }
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
