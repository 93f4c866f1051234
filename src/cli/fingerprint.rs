//! `gapferry fingerprint`: prints the identity of a bundle as words.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::app::{self, FingerprintRequest};
use crate::base::error::Result;

const ABOUT: &str = "\
Prints the identity of a bundle as eight words and six digits that two people can compare over the phone.

If both fingerprints are equal, both sides have the same bundle.json and therefore the same digest of every file. A \
fingerprint compares 84 bits, too many for anyone to find a second bundle that matches. It does not prove \
that the files are intact: run `gapferry verify` on the receiving side. It does not show who the caller is.";

const AFTER: &str = "\
Examples:
  gapferry fingerprint /mnt/usb/images.tar
  gapferry fingerprint bundle --json | jq -r .fingerprint";

/// Print the identity of a bundle as words to read aloud
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle: directory, tar, or any volume of a set
    bundle: PathBuf,
    /// Print the fingerprint and the identity as JSON
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
