//! `gapferry import`: bundle → registry.

mod prune;

use std::path::PathBuf;

use super::allowlist::{read_bounded, read_lists};
use super::context::Context;
use super::exit::CommandOutcome;
use super::piped;
use super::push::{self, PushArgs, PushDestination};
use super::render::show_refusal;
use super::signing::{KeyArgs, SignArgs};
use crate::app::{self, BundleInput, ImportRequest, NamedAllowlist, NamedReceipt, Names, Text};
use crate::base::error::{Error, Result};
use crate::pipeline::naming::parse_target;
use crate::pipeline::receipt::{MAX_RECEIPT, Receipt};
use prune::PruneArgs;

const ABOUT: &str = "\
Pushes the images of a bundle into a registry: Harbor 2.x or any other that implements the OCI distribution \
specification.

Before the first push, gapferry verifies file sizes and all manifests, derives the names at the target, and asks the \
target which blobs, manifests and tags it has. Each blob is verified while it is pushed (with --verify-first, all of \
them before), uploaded once, and mounted into the other repositories. Manifests follow, children first, then \
referrers. Tags are pushed last and read back, so an image that has its tag can be pulled.

Volumes of a set are given together, in any order. With --state they can come one at a time: each run pushes what is \
available, an image gets its tag when all of it has arrived, and exit code 6 means that more volumes are needed. \
Segments of blobs that were cut are kept next to FILE.

`-` or a named pipe is read in one pass. Metadata and manifests are verified first; each blob is pushed once it has \
been verified. This needs space in TMPDIR for the largest blob, or for 256 MiB of smaller ones. If the stream ends \
early, images that are complete have their tags; run the command again to push the rest. Problems after the last \
blob are only found at the end.

Harbor does not serve images that violate a project policy (signatures, vulnerabilities). Such images are pushed \
anyway; a note says that they cannot be pulled yet, and the exit code stays 0. If an immutability rule protects a \
tag that has another digest, the image fails; --on-existing skip leaves such a tag alone.

If an image fails, the others are still pushed, and the summary gives each failure with its reason. Run the command \
again to push only what is missing.";

const AFTER: &str = "\
Examples:
  gapferry import images.tar --to harbor.internal/mirror --create-projects
  gapferry import images.tar --to harbor.internal/mirror --key their.pub
  gapferry import images.tar --to registry.internal:5000 --dry-run
  gapferry import images.*.tar --to harbor.internal/mirror
  ssh outside cat images.tar | gapferry import - --to harbor.internal/mirror

  # Discs one after the other, in the only drive.
  gapferry import /mnt/cdrom/images.003.tar --state crossing.state \\
    --to harbor.internal/mirror

  # Keep a signed receipt of what arrived.
  gapferry import images.tar --to harbor.internal --receipt receipt.json \\
    --sign-key our.key

Names at the target, for docker.io/library/nginx:1.27:
  default    harbor.internal/mirror/library/nginx:1.27
  --scoped   harbor.internal/mirror/docker.io/library/nginx:1.27
  --flatten  harbor.internal/mirror/nginx:1.27
An `as=` in the allowlist takes precedence over all of these.

A map file has one rule per line; the first rule that matches applies:
  docker.io/library/ -> base/
  ~ ^quay\\.io/([^/]+)/(.*)$ -> quay-$1/$2";

/// Verify a bundle and push its images into a registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle: directory, tar, volumes, or `-`
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
    /// Target registry; PREFIX starts every name
    ///
    /// HOST may have a port. On Harbor, the first component of PREFIX is the project.
    #[arg(long, value_name = "HOST[/PREFIX]")]
    to: String,
    /// Verify every byte before the first push
    #[arg(long, help_heading = "Checks")]
    verify_first: bool,
    /// Reject images that are not on this allowlist
    ///
    /// Checked before any push. Accepts the same formats as export; `-` is standard input. An image must have the name that `as`
    /// gives in its entry, and no platform that is not in its entry.
    #[arg(long, value_name = "FILE", help_heading = "Checks")]
    allow: Option<PathBuf>,
    /// Import volumes one at a time, with progress in FILE
    ///
    /// Use the same FILE for every volume. Its disk needs space for FILE.segments: segments of blobs that are larger than a
    /// volume.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Write what the target lacks for this increment to FILE, as JSON
    ///
    /// For `export --repair` on the connected side. The file is always written; if nothing is missing, it says so.
    #[arg(long, value_name = "FILE", help_heading = "Output", hide_short_help = true)]
    missing: Option<PathBuf>,
    /// Take what the target lacks for this increment from this file
    ///
    /// The file that `export --repair` writes for a list from --missing.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    repair: Option<PathBuf>,
    /// Reject a bundle that is not newer than the one in this receipt
    ///
    /// Prevents an old bundle from being imported again. gapferry compares the times of the two bundles; only --key makes
    /// them trustworthy. The same bundle is accepted, and so is one of the same time if the bundle in the receipt had
    /// missing images.
    #[arg(long, value_name = "RECEIPT", help_heading = "Checks", hide_short_help = true)]
    newer_than: Option<PathBuf>,
    /// Keep the source registry as the first path component
    #[arg(long, conflicts_with = "flatten", help_heading = "Names")]
    scoped: bool,
    /// Print the receipt or the plan as JSON
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

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let json = args.json;
    let request = args.request(context)?;
    let report = app::import(request, &context.environment).await;
    let report = report.inspect_err(|error| show_refusal(error, context))?;
    let shown = push::show(&report.push, json, context);
    if let Some(pruned) = &report.pruned {
        prune::show(pruned, context);
    }
    let shown = shown.and_then(|()| if json { context.print_json(&report) } else { Ok(()) });
    push::end(&report.push, shown)
}

impl Args {
    fn request(self, context: &Context) -> Result<ImportRequest> {
        // Before asking for a passphrase.
        parse_target(&self.to)?;
        self.push.registry.claim_stdin()?;
        let sign_key = self.sign.key(context)?;
        let to = PushDestination { to: &self.to, names: Names::Hosted, scoped: self.scoped, sign_key };
        let push = self.push.options(to)?;
        let prune = self.prune.options(context)?;
        let bundle = bundle(self.bundle, self.state, self.verify_first)?;
        let trust = self.keys.trust(context)?;
        Ok(ImportRequest {
            bundle,
            push,
            trust,
            allow: self.allow.map(allowlist).transpose()?,
            newer_than: self.newer_than.map(receipt).transpose()?,
            missing: self.missing,
            repair: self.repair,
            prune,
        })
    }
}

fn bundle(paths: Vec<PathBuf>, state: Option<PathBuf>, verify_first: bool) -> Result<BundleInput> {
    let stream = match &paths[..] {
        [only] => piped::open(only)?,
        _ => None,
    };
    let Some(stream) = stream else { return Ok(BundleInput::Files { paths, state, verify_first }) };
    if verify_first {
        let text = "a pipe can be read once, so --verify-first cannot: save it to a file, or leave that out";
        return Err(Error::input(format!("{}: {text}", stream.name.display())));
    }
    if state.is_some() {
        return Err(Error::input("--state is for volumes, one after the other; a pipe is read to its end"));
    }
    Ok(BundleInput::Stream(stream))
}

fn allowlist(path: PathBuf) -> Result<NamedAllowlist> {
    let list = read_lists(&[], std::slice::from_ref(&path))?;
    Ok(NamedAllowlist { name: path.display().to_string(), list })
}

fn receipt(path: PathBuf) -> Result<NamedReceipt> {
    let Text { name, bytes } = read_bounded(&path, MAX_RECEIPT + 1)?;
    Ok(NamedReceipt { receipt: Receipt::parse(&bytes, &name)?, name })
}
