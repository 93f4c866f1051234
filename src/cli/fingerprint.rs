//! `gapferry fingerprint`: which bundle it is, to be said aloud.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::app::{self, FingerprintRequest};
use crate::base::error::Result;

const ABOUT: &str = "\
Prints the identity of a bundle as eight words and six digits, for two people who compare them over the phone.

If both hear the same, both have the same bundle.json, and so the same digest of every file: 84 bits of it are compared, more \
than anybody can find another bundle for. That the files are what bundle.json says is for `gapferry verify` to prove; run it \
on the side that received the bundle. Who is on the phone you have to know yourself.";

const AFTER: &str = "\
Examples:
  gapferry fingerprint /mnt/usb/images.tar
  gapferry fingerprint bundle --json | jq -r .fingerprint";

/// Print which bundle it is, in words to compare over the phone
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle, a directory or a tar; of one that was split any volume will do
    bundle: PathBuf,
    /// Print it as JSON, with the whole identity
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let report = app::fingerprint(FingerprintRequest { bundle: args.bundle.clone() })?;
    match args.json {
        true => context.print_json(&report)?,
        false => context.print(&format!("{}\n", report.fingerprint))?,
    }
    Ok(CommandOutcome::Done)
}
