//! `gapferry fingerprint`: which bundle it is, to be said aloud.

use crate::app::as_path;
use std::path::PathBuf;

use serde::Serialize;

use super::context::Context;
use super::exit::Outcome;
use crate::app::{JsonReport, REPORT_VERSION};
use crate::base::error::Result;
use crate::bundle::Bundle;
use crate::oci::Digest;
use crate::signing::FingerprintWords;

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

/// Which bundle it is.
#[derive(Serialize)]
struct FingerprintReport {
    version: u32,
    ok: bool,
    /// Where it is, as it was named.
    #[serde(serialize_with = "as_path")]
    bundle: PathBuf,
    identity: Digest,
    /// The words and digits as one text.
    fingerprint: String,
    /// Eight words.
    words: [&'static str; 8],
    /// Six digits.
    digits: String,
}

impl JsonReport for FingerprintReport {}

pub fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let identity = Bundle::open_any(std::slice::from_ref(&args.bundle))?.identity();
    let in_words = FingerprintWords::of(&identity);
    if args.json {
        let (bundle, fingerprint, FingerprintWords { words, digits }) =
            (args.bundle.clone(), in_words.to_string(), in_words);
        let (version, ok) = (REPORT_VERSION, true);
        context.print_json(&FingerprintReport { version, ok, bundle, identity, fingerprint, words, digits })?;
        return Ok(Outcome::Done);
    }
    context.print(&format!("{in_words}\n"))?;
    Ok(Outcome::Done)
}
