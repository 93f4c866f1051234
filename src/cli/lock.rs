//! `gapferry lock`: what references mean now, without transferring.

use std::collections::HashMap;
use std::path::PathBuf;

use super::allowlist::{AllowlistArgs, Earlier, Sources, missing_lines, settle, tell_obstacle};
use super::context::{Context, check_writable, write_file};
use super::exit::Outcome;
use super::mirrors;
use super::registry::RegistryArgs;
use crate::base::document::Document;
use crate::base::error::Result;
use crate::base::progress::units::count;
use crate::bundle::{Contents, walk_file};
use crate::content::{Cached, Checkpoint};
use crate::oci::Digest;
use crate::pipeline::lock::Lock;
use crate::pipeline::walk::Modes;
use crate::signing::Spoken;

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

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    check_writable(&args.output)?;
    let sources = args.allowlist.read(&args.registry, context)?;
    // Into a pipe or a device nothing can be continued.
    let file = args.output.as_ref().filter(|path| path.is_file() || !path.exists());
    let earlier = args.allowlist.earlier(file, None, Modes::default())?;
    let kept = Checkpoint::new(&sources.registries, file.map(|path| walk_file(path)));
    tell_obstacle(&kept, context);
    let cached = Cached::new(&kept, None);
    let resolved = resolve(&args, &sources, earlier, &cached, context).await;
    // Until the lock is written, what was read for it is still needed.
    let written = resolved.and_then(|(lock, identity)| {
        write(&args, &lock, identity, context)?;
        Ok((lock, identity))
    });
    let (lock, identity) = settle(&kept, written, context)?;
    mirrors::tell(&sources.registries, context);
    context.say(&format!("{} resolved", count(lock.images.len(), "image")));
    context.say_lines(&missing_lines(&lock.missing));
    if let Some(identity) = identity {
        context.say(&format!("identity {identity}"));
        context.say(&format!("fingerprint {}", Spoken::of(&identity)));
    }
    Ok(args.allowlist.ended(&lock.missing))
}

/// The lock, and the identity of a bundle of exactly it, without tools or parents. Images of immutable tags that an earlier lock
/// knows are not read, so it is not known then.
async fn resolve(
    args: &Args,
    sources: &Sources,
    earlier: Earlier,
    cached: &Cached<'_>,
    context: &Context,
) -> Result<(Lock, Option<Digest>)> {
    if args.allowlist.trusts_tags() {
        let lock = args.allowlist.pin(sources, earlier, cached, &args.registry, context).await?;
        return Ok((lock, None));
    }
    let earlier = (earlier, HashMap::new());
    let (lock, graph) = args.allowlist.resolve(sources, earlier, cached, &args.registry, context).await?;
    let identity = Contents::new(lock.clone(), &graph)?.identity()?;
    Ok((lock, Some(identity)))
}

fn write(args: &Args, lock: &Lock, identity: Option<Digest>, context: &Context) -> Result<()> {
    context.end();
    let text = lock.to_file()?;
    let Some(path) = &args.output else { return context.print(&text) };
    write_file(path, text.as_bytes())?;
    if args.json {
        context.print_json(&serde_json::json!({
            "lock": path, "created": lock.created, "images": lock.images.len(), "missing": lock.missing,
            "identity": identity, "fingerprint": identity.map(|identity| Spoken::of(&identity).to_string()),
        }))?;
    }
    Ok(())
}
