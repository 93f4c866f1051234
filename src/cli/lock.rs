//! `gapferry lock`: what references mean now, without transferring.

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
Resolves an allowlist and prints (or writes) the lock: for each reference its digest, media type, platforms, sizes, what \
travels with it, the registry and the time. Only manifests are read. A list of tags that may be short is recorded, and the exit \
code is 1.

`gapferry export --locked FILE` makes exactly that bundle, on any machine, the same bytes. Its identity and fingerprint are \
printed now: they are known before anything is fetched, and equal in every form. Tools (--include-tool) and --since make another \
bundle; `export --dry-run` prints the identity with these.";

const AFTER: &str = "\
Examples:
  gapferry lock -f images.txt -o images.lock
  gapferry lock nginx:1.27 | jq -r '.images[].digest'";

/// Resolve an allowlist to digests without transferring
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    pub allowlist: AllowlistArgs,
    /// Write the lock to this file instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Print identity and fingerprint of the bundle as JSON on standard output
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
    context.say(&format!("{} resolved", count(report.images, "image")));
    context.say_lines(&missing_lines(&report.missing));
    if let Some((identity, fingerprint)) = report.identity.zip(report.fingerprint) {
        context.say(&format!("identity {identity}"));
        context.say(&format!("fingerprint {fingerprint}"));
    }
    Ok(report.outcome.into())
}
