//! `gapferry convert`: a bundle that is there, in another form.

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
Writes a bundle in another form: a directory, a tar, a compressed tar, volumes, or a stream. The form follows from the name: OUT.tar \
is a tar, OUT.tar.zst a compressed one, - is standard output, any other name a directory; --volume-size makes volumes.

The bundle keeps its identity and all of its signatures. Every file is proven by its digest while it is copied, and OUT gets its \
name when all of it is on the medium. A bundle that has the name already is replaced, with a notice if it is another one. An interrupted conversion continues when you run the same command again; a compressed tar and \
a stream start over. Between directories of one file system, blobs are linked where that is possible, and take no room.

`split` and `join` do the same for volumes.";

const AFTER: &str = "\
Examples:
  gapferry convert images.tar -o images                       # a directory
  gapferry convert images -o images.tar.zst                   # compressed
  gapferry convert /mnt/usb/images.*.tar -o images.tar --key ours.pub
  gapferry convert images -o burn/images.tar --volume-size dvd
  gapferry convert images -o - | ssh gateway 'cat >/dev/diode'";

/// Write a bundle in another form
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle: a directory, a tar, or all volumes of a set
    #[arg(required = true, value_name = "BUNDLE")]
    bundle: Vec<PathBuf>,
    /// Where it goes: OUT.tar, OUT.tar.zst, - for standard output, or a directory
    #[arg(short, long, value_name = "OUT", help_heading = "Output")]
    output: PathBuf,
    /// Write volumes OUT.001.tar… of at most SIZE: bytes, 4GB, fat32, cd, dvd, bd, bd-dl
    #[arg(long, value_name = "SIZE", value_parser = parse, long_help = SIZES, help_heading = "Output")]
    volume_size: Option<u64>,
    /// Write N recovery volumes too, from which any N lost volumes can be made again
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Output")]
    #[arg(requires = "volume_size")]
    recovery: u32,
    /// Print which volumes there would be, and write nothing
    #[arg(long, help_heading = "Output", requires = "volume_size")]
    dry_run: bool,
    /// Print what was written as JSON on standard output
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
