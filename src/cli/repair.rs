//! `gapferry repair`: repairs a bundle in place, or reconstructs lost volumes.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::CommandOutcome;
use super::render::problem as shown;
use super::signing::KeyArgs;
use crate::app::{self, RecoveredVolumes, RepairReport, RepairRequest, RepairedBundle, RepairedVolumes};
use crate::base::error::Result;
use crate::base::progress::plain_piece;
use crate::base::progress::units::count;
use crate::verify::Problem;

const ABOUT: &str = "\
Repairs a bundle in place, or reconstructs lost volumes of a set.

To repair a directory or tar, give the bundle and then the output of `export --repair`, or another copy of the same \
bundle in any form, which may be damaged too. gapferry verifies the bundle, replaces what is bad or absent, syncs, \
and verifies again; it lists the problems that remain. It verifies all replacements before it writes the first byte. \
A repair file for another bundle, or with files that this bundle does not lack, is rejected and nothing changes. A \
repaired bundle is identical byte for byte, except for lost signatures: with --key, a signature by that key is \
copied if the bundle has room for it. Signatures by other keys are never replaced. After an interruption, run the \
same command again.

To reconstruct volumes of a set that was made with --recovery, give all remaining volumes in any order. Up to as \
many volumes as there are recovery volumes may be lost or damaged; of a damaged volume, only the bad mebibytes \
count. New volumes are written next to the others or into DIR. Recovery volumes are not signed, so each \
reconstructed volume is verified with the digests in bundle.json before it gets its name. A volume that these \
digests prove good is never replaced, and neither is an unnamed file unless its content shows that it is a volume of \
the set. If too many volumes are lost, or a volume does not verify, nothing changes and gapferry says how many more \
it needs. With --key, the signature is checked first.

Without recovery volumes, give the remaining volumes and then the output of `export --repair` or a copy of the \
bundle.

Exit codes: 0 complete; 3 something is still missing, the repair file is damaged, or there is no signature by --key; \
2 the repair file is for another bundle.";

const AFTER: &str = "\
Examples:
  gapferry repair images.tar repair.tar
  gapferry repair images.*.tar

  # The whole way: what is missing, fetch it outside, repair inside.
  gapferry verify images.tar --missing missing.json
  gapferry export --repair missing.json --locked images.lock -o repair.tar
  gapferry repair images.tar repair.tar

  # From two damaged copies; or from volumes of the same bundle.
  gapferry repair /mnt/usb1/images.tar /mnt/usb2/images.tar
  gapferry repair images.tar /mnt/disc*/images.*.tar

  # Read from read-only discs, write to a disk.
  gapferry repair /mnt/disc*/images.*.tar -o /srv/incoming";

/// Repair a damaged bundle in place, or reconstruct lost volumes
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle, then a repair file or a copy; or the remaining volumes
    ///
    /// The output of `export --repair`, or another copy of the bundle, which may be volumes. After the volumes of a set, a
    /// repair file or a copy is optional.
    #[arg(required = true, value_names = ["BUNDLE REPAIR | VOLUME"])]
    files: Vec<PathBuf>,
    /// Directory for reconstructed volumes; default: next to the others
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print what was repaired and what is still wrong as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

pub fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let request = RepairRequest { trust: args.keys.trust(context)?, files: args.files, output: args.output };
    let report = app::repair(&request, &context.environment)?;
    context.end();
    match &report {
        report if args.json => context.print_json(report)?,
        RepairReport::Bundle(bundle) => print_bundle(bundle, context)?,
        RepairReport::Volumes(volumes) => print_volumes(volumes, context)?,
        RepairReport::Recovered(volumes) => print_recovered(volumes, context)?,
    }
    Ok(report.outcome().into())
}

fn print_problems(problems: &[Problem], context: &Context) -> Result<()> {
    problems.iter().try_for_each(|problem| context.print(&shown(problem)))
}

fn print_bundle(report: &RepairedBundle, context: &Context) -> Result<()> {
    print_problems(&report.problems, context)?;
    let (bundle, files) = (report.bundle.display(), count(report.repaired.len(), "file"));
    context.print(&match (report.problems.len(), report.lacking.len()) {
        (0, _) => format!("OK: {bundle}: {files} repaired\n"),
        (problems, 0) => format!("DAMAGED: {bundle}: {files} repaired, {}\n", count(problems, "problem")),
        (_, lacking) => {
            let (lacking, from) = (count(lacking, "file"), report.from.display());
            format!("DAMAGED: {bundle}: {files} repaired, {lacking} not in {from}\n")
        }
    })
}

fn print_volumes(report: &RepairedVolumes, context: &Context) -> Result<()> {
    print_problems(&report.problems, context)?;
    for volume in &report.made {
        context.print(&format!("made again: {}\n", shown_path(&volume.path)))?;
    }
    let (set, again) = (&report.set, format!("{} made again", count(report.made.len(), "volume")));
    context.print(&match (report.problems.len(), report.lacking.len()) {
        (0, _) => format!("OK: {set}: {again}\n"),
        (problems, 0) => format!("DAMAGED: {set}: {again}, {}\n", count(problems, "problem")),
        (_, lacking) => {
            let (files, from) = (count(lacking, "file"), report.from.display());
            format!("DAMAGED: {set}: {again}; {files} neither in these volumes nor in {from}\n")
        }
    })
}

fn print_recovered(report: &RecoveredVolumes, context: &Context) -> Result<()> {
    let missing = report.missing_paths.iter().map(|path| ("missing", path));
    let damaged = report.damaged.iter().map(|volume| ("damaged", &volume.path));
    let foreign = report.foreign.iter().map(|path| ("of another set", path));
    let made = report.made.iter().map(|volume| ("made again", &volume.path));
    for (what, path) in missing.chain(damaged) {
        context.print(&format!("{what}: {}\n", shown_path(path)))?;
    }
    for volume in &report.unlike {
        let text = "it is good and stays as it is, but the recovery volumes list other bytes: they are forged, damaged or older; make new ones";
        context.print(&format!("note: {}: {text}\n", shown_path(&volume.path)))?;
    }
    for (what, path) in foreign.chain(made) {
        context.print(&format!("{what}: {}\n", shown_path(path)))?;
    }
    let (set, lost) = (report.set.display(), report.missing_paths.len() + report.damaged.len());
    let (all, made) = ((report.of + report.recovery_count) as usize, count(report.made.len(), "volume"));
    context.print(&match (lost, report.lacking_volumes) {
        (0, _) => format!("OK: {set}: {} are whole\n", count(all, "volume")),
        (_, 0) => format!("OK: {set}: {made} made again, {all} are whole\n"),
        (lost, lacking) => {
            let (lost, lacking) = (count(lost, "volume"), count(lacking, "more whole volume"));
            format!("DAMAGED: {set}: {lost} of {all} lost or damaged; it would take {lacking} of this set; nothing was changed\n")
        }
    })
}

fn shown_path(path: &Path) -> String {
    plain_piece(&path.display().to_string()).into_owned()
}
