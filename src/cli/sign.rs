//! `gapferry sign`: a signature for a bundle that is there.

use std::path::PathBuf;

use super::context::Context;
use super::exit::CommandOutcome;
use super::signing::{PassphraseArgs, signed_by};
use crate::app::{self, SignRequest};
use crate::base::error::Result;
use crate::bundle::SignScope;

const ABOUT: &str = "\
Signs a bundle, a directory or a tar: for a key that is not where bundles are exported. `export --sign-key` signs at once. \
Several keys may sign: a signature replaces that of the same key, and no other.

What is signed is SHA256SUMS, which names every file with its digest. It is checked against bundle.json and the sizes of the \
files before; what they hold is for `gapferry verify` to say. With --full every digest is proven first, and chunks.b3 is signed \
too. Nothing but signatures changes, nor does the identity. A tar that gets a further signature is copied, which takes its room \
once more until it is done.

The private key is PEM: ECDSA P-256 or Ed25519, of openssl or cosign.";

const AFTER: &str = "\
Examples:
  gapferry sign /mnt/usb/images.tar --key ours.pem
  gapferry sign bundle --key cosign.key --sign-passphrase-file passphrase

The same without gapferry, for a directory:
  openssl dgst -sha256 -sign ours.pem -out SHA256SUMS.sig SHA256SUMS";

/// Sign a bundle that is there
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// The bundle, a directory or a tar
    bundle: PathBuf,
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sign chunks.b3 too, after proving the digest of every file
    ///
    /// So `verify --key` may prove blobs by BLAKE3, which takes a fraction of the time. A chunks.b3 that is missing or wrong is
    /// written first.
    #[arg(long)]
    full: bool,
    /// Print what was signed as JSON on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let key = args.passphrase.key(&args.key, context)?;
    let scope = if args.full { SignScope::Full } else { SignScope::Sums };
    let report = app::sign(SignRequest { bundle: args.bundle.clone(), key, scope }, &context.environment)?;
    context.end();
    if args.json {
        context.print_json(&report)?;
    }
    context.say(&format!("{}: {}", report.bundle.display(), signed_by(&report.key)));
    context.say(&format!("identity {}", report.identity));
    Ok(CommandOutcome::Done)
}
