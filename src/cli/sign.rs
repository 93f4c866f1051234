//! `gapferry sign`: signs an existing bundle.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::exit::CommandOutcome;
use super::signing::{PassphraseArgs, signed_by};
use crate::app::{self, SignRequest};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::bundle::SignScope;

const ABOUT: &str = "\
Signs an existing bundle, a directory or a tar. Use this command when the private key is kept away from the machine \
that exports; otherwise `export --sign-key` signs right away. Several keys can sign a bundle. A new signature \
replaces only an earlier one by the same key.

The signature covers SHA256SUMS, which lists every file with its digest. Before signing, gapferry compares \
SHA256SUMS with bundle.json and with the sizes of the files. It does not read the files; run `gapferry verify` for \
that. With --full, it verifies every digest first and signs chunks.b3 too. Signing adds signatures and changes \
nothing else, and the identity stays the same. Adding a signature to a tar that has one already copies the tar, \
which needs its size in free space.

The private key is a PEM file, ECDSA P-256 or Ed25519, from openssl or cosign.";

const AFTER: &str = "\
Examples:
  gapferry sign /mnt/usb/images.tar --sign-key our.key
  gapferry sign bundle --sign-key cosign.key --full

Without gapferry, for a directory:
  openssl dgst -sha256 -sign our.key -out SHA256SUMS.sig SHA256SUMS";

/// Sign an existing bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Bundle: directory or tar
    bundle: PathBuf,
    /// Private key
    #[arg(long, value_name = "FILE", required_unless_present = "key")]
    sign_key: Option<PathBuf>,
    /// The earlier name of `--sign-key`; elsewhere `--key` is a public key
    #[arg(long, value_name = "FILE", conflicts_with = "sign_key", hide = true)]
    key: Option<PathBuf>,
    /// Verify every digest first, and sign chunks.b3 too
    ///
    /// `verify --key` can then use BLAKE3 for the blobs, which is several times as fast. A missing or wrong chunks.b3 is
    /// written first.
    #[arg(long)]
    full: bool,
    /// Print what was signed as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let key = args.passphrase.key(args.private_key()?, context)?;
    if args.key.is_some() {
        let text = "sign --key is deprecated: use --sign-key for the private key";
        context.environment.events.report(Event::Warning(text.to_owned()));
    }
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

impl Args {
    fn private_key(&self) -> Result<&Path> {
        let named = self.sign_key.as_deref().or(self.key.as_deref());
        // clap requires one of them.
        named.ok_or_else(|| Error::input("sign needs a private key: --sign-key FILE"))
    }
}
