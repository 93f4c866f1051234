//! `gapferry lock`: what references mean now, without transferring.

use std::path::PathBuf;

use super::allowlist::{AllowlistArgs, missing_lines, settle, tell_obstacle};
use super::context::{Context, check_writable, write_file};
use super::exit::Outcome;
use super::mirrors;
use super::registry::RegistryArgs;
use crate::base::error::Result;
use crate::base::progress::units::count;
use crate::bundle::walk_file;
use crate::content::{Cached, Checkpoint};
use crate::pipeline::lock::Lock;
use crate::pipeline::walk::Modes;

const ABOUT: &str = "\
Resolves an allowlist and prints (or writes) the lock: for each reference its digest, media type, platforms, sizes, what \
travels with it, the registry and the time. Only manifests are read. A list of tags that may be short is recorded, and the exit \
code is 1.

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
    pub allowlist: AllowlistArgs,
    /// Write the lock to this file instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    check_writable(&args.output)?;
    let sources = args.allowlist.read(&args.registry, context)?;
    // Into a pipe or a device nothing can be continued.
    let file = args.output.as_ref().filter(|path| path.is_file() || !path.exists());
    let earlier = args.allowlist.earlier(file, None, Modes::default())?;
    let kept = Checkpoint::new(&sources.registries, file.map(|path| walk_file(path)));
    tell_obstacle(&kept, context);
    let cached = Cached::new(&kept, None);
    let lock = args.allowlist.pin(&sources, earlier, &cached, &args.registry, context).await;
    // Until the lock is written, what was read for it is still needed.
    let written = lock.and_then(|lock| write(&args, &lock, context).map(|()| lock));
    let lock = settle(&kept, written, context)?;
    mirrors::tell(&sources.registries, context);
    context.say(&format!("{} resolved", count(lock.images.len(), "image")));
    context.say_lines(&missing_lines(&lock.missing));
    Ok(args.allowlist.ended(&lock.missing))
}

fn write(args: &Args, lock: &Lock, context: &Context) -> Result<()> {
    context.end();
    let text = lock.to_file()?;
    match &args.output {
        Some(path) => write_file(path, text.as_bytes()),
        None => context.print(&text),
    }
}
