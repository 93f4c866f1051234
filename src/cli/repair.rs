//! `gapferry repair`: what a bundle lacks, brought by a repair, into its place; or lost volumes, made of the others.

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
Repairs a bundle, a directory or a tar, with the output of `gapferry export --repair`, or with another copy of the same bundle in \
any form, damaged or not: a directory, a tar, or all volumes of a set.

Verifies the bundle, takes what is bad or absent from REPAIR, puts it in its place, brings it to the medium, and verifies \
again: what is then still wrong is listed as `gapferry verify` does. Everything is proven before the first byte is written; a repair \
of another bundle, or with a file that is not what this bundle lacks, is refused, and nothing changes. A repaired bundle \
is byte for byte what it was, but for signatures that are lost: with --key, one by that key is taken from the copy, if the bundle has a \
place for it. No signature that is there is replaced by that of another key. Interrupted? Run the same command again.

Of the volumes of a set that was made with --recovery, in any order: volumes that are missing or damaged, recovery volumes too, \
are made again from those that are left, beside them or in the directory DIR. Any as many as there are recovery volumes may be lost; of a \
damaged one only the mebibytes that are bad are. Recovery volumes are not signed, so each volume is proven by the digests in \
bundle.json before it gets its name and replaces a damaged one, and a volume that they prove good is never replaced, whatever recovery \
volumes say. A file that is not named here is replaced only if its bytes show that it is a volume of the set. If too much is lost, or a proof fails, nothing changes. With --key the signature of what is left is checked first, \
and only its bundle is made.

Without recovery volumes, volumes that are missing or damaged are written again with what `verify --missing` and `export --repair` \
have brought, named with the others, or with a copy of the whole bundle.

Exit code 0: all is whole. 3: something is still missing, REPAIR is damaged, or the bundle \
has no signature by --key. 2: REPAIR is for another bundle.";

const AFTER: &str = "\
Examples:
  gapferry verify images.tar --missing missing.json              # isolated side
  gapferry export --repair missing.json --locked images.lock -o repair.tar     # connected side
  gapferry repair images.tar repair.tar                          # isolated side

  gapferry repair /mnt/usb1/images.tar /mnt/usb2/images.tar      # two bad copies
  gapferry repair images.tar /mnt/disc*/images.*.tar             # volumes of the same bundle

  gapferry repair images.*.tar                                   # lost volumes, of the others
  gapferry repair /mnt/disc*/images.*.tar -o /srv/incoming       # read from discs that cannot be written
  gapferry repair images.*.tar repair.tar                        # without recovery volumes";

/// Repair a damaged bundle in place, or reconstruct lost volumes
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle and then what `export --repair` has made, or another copy of the bundle, which may be volumes; or all volumes of a
    /// set that are left, and perhaps a repair or a copy behind them
    #[arg(required = true, value_names = ["BUNDLE REPAIR | VOLUME"])]
    files: Vec<PathBuf>,
    /// Where lost volumes are made, if not beside the others
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print what was repaired and what is still wrong as JSON on standard output
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
    let (set, lost) = (report.set.display(), report.missing.len() + report.damaged.len());
    let (all, made) = ((report.volumes + report.recovery) as usize, count(report.made.len(), "volume"));
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
