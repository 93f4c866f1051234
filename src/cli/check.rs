//! `gapferry check`: every byte of a registry's storage, and every fault in it.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::app::{self, CheckReport, CheckRequest, fault_lines, faults_line};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count, duration};

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

pub fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let report = app::check(&CheckRequest { storage: args.storage }, &context.environment)?;
    context.end();
    match args.json {
        true => context.print_json(&report)?,
        false => print(&report, context)?,
    }
    Ok(report.outcome.into())
}

fn print(report: &CheckReport, context: &Context) -> Result<()> {
    report.faults.iter().try_for_each(|fault| context.print(&fault_lines(fault)))?;
    let (storage, images) = (report.storage.display(), &report.counted);
    let untagged = match report.untagged {
        0 => String::new(),
        number => format!(" ({number} without a tag)"),
    };
    context.print(&if report.faults.is_empty() {
        let (blobs, size, time) = (count(report.blobs, "blob"), bytes(report.bytes), duration(report.elapsed));
        format!("OK: {storage}: {images}{untagged}, {blobs}, {size}, {time}\n")
    } else {
        let (faults, affected) = (faults_line(&report.faults), report.affected);
        format!("DAMAGED: {storage}: {faults}, {affected} of {images}{untagged} affected\n")
    })
}
