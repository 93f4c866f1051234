//! `gapferry join`: the volumes of a set → the bundle.

use crate::app::as_path;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use super::read_back::ReadBackArgs;
use super::render::show_refusal;
use super::signing::{KeyArgs, signed_by};

use crate::app::{JsonReport, REPORT_VERSION, refuse_incomplete};
use crate::base::error::{Error, Result};
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::stream::Compressed;
use crate::bundle::volumes::{self, Opened};
use crate::oci::Digest;
use crate::verify::{self, Depth};

const ABOUT: &str = "\
Puts a bundle together again from all of its volumes, given in any order: a tar, byte for byte the one that was split, or a \
directory. chunks.b3, which volumes do not hold, is made in the same pass.

Every file is proven by its digest while it is copied, and OUT gets its name when all of them are there. `import`, `verify`, \
`list` and `serve` read volumes as they are: nothing needs to be joined for them.

Exit code 3: a volume is missing or damaged, and nothing was written; all that is wrong is named.";

const AFTER: &str = "\
Examples:
  gapferry join /mnt/usb/images.*.tar -o images.tar
  gapferry join disc1/images.001.tar disc2/images.002.tar -o images --key them.pub";

/// Put a bundle together from its volumes
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// All volumes of the set, in any order
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<PathBuf>,
    /// Where the bundle goes: a tar if the name ends in .tar, else a directory
    #[arg(short, long, value_name = "OUT", help_heading = "Output")]
    output: PathBuf,
    /// Print what was written as JSON on standard output
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    read_back: ReadBackArgs,
}

/// What was written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JoinReport {
    version: u32,
    ok: bool,
    /// Where the bundle is.
    #[serde(serialize_with = "as_path")]
    output: PathBuf,
    identity: Digest,
    /// Its size.
    bytes: u64,
    /// How many volumes it was put together from.
    volumes: u32,
    /// The fingerprint of the key whose signature was found good.
    signed_by: Option<Digest>,
}

impl JsonReport for JoinReport {}

/// A name that stands for something else than a tar or a directory would become that of a directory.
///
/// # Errors
/// It is one.
pub fn refuse_stream(output: &Path) -> Result<()> {
    match output == "-" || Compressed::is_meant(output) {
        true => {
            Err(Error::input("this writes files as they are, no stream and nothing compressed: end the name in .tar"))
        }
        false => Ok(()),
    }
}

pub async fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let started = Instant::now();
    refuse_stream(&args.output)?;
    let opened = Opened::open(&args.volumes)?;
    let path = opened.layout().path().to_owned();
    let Some(number) = opened.volumes().map(|volumes| volumes.set.of) else {
        return Err(Error::input(format!("{} is no volume: there is nothing to join", path.display())));
    };
    let nothing = "nothing was written";
    let signed = args.keys.check_layout(opened.layout(), context).map_err(|e| e.while_doing(nothing))?;
    let report = verify::check_proven(&opened, Depth::Structure, signed.as_ref(), &context.events)?;
    context.end();
    let refused = refuse_incomplete(&opened, &report).inspect_err(|error| show_refusal(error, context));
    refused.map_err(|e| e.while_doing(nothing))?;
    let by = signed.as_ref().map(|signed| signed.by.clone());
    let (bundle, _) = opened.into_bundle(signed)?;
    let joined = volumes::join(&bundle, &args.output, &context.events)?;
    args.read_back.prove([args.output.clone()], context).await?;
    context.end();
    if args.json {
        let (output, identity, bytes) = (args.output.clone(), joined.identity, joined.size);
        let (version, ok, signed_by) = (REPORT_VERSION, true, by.map(|by| by.fingerprint()));
        context.print_json(&JoinReport { version, ok, output, identity, bytes, volumes: number, signed_by })?;
        return Ok(Outcome::Done);
    }
    if let Some(by) = &by {
        context.say(&signed_by(by));
    }
    let (size, time) = (bytes(joined.size), duration(started.elapsed()));
    let volumes = count(number as usize, "volume");
    context.say(&format!("{}: {volumes}, {size}, {time}", args.output.display()));
    context.say(&format!("identity {}", joined.identity));
    Ok(Outcome::Done)
}
