//! `gapferry lock`: resolves references without transferring blobs.

use std::path::PathBuf;

use super::allowlist::{AllowlistArgs, missing_lines};
use super::context::Context;
use super::exit::CommandOutcome;
use super::mirrors;
use super::registry::RegistryArgs;
use crate::app::{self, LockRequest};
use crate::base::document::Document;
use crate::base::error::Result;
use crate::base::progress::units::count;

const ABOUT: &str = "\
Resolves an allowlist and prints or writes the lock: for each reference the digest, media type, platforms, sizes, \
companions and registry, and the time. Only manifests are read. If a registry may have returned an incomplete list \
of tags, the lock records that and the exit code is 1.

`gapferry export --locked FILE` turns the lock into the same bundle on any machine, byte for byte. The identity and \
the fingerprint of that bundle are known already and printed now. Tools (--include-tool, --tool-file) and --since \
make a different bundle; `export --locked FILE --dry-run` prints its identity.";

const AFTER: &str = "\
Examples:
  gapferry lock -f images.txt -o images.lock
  gapferry lock nginx:1.27 | jq -r '.images[].digest'";

/// Resolve an allowlist to digests without transferring blobs
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    pub allowlist: AllowlistArgs,
    /// Write the lock to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Print the identity and fingerprint as JSON
    #[arg(long, requires = "output", help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let json = args.json;
    let request = LockRequest {
        images: args.allowlist.read(&args.registry)?,
        resolve: args.allowlist.options(),
        output: args.output,
        registry: args.registry.options()?,
    };
    let report = app::lock(&request, &context.environment).await?;
    context.end();
    if request.output.is_none() {
        context.print(&report.lock.to_file()?)?;
    } else if json {
        context.print_json(&report)?;
    }
    mirrors::report_mirrors(&report.mirrors, context);
    context.say(&format!("{} resolved", count(report.image_count, "image")));
    context.say_lines(&missing_lines(&report.missing));
    if let Some((identity, fingerprint)) = report.identity.zip(report.fingerprint) {
        context.say(&format!("identity {identity}"));
        context.say(&format!("fingerprint {fingerprint}"));
    }
    Ok(report.outcome.into())
}
