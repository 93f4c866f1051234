//! `gapferry split`: a bundle that is there, as volumes of a limited size.

use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::join::refuse_stream;
use super::read_back::ReadBackArgs;
use super::table;
use super::volume_size::{SIZES, parse, parse_number};
use crate::app::{ExportedVolume, JsonReport, PlannedVolume, REPORT_VERSION};
use crate::base::error::Result;
use crate::base::progress::Events;
use crate::base::progress::units::{bytes, count};
use crate::bundle::Bundle;
use crate::bundle::volumes::{Shape, Split, WrittenVolume, write_recovery};
use crate::oci::Digest;

const ABOUT: &str = "\
Splits a bundle, a directory or a tar, into volumes: OUT.001.tar, OUT.002.tar and so on, none larger than SIZE.

Each volume is a tar of its own that any tar reads. It says which one of how many it is, repeats bundle.json, the signatures and \
all manifests, and can be verified alone. Only a blob that is too large for a volume is cut. The bundle stays what it is, and \
keeps its identity; `gapferry import OUT.*.tar` and `gapferry join` take the volumes as they are.

Every file is proven while it is copied, and a volume gets its name when it is whole and on the medium: until then it is called \
OUT.001.tar.partial. Interrupted? Run the same command again: volumes that are there and whole are not written again. The same \
bundle and size give the same volumes, so a single one can be made again with --only-volume.";

const AFTER: &str = "\
Examples:
  gapferry split images.tar -o /mnt/usb/images.tar --volume-size fat32
  gapferry split images.tar -o burn/images.tar --volume-size dvd --dry-run
  gapferry split images.tar -o burn/images.tar --volume-size dvd --only-volume 3     # one bad disc
  gapferry split images.tar -o burn/images.tar --volume-size bd --recovery 2         # two discs may be lost";

/// Split a bundle into volumes of a limited size
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle, a directory or a tar
    bundle: PathBuf,
    /// What the volumes are called: OUT.001.tar and so on, or NAME.001.tar where OUT is NAME.tar
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Bytes that no volume exceeds
    #[arg(long, value_name = "SIZE", value_parser = parse, long_help = SIZES)]
    volume_size: u64,
    /// Write N recovery volumes too, from which any N lost volumes can be made again (`gapferry repair`)
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    recovery: u32,
    /// Write only this volume, the same that it would be among all
    #[arg(long, value_name = "N", value_parser = parse_number)]
    only_volume: Option<u32>,
    /// Print which volumes there would be, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the volumes as JSON on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    read_back: ReadBackArgs,
}

/// What was written.
#[derive(Serialize)]
struct SplitReport {
    version: u32,
    ok: bool,
    /// Of the bundle.
    identity: Digest,
    volumes: Vec<ExportedVolume>,
    /// The recovery volumes.
    recovery: Vec<ExportedVolume>,
}

impl JsonReport for SplitReport {}

/// What would be written.
#[derive(Serialize)]
struct SplitPlan {
    version: u32,
    ok: bool,
    /// Of the bundle.
    identity: Digest,
    volumes: Vec<PlannedVolume>,
}

impl JsonReport for SplitPlan {}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    refuse_stream(&args.output)?;
    let bundle = Bundle::open(&args.bundle)?;
    let manifests = bundle.manifests()?;
    let shape = Shape { limit: args.volume_size, recovery: args.recovery };
    let split = Split::new(bundle, &manifests, &args.output, shape)?;
    if args.dry_run {
        print_plan(&args, &split, context)?;
        return Ok(Outcome::Done);
    }
    let identity = split.set().identity;
    let (only, events) = (args.only_volume, context.events.clone());
    let work = tokio::task::spawn_blocking(move || write(&split, only, &events));
    let (written, recovery) = work.await.map_err(crate::app::stopped)??;
    let all = written.iter().chain(&recovery).map(|volume| volume.path.clone());
    args.read_back.prove(all.collect::<Vec<_>>(), context).await?;
    context.end();
    if args.json {
        let json = |volumes: &[WrittenVolume]| volumes.iter().map(ExportedVolume::from).collect();
        let (volumes, recovery) = (json(&written), json(&recovery));
        context.print_json(&SplitReport { version: REPORT_VERSION, ok: true, identity, volumes, recovery })?;
    }
    for WrittenVolume { path, size, unchanged, .. } in written.iter().chain(&recovery) {
        let what = if *unchanged { "unchanged" } else { "written" };
        context.say(&format!("{}: {what}, {}", path.display(), bytes(*size)));
    }
    context.say(&format!("identity {identity}"));
    Ok(Outcome::Done)
}

/// The volumes, and then the recovery volumes that are made of all of them.
fn write(split: &Split, only: Option<u32>, events: &Events) -> Result<(Vec<WrittenVolume>, Vec<WrittenVolume>)> {
    let written = split.run(only, events)?;
    let recovery = split.recovery();
    if only.is_some() || recovery.recovery == 0 {
        return Ok((written, Vec::new()));
    }
    let unchanged = written.iter().all(|volume| volume.unchanged);
    let recovery = write_recovery(&split.set().name, &recovery, unchanged, events)?;
    Ok((written, recovery))
}

fn print_plan(args: &Args, split: &Split, context: &Context) -> Result<()> {
    let set = split.set();
    let volumes = &set.plan.volumes;
    if args.json {
        let (identity, volumes) = (set.identity, volumes.iter().map(|one| PlannedVolume::new(set, one)).collect());
        return context.print_json(&SplitPlan { version: REPORT_VERSION, ok: true, identity, volumes });
    }
    let row =
        |volume| vec![set.path_of(volume).display().to_string(), bytes(volume.length), volume.files.len().to_string()];
    context.print(&table::render(&["VOLUME", "SIZE", "BLOBS"], &volumes.iter().map(row).collect::<Vec<_>>()))?;
    let (volumes, length) = (count(volumes.len(), "volume"), bytes(set.plan.length()));
    let recovery = match args.recovery {
        0 => String::new(),
        number => format!("; and {}", count(number as usize, "recovery volume")),
    };
    context.print(&format!("\n{volumes}, {length} in all{recovery}\n"))
}
