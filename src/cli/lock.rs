//! `gapferry lock`: what references mean now, without transferring.

use std::path::PathBuf;

use super::allowlist::AllowlistArgs;
use super::context::{Context, check_writable, write_file};
use super::exit::Outcome;
use super::registry::RegistryArgs;
use crate::content::Cached;
use crate::error::Result;
use crate::progress::units::count;

const ABOUT: &str = "\
Resolves an allowlist and prints (or writes) the lock: for each reference its digest, media type, platforms, sizes, what \
travels with it, the registry and the time. Only manifests are read.

`gapferry export --locked FILE` makes exactly that bundle, on any machine, the same bytes.";

const AFTER: &str = "\
Examples:
  gapferry lock -f images.txt -o images.lock
  gapferry lock nginx:1.27 | jq -r '.images[].digest'";

/// Resolve an allowlist to digests without transferring
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    allowlist: AllowlistArgs,
    /// Write the lock to this file instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    check_writable(&args.output)?;
    let sources = args.allowlist.read(&args.registry, context)?;
    let cached = Cached::new(&sources.registries, None);
    let (lock, _) = args.allowlist.resolve(&sources, &cached, &args.registry, context).await?;
    context.end();
    match &args.output {
        Some(path) => write_file(path, lock.to_json().as_bytes())?,
        None => context.print(&lock.to_json())?,
    }
    context.say(&format!("{} resolved", count(lock.images.len(), "image")));
    Ok(Outcome::Done)
}
