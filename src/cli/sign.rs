//! `gapferry sign`: a signature for a bundle that is there.

use std::path::PathBuf;

use super::context::Context;
use super::exit::Outcome;
use super::signing::{PassphraseArgs, signed_by};
use crate::base::error::Result;
use crate::bundle;

const ABOUT: &str = "\
Signs a bundle, a directory or a tar, in place of any signature it has: for a key that is not where bundles are exported. \
`export --sign-key` signs at once.

What is signed is SHA256SUMS, which names every file with its sha256. It is checked against bundle.json and the sizes of the \
files before; what they hold is for `gapferry verify` to say. Nothing but the signature changes, nor does the identity. A tar \
that has no signature yet is copied, which takes its room once more until it is done.

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
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub fn run(args: &Args, context: &Context) -> Result<Outcome> {
    let key = args.passphrase.key(&args.key, context)?;
    let identity = bundle::sign(&args.bundle, &key)?;
    context.say(&format!("{}: {}", args.bundle.display(), signed_by(key.public())));
    context.say(&format!("identity {identity}"));
    Ok(Outcome::Done)
}
