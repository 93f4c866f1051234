//! `gapferry check`: every byte of a registry's storage, and every fault in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::context::Context;
use super::exit::Outcome;
use super::migrate::counted::{Counted, beside};
use super::migrate::{REGISTRY, faults};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count, duration};
use crate::oci::{Digest, Repository};
use crate::transport::storage::{Audit, Depth, Scope, Storage, Survey};

const ABOUT: &str = "\
Proves every byte of a registry's storage (distribution 2.8 or 3, Harbor's too) without the registry: fsck for a registry.

STORAGE is a directory at or above docker/registry/v2, or a plain tar of one. Nothing in it is changed; what a registry \
that runs beside it writes meanwhile may be called a fault.

Every link is read, every manifest followed to its end, every blob hashed once. It does not stop at the first fault: each \
is listed with its path, what is wrong and the images it affects; all other images are whole. Blobs that no manifest needs are \
hashed too; that they are there is no fault, nor is a foreign layer that is not.

Exit code 0: nothing is wrong. 3: something is. 2: no storage.";

const AFTER: &str = "\
Examples:
  gapferry check /var/lib/registry
  gapferry check registry.tar --json | jq -r '.faults[].images[]' | sort -u";

/// Prove every byte of a registry's storage and list every fault
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The storage, a directory or a plain tar
    storage: PathBuf,
    /// Print the report as JSON on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let started = Instant::now();
    let storage = Storage::open(&args.storage, REGISTRY)?;
    let survey = storage.survey()?;
    let audit = storage.audit(&survey, Scope::Everything, Depth::Digest, None, &context.events);
    context.end();
    match args.json {
        true => print_json(args, &survey, &audit, context)?,
        false => print(args, &survey, &audit, started, context)?,
    }
    Ok(if audit.faults.is_empty() { Outcome::Done } else { Outcome::Damaged })
}

fn print(args: &Args, survey: &Survey, audit: &Audit, started: Instant, context: &Context) -> Result<()> {
    for fault in &audit.faults {
        context.print(&faults::shown(fault))?;
    }
    let storage = args.storage.display();
    let images = counted(survey, audit);
    let untagged = match audit.untagged.len() {
        0 => String::new(),
        number => format!(" ({number} without a tag)"),
    };
    let summary = if audit.faults.is_empty() {
        let (blobs, size, time) = (count(audit.blobs, "blob"), bytes(audit.bytes), duration(started.elapsed()));
        format!("OK: {storage}: {images}{untagged}, {blobs}, {size}, {time}\n")
    } else {
        let (faults, affected) = (faults::counted(&audit.faults), affected(audit));
        format!("DAMAGED: {storage}: {faults}, {affected} of {images}{untagged} affected\n")
    };
    context.print(&summary)
}

/// What the tags are, and the manifests without one.
fn counted(survey: &Survey, audit: &Audit) -> Counted {
    let holdings: HashMap<_, _> = survey.repositories.iter().map(|holding| (&holding.repository, holding)).collect();
    let has = |repository: &Repository, digest: &Digest| holdings.get(repository).is_some_and(|here| here.has(digest));
    let mut counted: Counted = survey.tags.iter().map(|found| beside(found, has)).collect();
    counted.images += audit.untagged.len();
    counted
}

fn affected(audit: &Audit) -> usize {
    audit.faults.iter().flat_map(|fault| &fault.images).collect::<std::collections::HashSet<_>>().len()
}

fn print_json(args: &Args, survey: &Survey, audit: &Audit, context: &Context) -> Result<()> {
    context.print_json(&json!({
        "storage": args.storage, "repositories": survey.repositories.len(), "images": survey.tags.len(),
        "untagged": audit.untagged.len(), "blobs": audit.blobs, "bytes": audit.bytes, "affected": affected(audit),
        "faults": audit.faults, "counts": faults::counts(&audit.faults),
    }))
}
