//! `gapferry migrate`: reads a registry's storage, and lists its images or writes them to a registry, a bundle, `dir:`
//! directories or another storage.

mod remaining;
mod render;
mod which;

use std::path::PathBuf;

use super::arrange::REGISTRY_OPTIONS;
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
Reads the storage directory of a docker registry (distribution 2.8 or 3, also Harbor's) without the registry.

STORAGE is a directory at or above docker/registry/v2 (a registry's rootdirectory, or Harbor's data volume), or an \
uncompressed tar of one, which is read in place. gapferry only reads it and does not disturb a running registry.

--to pushes the images into a registry, directly from the storage and in the same way as `import`: gapferry asks the \
target what it has, verifies each blob while it is pushed, uploads it once and mounts it into the other \
repositories. Tags are pushed last and read back. A second run pushes only what is missing.

--to-dir writes one directory per tag, DIR/REPOSITORY:TAG, in the format of skopeo's dir: transport. Blobs are hard \
links into the storage and take no space; manifests are copies. Never modify a linked blob: it is the registry's \
own file. A second run keeps finished images and redoes the others. A directory with other content is left alone, \
and its image fails.

--to-bundle writes the same bundle that export would have written. A storage does not record the name of its \
registry, so all references start with localhost. In a directory on the same file system, blobs are hard links too, \
each hashed when it is linked.

--to-storage writes a storage that contains only the chosen, complete images, into an empty directory or one that an \
earlier run wrote. A docker registry can serve it directly. For Harbor 1.x, gapferry prints the remaining steps; \
Harbor 2.x does not read its storage directly, so use --to. With --chown, blobs are copied, because all hard links \
to a file share one owner.

Tagged signatures and SBOMs, such as cosign's, are images like any other. Referrers without a tag go with the image \
they refer to, except into dir: directories, which have no place for them. If a referrer is damaged, its image \
fails. --no-referrers leaves them out. --untagged adds everything else that no tag refers to.

Problems in the storage (an empty link, a missing or truncated layer) are listed with their paths and the images \
they affect. The other images are listed, pushed or written anyway.

Exit codes: 0 done; 1 some images failed, or a place that may contain images could not be read; 3 --strict found a \
problem and nothing was written or pushed; 4, 5 the registry refused or could not be reached.";

const AFTER: &str = "\
Examples:
  gapferry migrate /var/lib/registry --list
  gapferry migrate /var/lib/registry --to harbor.internal/mirror
  gapferry migrate /var/lib/registry --to-dir /var/lib/images
  gapferry migrate registry.tar --to-bundle images.tar --include '^team/'
  gapferry migrate /var/lib/registry --to-storage /data/new

  # Show the plan for the listed images.
  gapferry migrate /var/lib/registry --to harbor.internal/mirror \\
    -f images.txt --dry-run

  # Images that are not complete.
  gapferry migrate registry.tar --list --json |
    jq -r '.images[] | select(.state != \"ok\") | .name'

  # Push the directories with skopeo.
  cd /var/lib/images && skopeo sync --all --scoped \\
    --src dir --dest docker . harbor.internal/mirror

Names at the target, for team/app:1.0:
  default    harbor.internal/mirror/team/app:1.0
  --flatten  harbor.internal/mirror/app:1.0

Rules in a map file see only the path; the first rule that matches applies:
  team/ -> base/
  ~ ^old/([^/]+)/(.*)$ -> $1-$2";

/// The usage that clap generates is longer than a line.
const USAGE: &str = "gapferry migrate [OPTIONS] STORAGE --list | --to HOST[/PREFIX]
         | --to-dir DIR | --to-bundle OUT | --to-storage DIR";

/// Read a registry's storage without the registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
#[command(override_usage = USAGE, mut_args(refuse_without_push))]
#[command(group = clap::ArgGroup::new("what").required(true).args(["list", "to", "to_dir", "to_bundle", "to_storage"]))]
pub struct Args {
    /// Storage: directory or uncompressed tar
    storage: PathBuf,
    /// List the images in the storage
    ///
    /// TYPE is image, index or artifact (OCI), docker or docker list. Damaged images are shown as far as they can be read.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON
    ///
    /// With --list, the content of the storage; with --to, the receipt or the plan; otherwise the outcome of each image
    /// (written, present, or failed with the reasons), all problems, and how much was linked and copied. If nothing is
    /// done, for example because of --strict, the JSON says why.
    #[arg(long)]
    json: bool,
    /// Write one directory per image, for skopeo's dir:
    #[arg(long, value_name = "DIR")]
    to_dir: Option<PathBuf>,
    /// Write one bundle, a tar or a directory
    ///
    /// OUT is a tar if its name ends in .tar.
    #[arg(long, value_name = "OUT")]
    to_bundle: Option<PathBuf>,
    /// Write a storage for docker-registry or Harbor 1
    #[arg(long, value_name = "DIR")]
    to_storage: Option<PathBuf>,
    /// With --to-storage: numeric owner of the files; copies blobs
    ///
    /// For Harbor 1.x: 10000:10000.
    #[arg(long, value_name = "UID:GID", requires = "to_storage", hide_short_help = true)]
    chown: Option<OwnerArg>,
    /// Push into this registry; PREFIX starts every name
    ///
    /// HOST may have a port. On Harbor, the first component of PREFIX is the project.
    #[arg(long, value_name = "HOST[/PREFIX]")]
    to: Option<String>,
    /// How to place blobs; auto: hard link, else reflink, else copy
    #[arg(long, value_name = "HOW", default_value = "auto", conflicts_with_all = ["list", "to"], hide_short_help = true)]
    link: Link,
    #[command(flatten)]
    which: WhichArgs,
    /// Check blobs in advance: size, or digest to read every byte
    ///
    /// Default: size; with --to or --to-bundle only if --strict is given, because these verify each blob anyway.
    #[arg(long, value_name = "DEPTH", hide_short_help = true)]
    check: Option<Check>,
    /// Write or push nothing if there is any problem
    #[arg(long, conflicts_with = "list", hide_short_help = true)]
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

/// Makes options about pushing and registries conflict with destinations that do not use a registry.
fn refuse_without_push(arg: clap::Arg) -> clap::Arg {
    let heading = arg.get_help_heading().unwrap_or_default();
    if arg.get_id().as_str().starts_with("sign_") {
        return arg.conflicts_with_all(["list", "to_dir", "to_storage"]);
    }
    if ["read_back", "include_tool", "tool_file"].contains(&arg.get_id().as_str()) {
        return arg.conflicts_with_all(["list", "to", "to_dir", "to_storage"]);
    }
    let is_about_push = ["Names", "Pushing", "Output", REGISTRY_OPTIONS].contains(&heading);
    if arg.get_id() == "no_referrers" {
        return arg.hide_short_help(true).conflicts_with_all(["list", "to_dir"]);
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
        MigrateReport::Refused(refused) => render::show_problems(&refused.problems, context),
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
