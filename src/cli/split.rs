//! `gapferry split`: a bundle → volumes of a limited size.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use super::join::refuse_stream;
use super::read_back::ReadBackArgs;
use super::signing::{KeyArgs, signed_by};
use super::table;
use super::volume_size::{SIZES, parse, parse_number};
use crate::app::{self, ConvertReport, ConvertRequest, Converted, ExportedVolume, Output, VolumesPlan};
use crate::base::error::Result;
use crate::base::progress::units::{bytes, count};
use crate::bundle::volumes::{Shape, VolumeOptions, VolumeSelection};
use crate::content::LinkMode;

const ABOUT: &str = "\
Splits a bundle (directory, tar or volumes) into volumes OUT.001.tar, OUT.002.tar and so on, none larger than SIZE.

Each volume is a tar that any tar program reads. It states its number and how many there are, repeats bundle.json, \
the signatures and all manifests, and can be verified alone. Only a blob that is larger than a volume is cut. The \
bundle itself does not change; the set keeps its identity. All commands except `sign` read volumes directly.

Every file is verified while it is copied. The volumes are called OUT.001.tar.partial and so on until all of them are \
complete and flushed to disk. After an interruption, run the same command again; complete volumes are kept. The same bundle and size \
always give the same volumes, so --only-volume can write a single one again.";

const AFTER: &str = "\
Examples:
  gapferry split images.tar -o /mnt/usb/images.tar --volume-size fat32
  gapferry split images.tar -o burn/images.tar --volume-size dvd --dry-run

  # Write disc 3 again.
  gapferry split images.tar -o burn/images.tar --volume-size dvd \\
    --only-volume 3

  # Any two of the discs may be lost.
  gapferry split images.tar -o burn/images.tar --volume-size bd --recovery 2";

/// Split a bundle into volumes of a limited size
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle: directory or tar
    bundle: PathBuf,
    /// Name of the volumes: OUT.tar becomes OUT.001.tar and so on
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Maximum size of a volume, such as 4GB, fat32, dvd, bd
    #[arg(long, value_name = "SIZE", value_parser = parse, long_help = SIZES)]
    volume_size: u64,
    /// Also write N recovery volumes, which can replace any N lost volumes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    recovery: u32,
    /// Write only volume N again, identical to the first time
    #[arg(long, value_name = "N", value_parser = parse_number)]
    only_volume: Option<u32>,
    /// Print the list of volumes and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the volumes as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    read_back: ReadBackArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    refuse_stream(&args.output)?;
    let shape = Shape { limit: args.volume_size, recovery: args.recovery };
    let volumes = VolumeOptions { shape, selection: VolumeSelection::of(args.only_volume) };
    let request = ConvertRequest {
        bundle: vec![args.bundle],
        trust: args.keys.trust(context)?,
        output: Output::Volumes { path: args.output, volumes },
        link: LinkMode::Copy,
        dry_run: args.dry_run,
        read_back: args.read_back.read_back,
    };
    let report = app::convert(request, &context.environment).await?;
    context.end();
    match &report {
        report if args.json => context.print_json(report)?,
        ConvertReport::Planned(plan) => print_plan(plan, context)?,
        ConvertReport::Written(_) => {}
    }
    if let ConvertReport::Written(written) = &report {
        written.key.iter().for_each(|by| context.say(&signed_by(by)));
        say_volumes(written, context);
        context.say(&format!("identity {}", written.identity));
    }
    Ok(CommandOutcome::Done)
}

/// Prints a line for each volume.
pub fn say_volumes(report: &Converted, context: &Context) {
    for ExportedVolume { path, bytes: size, unchanged, .. } in report.volumes.iter().chain(&report.recovery) {
        let what = if *unchanged { "unchanged" } else { "written" };
        context.say(&format!("{}: {what}, {}", path.display(), bytes(*size)));
    }
}

/// Prints the planned volumes.
pub fn print_plan(plan: &VolumesPlan, context: &Context) -> Result<()> {
    let rows = plan
        .volumes
        .iter()
        .zip(&plan.files)
        .map(|(volume, files)| vec![volume.path.display().to_string(), bytes(volume.bytes), files.to_string()]);
    context.print(&table::render(&["VOLUME", "SIZE", "BLOBS"], &rows.collect::<Vec<_>>()))?;
    let length = plan.volumes.iter().map(|volume| volume.bytes).fold(0, u64::saturating_add);
    let (volumes, length) = (count(plan.volumes.len(), "volume"), bytes(length));
    let recovery = match plan.recovery_count {
        0 => String::new(),
        number => format!("; and {}", count(number as usize, "recovery volume")),
    };
    context.print(&format!("\n{volumes}, {length} in all{recovery}\n"))
}
