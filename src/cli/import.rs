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
        // Before a passphrase is asked for.
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
