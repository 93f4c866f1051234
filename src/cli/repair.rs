//! `gapferry repair`: what a bundle lacks, brought by a repair, into its place.

use std::path::PathBuf;

use super::context::Context;
use super::exit::Outcome;
use super::export::TOOL;
use super::verify::shown;
use crate::bundle::{self, Mended};
use crate::check::{self, Depth, Report};
use crate::error::Result;
use crate::progress::units::count;

const ABOUT: &str = "\
Mends a bundle, a directory or a tar, with what `gapferry export --repair` has made, or with another copy of the same bundle, \
damaged or not.

Verifies the bundle, takes what is bad or absent from REPAIR, puts it in its place, brings it to the medium, and verifies \
again: what is then still wrong is listed as `gapferry verify` does. Everything is proven before the first byte is written; a repair \
of another bundle, or with a file that is not what this bundle lacks, is refused, and nothing changes. A bundle that is mended \
is byte for byte what it was. Interrupted? Run the same command again.

Exit code 0: the bundle is whole. 3: something is still missing, or REPAIR is damaged. 2: REPAIR is for another bundle.";

const AFTER: &str = "\
Examples:
  gapferry verify images.tar --missing missing.json              # isolated side
  gapferry export --repair missing.json --locked images.lock -o repair.tar     # connected side
  gapferry repair images.tar repair.tar                          # isolated side

  gapferry repair /mnt/usb1/images.tar /mnt/usb2/images.tar      # two bad copies";

/// Mend a damaged bundle in its place
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle, a directory or a tar
    bundle: PathBuf,
    /// What `export --repair` has made, or another copy of the bundle
    repair: PathBuf,
    /// Print what was mended and what is still wrong as JSON on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let before = check::check(&args.bundle, Depth::Chunks, &context.events)?;
    let missing = check::missing(&args.bundle, &before, TOOL)?;
    let mended = bundle::mend(&args.bundle, &args.repair, &missing)?;
    let report = match before.is_clean() {
        true => before,
        false => check::check(&args.bundle, Depth::Chunks, &context.events)?,
    };
    context.end();
    if args.json {
        let (identity, problems) = (report.identity, &report.problems);
        context.print_json(&serde_json::json!({
            "bundle": args.bundle, "identity": identity, "mended": mended.mended, "lacking": mended.lacking,
            "problems": problems,
        }))?;
    } else {
        print(args, &mended, &report, context)?;
    }
    Ok(if report.is_clean() { Outcome::Done } else { Outcome::Damaged })
}

fn print(args: &Args, mended: &Mended, report: &Report, context: &Context) -> Result<()> {
    for problem in &report.problems {
        context.print(&shown(problem))?;
    }
    let (bundle, files) = (args.bundle.display(), count(mended.mended.len(), "file"));
    let lacking = mended.lacking.len();
    context.print(&match (report.is_clean(), lacking) {
        (true, _) => format!("OK: {bundle}: {files} mended\n"),
        (false, 0) => format!("DAMAGED: {bundle}: {files} mended, {}\n", count(report.problems.len(), "problem")),
        (false, _) => {
            let lacking = count(lacking, "file");
            format!("DAMAGED: {bundle}: {files} mended, {lacking} not in {}\n", args.repair.display())
        }
    })
}
