//! `gapferry migrate`: the storage of a registry → what is in it, or its images in another registry, a bundle, `dir:`
//! directories or a storage of their own.

mod remaining;
mod render;
mod which;

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use super::push::{self, PushArgs, PushDestination};
use super::read_back::ReadBackArgs;
use super::signing::SignArgs;
use super::tools::ToolArgs;
use crate::app::{self, BundleOutput, Destination, MigrateReport, MigrateRequest, Names};
use crate::base::error::Result;
use crate::content::LinkMode;
use crate::pipeline::naming::parse_target;
use crate::transport::storage::AuditDepth;
use remaining::OwnerArg;
use which::WhichArgs;

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
    /// copied. A run that does not take place, such as one that --strict ends, prints why.
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
    chown: Option<OwnerArg>,
    /// Push every image into a registry; PREFIX begins every name (on Harbor: the project)
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    to: Option<String>,
    /// How blobs get there; auto: hard links, else reflinks, else copies
    #[arg(long, value_name = "HOW", default_value = "auto", conflicts_with_all = ["list", "to"])]
    link: Link,
    #[command(flatten)]
    which: WhichArgs,
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

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let json = args.json;
    let request = args.request(context)?;
    let report = app::migrate(&request, &context.environment).await?;
    context.end();
    match &report {
        MigrateReport::Pushed(pushed) => {
            let shown = push::show(pushed, json, context);
            let shown = shown.and_then(|()| if json { context.print_json(&report) } else { Ok(()) });
            return push::end(pushed, shown);
        }
        MigrateReport::Listed(list) if !json => render::print_list(list, request.which.is_all(), context)?,
        MigrateReport::Listed(_) => {}
        MigrateReport::Refused(refused) => render::show_faults(&refused.faults, context),
        MigrateReport::Written(migrated) => render::show(migrated, &request.to, context),
    }
    if json {
        context.print_json(&report)?;
    }
    match report {
        MigrateReport::Refused(refused) => Err(refused.error),
        MigrateReport::Written(migrated) => migrated.failure.map_or(Ok(migrated.outcome.into()), Err),
        report => Ok(report.outcome().into()),
    }
}

impl Args {
    fn request(self, context: &Context) -> Result<MigrateRequest> {
        self.to.as_deref().map(parse_target).transpose()?;
        self.push.registry.claim_stdin()?;
        let (which, link) = (self.which.read()?, self.link.mode());
        let jobs = self.push.registry.jobs();
        let to = if let Some(to) = &self.to {
            let (names, sign_key) = (Names::Paths, self.sign.key(context)?);
            let options = self.push.options(PushDestination { to, names, scoped: false, sign_key })?;
            Destination::Registry(Box::new(options))
        } else if let Some(path) = self.to_bundle {
            let (sign_key, tools) = (self.sign.key(context)?, self.tools.read()?);
            let read_back = self.read_back.read_back;
            Destination::Bundle(BundleOutput { path, link, sign_key, tools, read_back })
        } else if let Some(path) = self.to_storage {
            Destination::Storage { path, link, owner: self.chown.map(OwnerArg::into) }
        } else if let Some(path) = self.to_dir {
            Destination::Directories { path, link }
        } else {
            Destination::List
        };
        let depth = self.check.map(|check| match check {
            Check::Digest => AuditDepth::Digest,
            Check::Size => AuditDepth::Size,
        });
        Ok(MigrateRequest { storage: self.storage, which, to, depth, strict: self.strict, jobs })
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
