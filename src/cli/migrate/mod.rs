//! `gapferry migrate`: the storage of a registry → what is in it.

mod collect;
pub mod faults;
mod list;

use std::path::PathBuf;

use super::context::Context;
use super::exit::Outcome;
use crate::error::Result;
use crate::transport::storage::{Depth, Storage};

/// What references to a storage's content call the registry it belonged to.
pub const REGISTRY: &str = "localhost";

const ABOUT: &str = "\
Reads the storage directory of a docker registry (distribution 2.8 or 3, Harbor's too) without the registry.

STORAGE is a directory at or above docker/registry/v2 (a registry's rootdirectory, or Harbor's data volume), or a plain tar of \
one, which is read by offset and never extracted. Nothing in it is changed, and a registry that runs beside it is not \
disturbed.

What is wrong in it (an empty link, a tag that means nothing, a layer that is missing or has another size) is told with its \
path and the image it costs; the other images are listed all the same.";

const AFTER: &str = "\
Examples:
  gapferry migrate /var/lib/registry --list
  gapferry migrate registry.tar --list --json | jq -r '.images[] | select(.state != \"ok\") | .name'";

/// Read a registry's storage directory without the registry
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The storage, a directory or a plain tar
    storage: PathBuf,
    /// Show what is in it
    #[arg(long, required = true)]
    list: bool,
    /// Print it as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Images read at once
    #[arg(short, long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let storage = Storage::open(&args.storage, REGISTRY)?;
    let collected = collect::collect(&storage, Depth::Size, usize::from(args.jobs), context).await?;
    context.end();
    match args.json {
        true => list::print_json(&args.storage, &collected, context)?,
        false => list::print(&collected, context)?,
    }
    Ok(Outcome::Done)
}
