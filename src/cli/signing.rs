//! Keys of the command line: one that signs, and those that are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::allowlist::read_bounded;
use super::context::{Context, env};
use super::password;
use crate::bundle::{self, Finished, Signed};
use crate::credentials::Secret;
use crate::error::{Error, Result};
use crate::progress::Event;
use crate::signing::{MAX_KEY_FILE, PrivateKey, PublicKey};
use crate::transport::layout::Layout;

/// Where cosign's users keep the passphrase of their key.
const PASSPHRASE: &str = "COSIGN_PASSWORD";
const PASSPHRASE_FILE: &str = "--sign-passphrase-file";

/// How what is written is signed.
#[derive(clap::Args)]
pub struct SignArgs {
    /// Sign it with this private key of openssl or cosign
    ///
    /// PEM, ECDSA P-256 or Ed25519; `gapferry help verify` shows how openssl and cosign verify it.
    #[arg(long, value_name = "FILE", help_heading = "Signing")]
    sign_key: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(clap::Args)]
pub struct PassphraseArgs {
    /// File with the passphrase of a key that cosign encrypted
    ///
    /// Without it COSIGN_PASSWORD counts; else it is asked for.
    #[arg(long, value_name = "FILE", help_heading = "Signing")]
    sign_passphrase_file: Option<PathBuf>,
}

impl SignArgs {
    /// The key, if one was named. To be asked before anything that takes time: there may be a passphrase to type.
    pub fn key(&self, context: &Context) -> Result<Option<Arc<PrivateKey>>> {
        let Some(path) = &self.sign_key else {
            let text = "--sign-passphrase-file is of no use without --sign-key";
            return self.passphrase.sign_passphrase_file.as_ref().map_or(Ok(None), |_| Err(Error::input(text)));
        };
        self.passphrase.key(path, context).map(|key| Some(Arc::new(key)))
    }
}

impl PassphraseArgs {
    /// Reads a private key, and its passphrase if it has one.
    ///
    /// # Errors
    /// It is none, or none that can be used; the passphrase is wrong.
    pub fn key(&self, path: &Path, context: &Context) -> Result<PrivateKey> {
        let (name, bytes) = read_bounded(path, MAX_KEY_FILE + 1)?;
        warn_if_open(path, context);
        PrivateKey::parse(&bytes, &name, &|| self.passphrase(&name, context))
    }

    fn passphrase(&self, key: &str, context: &Context) -> Result<Secret> {
        if let Some(path) = &self.sign_passphrase_file {
            let (name, bytes) = read_bounded(path, MAX_KEY_FILE + 1)?;
            warn_if_open(path, context);
            let text = String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_KEY_FILE);
            let text = text.ok_or_else(|| Error::input(format!("reading the passphrase in {name}: it is no text")))?;
            let line = text.strip_suffix('\n').unwrap_or(&text);
            return Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)));
        }
        // Empty counts: cosign makes such keys.
        if let Some(passphrase) = env(PASSPHRASE) {
            return Ok(Secret::new(passphrase));
        }
        let instead = format!("give it by {PASSPHRASE_FILE} FILE or {PASSPHRASE}");
        context.end();
        password::ask_password(&format!("the key {key}"), &format!("the key {key} has a passphrase"), &instead)
            .map(Secret::new)
    }
}

/// Others could sign in its owner's name.
fn warn_if_open(path: &Path, context: &Context) {
    use std::os::unix::fs::MetadataExt;
    if path.metadata().is_ok_and(|file| file.is_file() && file.mode() & 0o077 != 0) {
        let text = format!("{} can be read by other users; `chmod 600` keeps it to you", path.display());
        context.events.report(Event::Warning(text));
    }
}

/// A bundle that was already what was wanted gets the signature that it lacks; then it is told who signed.
pub fn settle(finished: &Finished, key: Option<&PrivateKey>, context: &Context) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    let has_it = || bundle::check_signature(&Layout::open(&finished.path)?, std::slice::from_ref(key.public()));
    if finished.unchanged && has_it().is_err() {
        bundle::sign(&finished.path, key)?;
    }
    context.say(&signed_by(key.public()));
    Ok(())
}

/// Whose signatures are believed.
#[derive(clap::Args)]
pub struct KeyArgs {
    /// Refuse a bundle that this public key has not signed
    ///
    /// Repeatable: one of them has to have. PEM, as openssl and cosign write it.
    #[arg(long = "key", value_name = "FILE", help_heading = "What may enter")]
    keys: Vec<PathBuf>,
}

impl KeyArgs {
    /// Checks the signature before anything else of the bundle is believed. Without keys, that there is one is told.
    ///
    /// # Errors
    /// A key that cannot be read; a bundle that none of them signed.
    pub fn check(&self, path: &Path, context: &Context) -> Result<Option<Signed>> {
        let keys = self.keys.iter().map(|key| public(key)).collect::<Result<Vec<PublicKey>>>()?;
        crate::bundle::refuse_unfinished(path)?;
        let layout = Layout::open(path)?;
        if keys.is_empty() {
            if layout.size_of(bundle::SIGNATURE).is_some() {
                let text = format!("{} is signed; without --key that is not checked", path.display());
                context.events.report(Event::Notice(text));
            }
            return Ok(None);
        }
        bundle::check_signature(&layout, &keys).map(Some)
    }
}

fn public(path: &Path) -> Result<PublicKey> {
    let (name, bytes) = read_bounded(path, MAX_KEY_FILE + 1)?;
    PublicKey::parse(&bytes, &name)
}

/// As it is told.
pub fn signed_by(key: &PublicKey) -> String {
    format!("signed by {} ({})", key.fingerprint(), key.algorithm())
}
