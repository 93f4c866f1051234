//! `gapferry convert`: writes an existing bundle in another form.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::CommandOutcome;
use super::read_back::ReadBackArgs;
use super::render::show_refusal;
use super::signing::KeyArgs;
use super::standard_output::{self, Besides, STANDARD};
use super::volume_size::{SIZES, parse};
use super::{join, split};
use crate::app::{self, ConvertReport, ConvertRequest, Output};
use crate::base::error::Result;
use crate::bundle::volumes::{Shape, VolumeOptions, VolumeSelection};
use crate::content::LinkMode;

const ABOUT: &str = "\
Writes an existing bundle in another form. The form follows from the name: OUT.tar is a tar, OUT.tar.zst a \
compressed tar, - a tar on standard output, and any other name a directory. --volume-size writes volumes.

The bundle keeps its identity and all its signatures. Every file is verified by digest while it is copied, and OUT \
gets its name when everything is flushed to disk. An existing bundle of that name is replaced; if it is a different \
bundle, gapferry prints a notice. After an interruption, run the same command again: it continues, except for a \
compressed tar and a stream, which start over. Between directories on one file system, blobs are linked where \
possible and take no extra space.

`split` and `join` do the same for volumes.";

const AFTER: &str = "\
Examples:
  gapferry convert images.tar -o images           # to a directory
  gapferry convert images -o images.tar.zst       # to a compressed tar
  gapferry convert /mnt/usb/images.*.tar -o images.tar --key our.pub
  gapferry convert images -o burn/images.tar --volume-size dvd
  gapferry convert images -o - | ssh gateway 'cat >/dev/diode'";

/// Write an existing bundle in another form
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle: directory, tar, or all volumes of a set
    #[arg(required = true, value_name = "BUNDLE")]
    bundle: Vec<PathBuf>,
    /// Bundle to write: OUT.tar, OUT.tar.zst, a directory, or -
    #[arg(short, long, value_name = "OUT", help_heading = "Output")]
    output: PathBuf,
    /// Write volumes of at most SIZE, such as 4GB, fat32, dvd, bd
    #[arg(long, value_name = "SIZE", value_parser = parse, long_help = SIZES, help_heading = "Output")]
    volume_size: Option<u64>,
    /// Also write N recovery volumes, which can replace any N lost volumes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Output")]
    #[arg(requires = "volume_size")]
    recovery: u32,
    /// Print the list of volumes and write nothing
    #[arg(long, help_heading = "Output", requires = "volume_size")]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    read_back: ReadBackArgs,
}

impl Args {
    fn output(&self) -> Result<Output> {
        match self.volume_size {
            Some(limit) => {
                join::refuse_stream(&self.output)?;
                let shape = Shape { limit, recovery: self.recovery };
                let volumes = VolumeOptions { shape, selection: VolumeSelection::All };
                Ok(Output::Volumes { path: self.output.clone(), volumes })
            }
            None if self.output == Path::new(STANDARD) => {
                let read_back = self.read_back.read_back;
                standard_output::output(Besides { json: self.json, dry_run: false, read_back })
            }
            None => Ok(Output::Path(self.output.clone())),
        }
    }
}

pub async fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let request = ConvertRequest {
        bundle: args.bundle.clone(),
        output: args.output()?,
        trust: args.keys.trust(context)?,
        link: LinkMode::Auto,
        dry_run: args.dry_run,
        read_back: args.read_back.read_back,
    };
    let report = app::convert(request, &context.environment).await;
    let report = report.inspect_err(|error| show_refusal(error, context))?;
    context.end();
    match &report {
        report if args.json => context.print_json(report)?,
        ConvertReport::Planned(plan) => split::print_plan(plan, context)?,
        ConvertReport::Written(_) => {}
    }
    if let ConvertReport::Written(written) = &report {
        split::say_volumes(written, context);
        join::say(written, context);
    }
    Ok(CommandOutcome::Done)
}
