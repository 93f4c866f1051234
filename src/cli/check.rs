//! `gapferry check`: verifies every byte of a registry's storage.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::app::{self, CheckReport, CheckRequest, problem_lines, problems_line};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count, duration};

const ABOUT: &str = "\
Verifies every byte of a registry's storage directory (distribution 2.8 or 3, also Harbor's) without the registry: \
fsck for a registry.

STORAGE is a directory at or above docker/registry/v2, or an uncompressed tar of one. gapferry only reads it. If a \
registry is running on it, what the registry writes meanwhile may be reported as a problem.

gapferry reads every link, follows every manifest and hashes every blob once. It does not stop at the first problem: \
it lists each one with its path, what is wrong and the images it affects. All other images are intact. Unreferenced \
blobs are hashed too; they are not a problem, and neither is a missing foreign layer.

Exit codes: 0 no problems; 3 problems found; 2 not a storage.";

const AFTER: &str = "\
Examples:
  gapferry check /var/lib/registry
  gapferry check registry.tar --json | jq -r '.problems[].images[]' | sort -u";

/// Verify every byte of a registry's storage
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Storage: directory or uncompressed tar
    storage: PathBuf,
    /// Print the report as JSON
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
    report.problems.iter().try_for_each(|problem| context.print(&problem_lines(problem)))?;
    let (storage, images) = (report.storage.display(), &report.counted);
    let untagged = match report.untagged {
        0 => String::new(),
        number => format!(" ({number} without a tag)"),
    };
    context.print(&if report.problems.is_empty() {
        let (blobs, size, time) = (count(report.blobs, "blob"), bytes(report.bytes), duration(report.elapsed));
        format!("OK: {storage}: {images}{untagged}, {blobs}, {size}, {time}\n")
    } else {
        let (problems, affected) = (problems_line(&report.problems), report.affected);
        format!("DAMAGED: {storage}: {problems}, {affected} of {images}{untagged} affected\n")
    })
}
