//! `gapferry repair`: what a bundle lacks, brought by a repair, into its place; or lost volumes, made of the others.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::Outcome;
use super::export::TOOL;
use super::verify::shown;
use crate::bundle::volumes::{Part, Rebuilt, is_set, rebuild};
use crate::bundle::{self, Mended};
use crate::check::{self, Depth, Report};
use crate::error::{Error, Result};
use crate::progress::plain_piece;
use crate::progress::units::count;

const ABOUT: &str = "\
Mends a bundle, a directory or a tar, with what `gapferry export --repair` has made, or with another copy of the same bundle, \
damaged or not.

Verifies the bundle, takes what is bad or absent from REPAIR, puts it in its place, brings it to the medium, and verifies \
again: what is then still wrong is listed as `gapferry verify` does. Everything is proven before the first byte is written; a repair \
of another bundle, or with a file that is not what this bundle lacks, is refused, and nothing changes. A bundle that is mended \
is byte for byte what it was. Interrupted? Run the same command again.

Of the volumes of a set that was made with --recovery, in any order: volumes that are missing or damaged, recovery volumes too, \
are made again from those that are left, beside them or in the directory DIR. Any as many as there are recovery volumes may be lost; of a \
damaged one only the mebibytes that are bad are. Each is proven to be what it was, to the last byte, before it gets its name and replaces \
a damaged one; if too much is lost, nothing changes. Who made the set is for `gapferry verify --key` to say, afterwards.

Exit code 0: all is whole. 3: something is still missing, or REPAIR is damaged. 2: REPAIR is for another bundle.";

const AFTER: &str = "\
Examples:
  gapferry verify images.tar --missing missing.json              # isolated side
  gapferry export --repair missing.json --locked images.lock -o repair.tar     # connected side
  gapferry repair images.tar repair.tar                          # isolated side

  gapferry repair /mnt/usb1/images.tar /mnt/usb2/images.tar      # two bad copies

  gapferry repair images.*.tar                                   # lost volumes, of the others
  gapferry repair /mnt/disc*/images.*.tar -o /srv/incoming       # read from discs that cannot be written";

/// Mend a damaged bundle in its place, or make lost volumes again
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle and then what `export --repair` has made, or another copy of the bundle; or all volumes of a set that are left
    #[arg(required = true, value_names = ["BUNDLE REPAIR | VOLUME"])]
    files: Vec<PathBuf>,
    /// Where lost volumes are made, if not beside the others
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print what was mended and what is still wrong as JSON on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if is_set(&args.files)? {
        return run_set(args, context);
    }
    match (&args.files[..], &args.output) {
        ([bundle, repair], None) => mend(bundle, repair, args.json, context),
        ([_, _], Some(_)) => Err(Error::input("a bundle is mended in its place: without -o")),
        ([one], _) => {
            let text = "is no volume of a set; a bundle is mended with what `export --repair` makes, or with another copy of it";
            Err(Error::input(format!("{} {text}", one.display())))
        }
        _ => Err(Error::input("none of these files is a volume of a set; a bundle is mended with one file")),
    }
}

fn mend(bundle: &Path, repair: &Path, json: bool, context: &Context) -> Result<Outcome> {
    let before = check::check(bundle, Depth::Chunks, &context.events)?;
    let missing = check::missing(bundle, &before, TOOL)?;
    let mended = bundle::mend(bundle, repair, &missing)?;
    let report = match before.is_clean() {
        true => before,
        false => check::check(bundle, Depth::Chunks, &context.events)?,
    };
    context.end();
    if json {
        let (identity, problems) = (report.identity, &report.problems);
        context.print_json(&serde_json::json!({
            "bundle": bundle, "identity": identity, "mended": mended.mended, "lacking": mended.lacking,
            "problems": problems,
        }))?;
    } else {
        print(bundle, repair, &mended, &report, context)?;
    }
    Ok(if report.is_clean() { Outcome::Done } else { Outcome::Damaged })
}

fn print(bundle: &Path, repair: &Path, mended: &Mended, report: &Report, context: &Context) -> Result<()> {
    for problem in &report.problems {
        context.print(&shown(problem))?;
    }
    let (bundle, files) = (bundle.display(), count(mended.mended.len(), "file"));
    let lacking = mended.lacking.len();
    context.print(&match (report.is_clean(), lacking) {
        (true, _) => format!("OK: {bundle}: {files} mended\n"),
        (false, 0) => format!("DAMAGED: {bundle}: {files} mended, {}\n", count(report.problems.len(), "problem")),
        (false, _) => {
            let lacking = count(lacking, "file");
            format!("DAMAGED: {bundle}: {files} mended, {lacking} not in {}\n", repair.display())
        }
    })
}

fn run_set(args: &Args, context: &Context) -> Result<Outcome> {
    let rebuilt = rebuild(&args.files, args.output.as_deref(), &context.events)?;
    context.end();
    if args.json {
        context.print_json(&to_json(&rebuilt))?;
    } else {
        print_set(&rebuilt, context)?;
    }
    Ok(if rebuilt.lacking == 0 { Outcome::Done } else { Outcome::Damaged })
}

fn to_json(rebuilt: &Rebuilt) -> serde_json::Value {
    let label = |part: &Part| part.label(rebuilt.of(*part));
    let files = |files: &[(Part, PathBuf)]| -> Vec<serde_json::Value> {
        files.iter().map(|(part, path)| serde_json::json!({ "volume": label(part), "path": path })).collect()
    };
    serde_json::json!({
        "set": rebuilt.name.base(), "identity": rebuilt.identity, "volumes": rebuilt.volumes,
        "recovery": rebuilt.recovery, "missing": rebuilt.missing.iter().map(label).collect::<Vec<_>>(),
        "damaged": files(&rebuilt.damaged), "foreign": rebuilt.foreign, "made": files(&rebuilt.made),
        "lacking": rebuilt.lacking,
    })
}

fn print_set(rebuilt: &Rebuilt, context: &Context) -> Result<()> {
    let Rebuilt { name, missing, damaged, foreign, made, lacking, .. } = rebuilt;
    for part in missing {
        context.print(&format!("missing: {}\n", shown_path(&name.part(*part, rebuilt.of(*part)))))?;
    }
    for (_, path) in damaged {
        context.print(&format!("damaged: {}\n", shown_path(path)))?;
    }
    for path in foreign {
        context.print(&format!("of another set: {}\n", shown_path(path)))?;
    }
    for (_, path) in made {
        context.print(&format!("made again: {}\n", shown_path(path)))?;
    }
    let (set, lost) = (name.base().display(), missing.len() + damaged.len());
    let all = (rebuilt.volumes + rebuilt.recovery) as usize;
    context.print(&match (lost, lacking) {
        (0, _) => format!("OK: {set}: {} are whole\n", count(all, "volume")),
        (_, 0) => format!("OK: {set}: {} made again, {all} are whole\n", count(made.len(), "volume")),
        _ => {
            let (lost, lacking) = (count(lost, "volume"), count(*lacking, "more whole volume"));
            format!("DAMAGED: {set}: {lost} of {all} lost or damaged; it would take {lacking} of this set; nothing was changed\n")
        }
    })
}

fn shown_path(path: &Path) -> String {
    plain_piece(&path.display().to_string()).into_owned()
}
