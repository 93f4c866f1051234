//! `gapferry list`: the images of a bundle.

use std::path::PathBuf;

use super::allowlist::missing_lines;
use super::companions::images_json;
use super::context::Context;
use super::exit::Outcome;
use super::export::images_table;
use super::{since, tools};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count};
use crate::bundle::{Bundle, is_tool, tools_of};
use crate::pipeline::lock::{Attached, LockedImage};

const ABOUT: &str = "\
Lists the images of a bundle: reference, platforms, size of everything below it, digest, and what accompanies it: signatures, \
attestations, SBOMs. Reads the digest manifest, and manifests of companions where nothing else says what they are; \
whether the bytes are what it says is for `gapferry verify` to prove.";

const AFTER: &str = "\
Examples:
  gapferry list images.tar
  gapferry list images.tar --json | jq -r '.images[] | .reference + \" \" + .digest'";

/// List the images of a bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle, a directory or a tar; of one that was split any volume will do
    #[arg(required = true)]
    bundle: Vec<PathBuf>,
    /// Print identity and lock as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let bundle = Bundle::open_any(&args.bundle)?;
    let (lock, json) = (bundle.lock(), bundle.json());
    let manifest_of = |_: &LockedImage, attached: &Attached| {
        // An increment need not have it, and what is damaged is for verify to tell.
        bundle.layout().manifest_by_digest(&attached.digest, Some(&attached.media_type)).ok().flatten()
    };
    if args.json {
        context.print_json(&serde_json::json!({
            "identity": bundle.identity(), "created": lock.created,
            "images": images_json(lock.images.iter(), &manifest_of), "missing": lock.missing,
            "tools": tools_of(json).collect::<Vec<_>>(), "parents": json.parents, "assumed": json.assumed, "removed": json.removed,
        }))?;
        return Ok(Outcome::Done);
    }
    let of_images = bundle.files().iter().filter(|file| !is_tool(&file.path));
    let total = of_images.map(|file| file.size).fold(0, u64::saturating_add);
    let unshared = lock.images.iter().map(|image| image.total_size).fold(0, u64::saturating_add);
    let summary = format!(
        "\n{}, {} ({} without sharing), resolved {}\nidentity {}\n",
        count(lock.images.len(), "image"),
        bytes(total),
        bytes(unshared.max(total)),
        lock.created,
        bundle.identity(),
    );
    let basis = json.basis();
    let basis = since::told(&basis.parents, basis.assumed.len(), basis.assumed_bytes());
    let missing: String = missing_lines(&lock.missing).iter().map(|line| format!("{line}\n")).collect();
    context.print(&(images_table(lock, &manifest_of) + &summary + &missing + &tools::told(tools_of(json)) + &basis))?;
    Ok(Outcome::Done)
}
