//! Options that name keys: a private key to sign with, and the public keys to accept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::allowlist::read_bounded;
use super::context::Context;
use super::password;
pub use crate::app::public_key as public;
use crate::app::{Text, Trust, demand};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::credentials::Secret;
use crate::signing::{MAX_KEY_FILE, PrivateKey, PublicKey};

/// The variable in which users of cosign keep their passphrase.
const PASSPHRASE: &str = "COSIGN_PASSWORD";
const PASSPHRASE_FILE: &str = "--sign-passphrase-file";

/// How to sign the output.
#[derive(clap::Args)]
pub struct SignArgs {
    /// Sign the output with this private key
    ///
    /// A PEM file with an ECDSA P-256 or Ed25519 key from openssl or cosign. Commands that write a bundle sign the bundle;
    /// `import` signs the receipt, and `inventory` the inventory, in FILE.sig. `gapferry guide signatures` shows how to verify with openssl and
    /// cosign.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    sign_key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(clap::Args)]
pub struct PassphraseArgs {
    /// File that contains the passphrase of the private key
    ///
    /// Without it, gapferry uses COSIGN_PASSWORD, or asks.
    #[arg(long, value_name = "FILE", help_heading = "Output", hide_short_help = true)]
    sign_passphrase_file: Option<PathBuf>,
}

impl SignArgs {
    /// Returns the key, if one is named. Call this before anything that takes time, because it may ask for a passphrase.
    pub fn key(&self, context: &Context) -> Result<Option<Arc<PrivateKey>>> {
        let Some(path) = &self.sign_key else {
            let text = "--sign-passphrase-file is of no use without --sign-key";
            return self.passphrase.sign_passphrase_file.as_ref().map_or(Ok(None), |_| Err(Error::input(text)));
        };
        self.passphrase.key(path, context).map(|key| Some(Arc::new(key)))
    }
}

impl PassphraseArgs {
    /// Reads a private key, and its passphrase if it is encrypted.
    ///
    /// # Errors
    /// The file is not a usable private key, or the passphrase is wrong.
    pub fn key(&self, path: &Path, context: &Context) -> Result<PrivateKey> {
        let Text { name, bytes } = read_bounded(path, MAX_KEY_FILE + 1)?;
        let key = PrivateKey::parse(&bytes, &name, &|| self.passphrase(&name, context))?;
        warn_if_open(path, context);
        Ok(key)
    }

    fn passphrase(&self, key: &str, context: &Context) -> Result<Secret> {
        if let Some(path) = &self.sign_passphrase_file {
            let Text { name, bytes } = read_bounded(path, MAX_KEY_FILE + 1)?;
            warn_if_open(path, context);
            let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_KEY_FILE);
            let text = text.ok_or_else(|| Error::input(format!("reading the passphrase in {name}: it is not text")))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            return Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)));
        }
        // An empty passphrase is valid: cosign creates such keys.
        if let Some(passphrase) = context.environment.variable(PASSPHRASE) {
            return Ok(Secret::new(passphrase));
        }
        let instead = format!("give it by {PASSPHRASE_FILE} FILE or {PASSPHRASE}");
        context.end();
        password::ask_password(&format!("the key {key}"), &format!("the key {key} has a passphrase"), &instead)
            .map(Secret::new)
    }
}

/// Warns about a private key that other users can read.
fn warn_if_open(path: &Path, context: &Context) {
    use std::os::unix::fs::MetadataExt;
    if path.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o077 != 0) {
        let text = format!("other users can read {0}: run `chmod 600 {0}`", path.display());
        context.environment.events.report(Event::Warning(text));
    }
}

/// The public keys to accept.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// Require a signature by this public key; repeatable
    ///
    /// One matching key is enough. A PEM file as openssl and cosign write it. A configuration file can require signatures
    /// for every run; see `gapferry help`.
    #[arg(long = "key", value_name = "FILE", help_heading = "Checks")]
    keys: Vec<PathBuf>,
}

impl KeyArgs {
    /// Returns the accepted keys.
    ///
    /// # Errors
    /// A key or the configuration cannot be read.
    pub fn trust(&self, context: &Context) -> Result<Trust> {
        Trust::load(&self.keys, &context.environment)
    }

    /// Rejects `--writable` if signatures are required: a directory that changes cannot be signed.
    ///
    /// # Errors
    /// Signatures are required.
    pub fn refuse_writable(&self, context: &Context) -> Result<()> {
        let Some(by) = demand(&self.keys, &context.environment)? else { return Ok(()) };
        Err(Error::input(format!("{by} demands a signature, and what takes pushes has none: leave out --writable")))
    }
}

/// The line that names the signer.
pub fn signed_by(key: &PublicKey) -> String {
    format!("signed by {key}")
}
