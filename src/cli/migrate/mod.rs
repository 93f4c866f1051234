//! `gapferry migrate`: the storage of a registry → what is in it, or its images in another registry, a bundle, `dir:`
//! directories or a storage of their own.

mod choice;
mod chosen;
mod closed;
mod collect;
pub mod counted;
mod entry;
pub mod faults;
mod list;
mod report;
mod signatures;
mod tags;
mod to_bundle;
mod to_dir;
mod to_storage;

use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use super::context::Context;
use super::exit::Outcome;
use super::push::{self, Destination, PushArgs};
use super::read_back::ReadBackArgs;
use super::signing::SignArgs;
use super::tools::ToolArgs;
use crate::app::{Names, Push, PushRequest};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::progress::units::count;
use crate::content::LinkMode;
use crate::pipeline::graph::Graph;
use crate::pipeline::naming::parse_target;
use crate::pipeline::receipt::{Brought, ImageReceipt};
use crate::pipeline::resolve::companion_tags;
use crate::transport::storage::{Depth, Storage};
use choice::Which;
use collect::{Collected, Companions};
use report::Asked;
use to_storage::Owner;

/// What references to a storage's content call the registry it belonged to.
pub const REGISTRY: &str = "localhost";

const ABOUT: &str = "\
Reads the storage directory of a docker registry (distribution 2.8 or 3, Harbor's too) without the registry.

STORAGE is a directory at or above docker/registry/v2 (a registry's rootdirectory, or Harbor's data volume), or a plain tar of \
one, which is read by offset and never extracted. Nothing in it is changed, and a registry that runs beside it is not \
disturbed.

--to pushes the images into a registry, straight from the storage, as import does from a bundle: the target is asked what it \
has, each blob is proven while it passes, uploaded once and mounted into the other repositories, tags come last and are read \
back. Run again, it does only what is missing.

--to-dir writes one directory for each tag, DIR/REPOSITORY:TAG, as skopeo's dir: transport reads it. Blobs are hard links to \
the storage and take no room; manifests are copies. Never write into a linked blob: it is the registry's own. Run again, \
it keeps what is finished and redoes what is not; a directory that holds anything else is left alone, and its image fails.

--to-bundle writes the bundle that export would have made, for verify, import and serve. Names keep their path and are below \
localhost, since a storage does not know what its registry was called. Where the bundle is a directory on the same file \
system its blobs are hard links too, each hashed while it is linked.

--to-storage writes a storage with the chosen images, all of them whole, into an empty directory or on top of what an earlier \
run has written there. A docker registry serves it as it is; for Harbor 1.x the steps that remain are printed (Harbor 2.x does \
not look into its storage: use --to). --chown gives its files an owner, so that their blobs cannot be hard links, which have \
one owner wherever they are.

Signatures and SBOMs that have a tag, such as cosign's, are images like any other. Those that have none but name an image as \
their subject go with it, with all that speaks of them, into a registry, a bundle or a storage, as export takes them \
along; where one is damaged the image fails. --no-referrers leaves them behind; a dir: image has no place for them. What else no \
tag leads to comes with --untagged.

What is wrong in the storage (an empty link, a tag that means nothing, a layer that is missing or has another size) is told \
with its path and the images it costs; the other images are listed, pushed or written all the same.

Exit code 0: done. 1: some images failed, or a place where images may be cannot be read. 3: --strict, and something is \
wrong; nothing was written or pushed. 4, 5: the registry refused, or could not be reached.";

const AFTER: &str = "\
Examples:
  gapferry migrate /var/lib/registry --list
  gapferry migrate registry.tar --list --json | jq -r '.images[] | select(.state != \"ok\") | .name'
  gapferry migrate /var/lib/registry --to harbor.internal/mirror --create-projects
  gapferry migrate /var/lib/registry --to harbor.internal/mirror -f images.txt --dry-run
  gapferry migrate /data/registry --to new.internal --create-projects --tags-from artifacts.json
  gapferry migrate /var/lib/registry --to-dir /var/lib/images
  cd /var/lib/images && skopeo sync --all --scoped --src dir --dest docker . harbor.internal/mirror
  gapferry migrate registry.tar --to-bundle images.tar --include '^team/'
  gapferry migrate /var/lib/registry --to-storage /data/new --chown 10000:10000
  gapferry migrate registry.tar --to-bundle images.tar --json | jq -r '.images[] | select(.state == \"failed\")'

Names (team/app:1.0 to harbor.internal/mirror):
  default    harbor.internal/mirror/team/app:1.0
  --flatten  harbor.internal/mirror/app:1.0

A storage does not know what its registry was called. Rules of a map file see the path alone, the first that matches counts:
  team/ -> base/
  ~ ^old/([^/]+)/(.*)$ -> $1-$2";

/// Read a registry's storage directory without the registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
#[command(mut_args(refuse_without_push))]
#[command(group = clap::ArgGroup::new("what").required(true).args(["list", "to", "to_dir", "to_bundle", "to_storage"]))]
pub struct Args {
    /// The storage, a directory or a plain tar
    storage: PathBuf,
    /// Show what is in it
    ///
    /// TYPE is image, index or artifact (OCI), docker or docker list. What is faulty is shown as far as it is known.
    #[arg(long)]
    list: bool,
    /// Print it as JSON on standard output
    ///
    /// What is in the storage; with --to the receipt, or the plan; with --to-dir, --to-bundle and --to-storage, at the end,
    /// what became of each image (written, present, or failed with the reasons), all faults, and how much was linked and
    /// copied. A run that does not take place, such as one that --strict ends, prints none.
    #[arg(long)]
    json: bool,
    /// Write every image to DIR/REPOSITORY:TAG, for skopeo's dir:
    #[arg(long, value_name = "DIR")]
    to_dir: Option<PathBuf>,
    /// Write all images into one bundle: a file if it ends in .tar, else a directory
    #[arg(long, value_name = "OUT")]
    to_bundle: Option<PathBuf>,
    /// Write all images into a storage of their own, for a docker registry or Harbor 1.x
    #[arg(long, value_name = "DIR")]
    to_storage: Option<PathBuf>,
    /// With --to-storage: whom its files belong to, in numbers (Harbor 1.x: 10000:10000); blobs are copied then
    #[arg(long, value_name = "UID:GID", requires = "to_storage")]
    chown: Option<Owner>,
    /// Push every image into a registry; PREFIX begins every name (on Harbor: the project)
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    to: Option<String>,
    /// How blobs get there; auto: hard links, else reflinks, else copies
    #[arg(long, value_name = "HOW", default_value = "auto", conflicts_with_all = ["list", "to"])]
    link: Link,
    #[command(flatten)]
    which: Which,
    /// How blobs are looked at before; digest: every byte is read. Size, unless --to or --to-bundle is --strict
    ///
    /// With --to and --to-bundle each is proven on its way in any case.
    #[arg(long, value_name = "DEPTH")]
    check: Option<Check>,
    /// Write and push nothing if anything is wrong
    #[arg(long, conflicts_with = "list")]
    strict: bool,
    #[command(flatten)]
    sign: SignArgs,
    #[command(flatten)]
    tools: ToolArgs,
    #[command(flatten)]
    read_back: ReadBackArgs,
    #[command(flatten)]
    push: PushArgs,
}

/// What says how to push, or how to speak to a registry, means nothing to what asks no registry.
fn refuse_without_push(arg: clap::Arg) -> clap::Arg {
    let heading = arg.get_help_heading().unwrap_or_default();
    if arg.get_id().as_str().starts_with("sign_") {
        return arg.conflicts_with_all(["list", "to_dir", "to_storage"]);
    }
    if ["read_back", "include_tool", "tool_file"].contains(&arg.get_id().as_str()) {
        return arg.conflicts_with_all(["list", "to", "to_dir", "to_storage"]);
    }
    let is_about_push = ["Names", "Harbor", "Pushing", "Output", "Registry options"].contains(&heading);
    if arg.get_id() == "no_referrers" {
        return arg.conflicts_with_all(["list", "to_dir"]);
    }
    match is_about_push && arg.get_id() != "jobs" {
        true => arg.conflicts_with_all(["list", "to_dir", "to_bundle", "to_storage"]),
        false => arg,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Link {
    Auto,
    Hard,
    Reflink,
    Copy,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    Size,
    Digest,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let started = Instant::now();
    args.to.as_deref().map(parse_target).transpose()?;
    args.push.registry.claim_stdin()?;
    let storage = args.which.name(Storage::open(&args.storage, REGISTRY)?, REGISTRY)?;
    let depth = match args.check {
        Some(Check::Digest) => Depth::Digest,
        None if args.strict && (args.to.is_some() || args.to_bundle.is_some()) => Depth::Digest,
        Some(Check::Size) | None => Depth::Size,
    };
    let jobs = args.push.registry.jobs();
    let companions = companions(&args);
    let (which, link) = (&args.which, args.link.mode());
    let asked = |to| Asked { storage: &args.storage, to, json: args.json, started };
    let key = args.sign.key(context)?;
    let options = args.to.as_ref().map(|to| {
        let (names, sign_key) = (Names::Paths, key.clone());
        args.push.options(Destination { to, names, scoped: false, sign_key })
    });
    let options = options.transpose()?;
    let environment = &context.environment;
    let push = options.as_ref().map(|options| Push::new(options, Brought::default(), environment)).transpose()?;
    let tools = args.tools.read()?;
    let bundle = args.to_bundle.as_ref().map(|out| to_bundle::Job {
        key: key.clone(),
        tools,
        read_back: &args.read_back,
        storage: &storage,
        which,
        companions,
        link,
        strict: args.strict,
        jobs,
        asked: asked(out),
    });
    bundle.as_ref().map_or(Ok(()), to_bundle::Job::check)?;
    let collected = collect::collect(&storage, which, depth, companions, jobs, context)?;
    context.end();
    if !args.list {
        if args.strict && !collected.faults.is_empty() {
            return Ok(refuse(&args, &collected, context));
        }
        check_any(&args, &collected)?;
        tell_left(&collected, companions, context);
    }
    if let Some(push) = push {
        let report = push.run(&request(&storage, collected), started).await?;
        let shown = push::show(&report, args.json, context);
        let shown = shown.and_then(|()| if args.json { context.print_json(&report) } else { Ok(()) });
        return push::end(&report, shown);
    }
    if let Some(bundle) = &bundle {
        return bundle.write(collected, context).await;
    }
    if let Some(to) = &args.to_storage {
        return to_storage::write(&storage, &collected, (link, args.chown), &asked(to), context);
    }
    if let Some(to) = &args.to_dir {
        return to_dir::write(&storage, &collected, link, &asked(to), context);
    }
    match args.json {
        true => list::print_json(&args.storage, &collected, context)?,
        false => list::print(&collected, args.which.is_all(), context)?,
    }
    Ok(Outcome::Done)
}

/// What is whole, to be pushed; and what is not, to be told of.
fn request(storage: &Storage, collected: Collected) -> PushRequest<'_> {
    let faults = collected.faults.iter().map(|fault| faults::shown(fault).trim_end().to_owned()).collect();
    let lost = entry::faulty(&collected).into_iter().map(|faulty| {
        let source = format!("{REGISTRY}/{}", faulty.name);
        ImageReceipt::lost(source, faulty.found.map(|found| found.digest), faulty.reasons.join("; "))
    });
    let lost = lost.collect();
    let images = collected.images.into_iter().filter_map(|(_, image)| image).collect();
    let graph = Graph { images, ..Graph::default() };
    PushRequest { faults, lost, ..PushRequest::new(storage, graph) }
}

/// With --strict.
fn refuse(args: &Args, collected: &Collected, context: &Context) -> Outcome {
    faults::tell(&collected.faults, context);
    let counted = faults::counted(&collected.faults);
    let text = format!("{} has {counted}; nothing was done (--strict)", args.storage.display());
    let error = Error::damaged(text);
    context.failed(&error);
    Outcome::Failed(error.kind())
}

/// A storage without tags is not empty: that should not look like success.
fn check_any(args: &Args, collected: &Collected) -> Result<()> {
    if !collected.images.is_empty() || collected.revisions == 0 || collected.lost() > 0 {
        return Ok(());
    }
    let text = match args.which.is_all() {
        true => {
            "has manifests, but no tags: Harbor 2.15 and later keep tags in their database only; --untagged takes all by \
             their digests, --tags-from FILE says what they are called"
        }
        false => "has no image that -f, --include and --exclude let through",
    };
    Err(Error::input(format!("{} {text}", args.storage.display())))
}

fn companions(args: &Args) -> Companions {
    if args.list || args.to_dir.is_some() {
        // A list shows every tag, and a dir: image has no place for anything else.
        return Companions::Separate;
    }
    match (args.which.referrers(), &args.to_storage) {
        (false, _) => Companions::StayBehind,
        (true, Some(_)) => Companions::TravelWithLists,
        (true, None) => Companions::Travel,
    }
}

/// Where companions were not looked for, signatures and SBOMs of the images may be among what is left.
fn tell_left(collected: &Collected, companions: Companions, context: &Context) {
    let notice = |text| context.events.report(Event::Notice(text));
    if collected.companions > 0 {
        notice(companion_tags(collected.companions, companions != Companions::StayBehind));
    }
    let referrers = matches!(companions, Companions::Travel | Companions::TravelWithLists);
    if collected.left > 0 {
        let what = if referrers { "" } else { ", or signatures and SBOMs" };
        let left = count(collected.left, "manifest");
        notice(format!("left behind: {left} that no tag leads to: older images{what}; --untagged takes them too"));
    }
    if collected.lost_by_attached > 0 {
        let lost = count(collected.lost_by_attached, "image");
        notice(format!(
            "{lost} would be whole without signatures, SBOMs and referrers: --no-referrers leaves these behind"
        ));
    }
}

impl Link {
    fn mode(self) -> LinkMode {
        match self {
            Link::Auto => LinkMode::Auto,
            Link::Hard => LinkMode::Hard,
            Link::Reflink => LinkMode::Reflink,
            Link::Copy => LinkMode::Copy,
        }
    }
}

/// A storage is only read: nothing is made in it, nor on the way to what is made.
fn refuse_inside(storage: &Storage, to: &Path) -> Result<()> {
    let Ok(storage) = storage.shown("").canonicalize() else { return Ok(()) };
    let absolute = std::path::absolute(to).map_err(|e| Error::disk("creating", to, e))?;
    let (mut at, mut is_inside) = (PathBuf::new(), false);
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(at.pop()),
            part => at.push(part),
        }
        match at.canonicalize() {
            Ok(real) => at = real,
            // What is not there yet is made, and is no link.
            Err(_) => is_inside |= at.starts_with(&storage),
        }
    }
    match is_inside || at.starts_with(&storage) {
        true => Err(Error::input(format!("{} lies in the storage, which is only read", to.display()))),
        false => Ok(()),
    }
}

/// Where the storage lies below `to`, if it does: an image could be called like a place in it.
fn storage_below(storage: &Storage, to: &Path) -> Option<PathBuf> {
    let (storage, to) = (storage.shown("").canonicalize().ok()?, to.canonicalize().ok()?);
    storage.strip_prefix(to).ok().map(Path::to_owned)
}
