//! `gapferry join`: the volumes of a set → one bundle.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::CommandOutcome;
use super::read_back::ReadBackArgs;
use super::render::show_refusal;
use super::signing::{KeyArgs, signed_by};
use crate::app::{self, ConvertReport, ConvertRequest, Converted, Output};
use crate::base::error::{Error, Result};
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::Form;
use crate::bundle::volumes::Opened;
use crate::content::LinkMode;

const ABOUT: &str = "\
Joins all volumes of a set into one bundle: the identical tar that was split, or a directory. Volumes may be given \
in any order. chunks.b3, which volumes do not contain, is computed in the same pass.

Every file is verified by digest while it is copied, and OUT gets its name when it is complete. `import`, `verify`, \
`list` and `serve` read volumes directly, so there is no need to join them first.

Exit code 3: a volume is missing or damaged. gapferry lists every problem and writes nothing.";

const AFTER: &str = "\
Examples:
  gapferry join /mnt/usb/images.*.tar -o images.tar
  gapferry join /mnt/usb/images.*.tar -o images --key their.pub";

/// Join volumes into one bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// All volumes of the set, in any order
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<PathBuf>,
    /// Bundle to write: a tar if the name ends in .tar, else a directory
    #[arg(short, long, value_name = "OUT", help_heading = "Output")]
    output: PathBuf,
    /// Print the result as JSON
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    read_back: ReadBackArgs,
}

/// Rejects a name that does not stand for a tar or a directory; it would become the name of a directory.
///
/// # Errors
/// The name stands for a stream or a compressed tar.
pub fn refuse_stream(output: &Path) -> Result<()> {
    match output == "-" || Form::named(output) == Form::Compressed {
        true => {
            Err(Error::input("this writes files as they are, no stream and nothing compressed: end the name in .tar"))
        }
        false => Ok(()),
    }
}

pub async fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    refuse_stream(&args.output)?;
    let opened = Opened::open(&args.volumes)?;
    if opened.volumes().is_none() {
        let path = opened.layout().path().display();
        let text = format!(
            "{path} is not a volume, so there is nothing to join; `gapferry convert` changes the form of a bundle"
        );
        return Err(Error::input(text));
    }
    drop(opened);
    let request = ConvertRequest {
        bundle: args.volumes.clone(),
        trust: args.keys.trust(context)?,
        output: Output::Path(args.output.clone()),
        link: LinkMode::Copy,
        dry_run: false,
        read_back: args.read_back.read_back,
    };
    let report = app::convert(request, &context.environment).await;
    let report = report.inspect_err(|error| show_refusal(error, context))?;
    context.end();
    if args.json {
        context.print_json(&report)?;
    }
    if let ConvertReport::Written(written) = &report {
        say(written, context);
    }
    Ok(CommandOutcome::Done)
}

/// Prints the outcome of a conversion.
pub fn say(report: &Converted, context: &Context) {
    if let Some(by) = &report.key {
        context.say(&signed_by(by));
    }
    let (size, time) = (bytes(report.bytes), duration(report.elapsed));
    let from = match report.volumes_read {
        0 => String::new(),
        number => format!("{}, ", count(number as usize, "volume")),
    };
    let what = if report.unchanged { "unchanged, " } else { "" };
    context.say(&format!("{}: {what}{from}{size}, {time}", report.output.display()));
    context.say(&format!("identity {}", report.identity));
}
