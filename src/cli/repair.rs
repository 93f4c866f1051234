//! `gapferry repair`: what a bundle lacks, brought by a repair, into its place; or lost volumes, made of the others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::Outcome;
use super::render::problem as shown;
use super::signing::KeyArgs;
use crate::app::TOOL;
use crate::base::error::{Error, Result};
use crate::base::progress::plain_piece;
use crate::base::progress::units::count;
use crate::bundle::volumes::{MendedSet, Opened, Part, Rebuilt, is_set, mend_set, rebuild};
use crate::bundle::{self, BUNDLE_JSON, Mended, REPAIR_JSON, With, refuse_unfinished};
use crate::files::Layout;
use crate::verify::{self, Depth, Report, VolumeReport, VolumeState};

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
a damaged one; if too much is lost, nothing changes. With --key the signature of what is left is checked first; what is made of \
recovery volumes, which are not signed, is for `gapferry verify --key` to prove.

Without recovery volumes, volumes that are missing or damaged are written again with what `verify --missing` and `export --repair` \
have brought, named with the others, or with a copy of the whole bundle.

Exit code 0: all is whole. 3: something is still missing, or REPAIR is damaged. 2: REPAIR is for another bundle.";

const AFTER: &str = "\
Examples:
  gapferry verify images.tar --missing missing.json              # isolated side
  gapferry export --repair missing.json --locked images.lock -o repair.tar     # connected side
  gapferry repair images.tar repair.tar                          # isolated side

  gapferry repair /mnt/usb1/images.tar /mnt/usb2/images.tar      # two bad copies

  gapferry repair images.*.tar                                   # lost volumes, of the others
  gapferry repair /mnt/disc*/images.*.tar -o /srv/incoming       # read from discs that cannot be written
  gapferry repair images.*.tar repair.tar                        # without recovery volumes";

/// Mend a damaged bundle in its place, or make lost volumes again
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle and then what `export --repair` has made, or another copy of the bundle; or all volumes of a set that are
    /// left, perhaps with one of these two
    #[arg(required = true, value_names = ["BUNDLE REPAIR | VOLUME"])]
    files: Vec<PathBuf>,
    /// Where lost volumes are made, if not beside the others
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print what was mended and what is still wrong as JSON on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
}

pub fn run(args: &Args, context: &Context) -> Result<Outcome> {
    if is_set(&args.files)? {
        return match brought(&args.files)? {
            Some((volumes, from)) => mend_volumes(args, &volumes, &from, context),
            None => run_set(args, context),
        };
    }
    match (&args.files[..], &args.output) {
        ([bundle, repair], None) => mend(bundle, repair, args, context),
        ([_, _], Some(_)) => Err(Error::input("a bundle is mended in its place: without -o")),
        ([one], _) => {
            let text = "is no volume of a set; a bundle is mended with what `export --repair` makes, or with another copy of it";
            Err(Error::input(format!("{} {text}", one.display())))
        }
        _ => Err(Error::input("none of these files is a volume of a set; a bundle is mended with one file")),
    }
}

/// The volumes, and the repair or copy of the bundle that was named with them.
fn brought(files: &[PathBuf]) -> Result<Option<(Vec<PathBuf>, PathBuf)>> {
    let (mut volumes, mut from) = (Vec::new(), Vec::new());
    for path in files {
        let holds = || {
            Layout::open(path)
                .is_ok_and(|layout| [REPAIR_JSON, BUNDLE_JSON].iter().any(|own| layout.size_of(own).is_some()))
        };
        let is_other = !is_set(std::slice::from_ref(path))? && holds();
        if is_other { from.push(path.clone()) } else { volumes.push(path.clone()) }
    }
    match (&from[..], volumes.is_empty()) {
        ([], _) | (_, true) => Ok(None),
        ([one], _) => Ok(Some((volumes, one.clone()))),
        ([one, other, ..], _) => {
            let text = "are no volumes; a set is mended with one repair, or one copy of its bundle, at a time";
            Err(Error::input(format!("{} and {} {text}", one.display(), other.display())))
        }
    }
}

fn mend_volumes(args: &Args, volumes: &[PathBuf], from: &Path, context: &Context) -> Result<Outcome> {
    let opened = Opened::open(volumes)?;
    let shown_set = opened.layout().path().display().to_string();
    let signed = args.keys.check_layout(opened.layout(), context)?;
    let before = verify::check_proven(&opened, Depth::Chunks, signed.as_ref(), &context.events)?;
    let missing = verify::missing_of(opened.into_layout(), &before, TOOL)?;
    let files: Vec<(u32, bool, &str)> = before.set.iter().flat_map(|set| &set.volumes).filter_map(numbered).collect();
    let damaged = files.iter().filter(|(_, is_good, _)| !is_good).map(|(number, ..)| *number);
    let gone = before.set.iter().filter(|_| volumes.len() > 1).flat_map(|set| set.missing.iter().copied());
    let bad: BTreeSet<u32> = damaged.chain(gone).collect();
    let MendedSet { made, lacking, .. } =
        mend_set(volumes, from, (&missing, &bad), args.output.as_deref(), &context.events)?;
    let is_replaced = |path: &Path| {
        files.iter().any(|(number, _, of)| Path::new(of) == path && made.iter().any(|(made, _)| made == number))
    };
    let kept = volumes.iter().filter(|path| !is_replaced(path)).cloned();
    let all: Vec<PathBuf> = kept.chain(made.iter().map(|(_, path)| path.clone())).collect();
    let report = verify::check_opened(&Opened::open(&all)?, Depth::Chunks, &context.events)?;
    context.end();
    if args.json {
        let made: Vec<&PathBuf> = made.iter().map(|(_, path)| path).collect();
        context.print_json(&serde_json::json!({
            "set": shown_set, "identity": report.identity, "made": made, "lacking": lacking, "problems": report.problems,
        }))?;
    } else {
        for problem in &report.problems {
            context.print(&shown(problem))?;
        }
        for (_, path) in &made {
            context.print(&format!("made again: {}\n", shown_path(path)))?;
        }
        let again = format!("{} made again", count(made.len(), "volume"));
        let from = from.display();
        context.print(&match (report.is_clean(), lacking.len()) {
            (true, _) => format!("OK: {shown_set}: {again}\n"),
            (false, 0) => format!("DAMAGED: {shown_set}: {again}, {}\n", count(report.problems.len(), "problem")),
            (false, number) => {
                format!(
                    "DAMAGED: {shown_set}: {again}; {} neither in these volumes nor in {from}\n",
                    count(number, "file")
                )
            }
        })?;
    }
    Ok(if report.is_clean() { Outcome::Done } else { Outcome::Damaged })
}

/// The number of a volume, and whether it is good.
fn numbered(volume: &VolumeReport) -> Option<(u32, bool, &str)> {
    match Part::parse(volume.volume.as_ref()?.as_bytes())? {
        Part::Volume(number) if volume.state != VolumeState::Foreign => {
            Some((number, volume.state == VolumeState::Good, &volume.path))
        }
        _ => None,
    }
}

fn mend(bundle: &Path, repair: &Path, args: &Args, context: &Context) -> Result<Outcome> {
    // Where the bundle has lost its signature, another copy of it may have it.
    let own = args.keys.check_layout(&Layout::open(bundle)?, context);
    let (own, copy) = match own {
        Err(error) => (None, args.keys.check_layout(&Layout::open(repair)?, context).map_err(|_| error)?),
        own => (own?, None),
    };
    let proven = own.as_ref().or(copy.as_ref());
    let check = || match (&own, &copy) {
        // What an accepted key has not signed proves nothing where one is demanded.
        (None, Some(_)) => verify::check(bundle, Depth::Full, &context.events),
        (own, _) => {
            let opened = Opened::Whole(Box::new(Layout::open(bundle)?));
            verify::check_proven(&opened, Depth::Chunks, own.as_ref(), &context.events)
        }
    };
    refuse_unfinished(bundle)?;
    let before = check()?;
    let missing = verify::missing(bundle, &before, TOOL)?;
    if let Some(proven) = proven.filter(|proven| proven.identity != missing.identity) {
        let text =
            format!("{} is the bundle {}, what is signed is {}", bundle.display(), missing.identity, proven.identity);
        return Err(Error::damaged(text));
    }
    let events = &context.events;
    let mended = bundle::mend(bundle, &With { from: repair, missing: &missing, proven, events })?;
    let report = match before.is_clean() {
        true => before,
        false => check()?,
    };
    context.end();
    if args.json {
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
    let signed = match Opened::open(&args.files) {
        Ok(opened) => args.keys.check_layout(opened.layout(), context)?,
        // Recovery volumes alone say nothing of who made them.
        Err(error) if args.keys.demand(context)? => return Err(error),
        Err(_) => None,
    };
    let identity = signed.map(|signed| signed.identity);
    let rebuilt = rebuild(&args.files, args.output.as_deref(), identity, &context.events)?;
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
