//! Options about registries, the same for every command that speaks to one.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::context::{Context, env};
use crate::allowlist::RegistrySettings;
use crate::credentials::{Credentials, Store};
use crate::error::{Error, Kind, Result};
use crate::transport::registry::{Config, Registries, RegistryConfig, TlsConfig};

#[derive(Args, Clone)]
#[command(next_help_heading = "Registry options")]
pub struct RegistryArgs {
    /// Credentials, in a file as skopeo and docker write it
    ///
    /// Default: REGISTRY_AUTH_FILE, else DOCKER_CONFIG/config.json, else $XDG_RUNTIME_DIR/containers/auth.json,
    /// ~/.config/containers/auth.json and ~/.docker/config.json.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Credentials for the registries; PASS is asked for if left out
    ///
    /// They count for every registry of this command. On the command line other users of this machine can see them: prefer
    /// the question, the variable GAPFERRY_CREDS, or --authfile.
    #[arg(long, value_name = "USER[:PASS]", conflicts_with = "authfile")]
    creds: Option<String>,
    /// Check certificates; =false allows plain HTTP as well
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(default_missing_value = "true", require_equals = true, hide_possible_values = true)]
    tls_verify: bool,
    /// PEM file of a certificate authority to trust as well; repeatable
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,
    /// Speak plain HTTP; registries on this machine are tried that way anyway
    #[arg(long, hide_short_help = true)]
    plain_http: bool,
    /// Images and blobs handled at once
    #[arg(short, long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Requests to one registry at the same time, of each kind: reading, uploading, mounting and tagging
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(hide_short_help = true)]
    per_host: u16,
    /// Further tries after a failure that may pass
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    #[arg(hide_short_help = true)]
    retries: u32,
    /// Seconds to wait at most in all when a registry asks for patience
    #[arg(long, value_name = "SECONDS", default_value_t = 600, hide_short_help = true)]
    max_wait: u64,
}

impl RegistryArgs {
    pub fn jobs(&self) -> usize {
        usize::from(self.jobs)
    }

    /// What the command line says counts more than the environment.
    fn creds(&self) -> Option<String> {
        let ambient = || if self.authfile.is_none() { env("GAPFERRY_CREDS") } else { None };
        self.creds.clone().or_else(ambient).filter(|text| !text.is_empty())
    }

    /// The client for `registries`, to each of which `--creds` applies, with what an allowlist says of them.
    pub fn connect(
        &self,
        registries: impl IntoIterator<Item = String>,
        settings: &BTreeMap<String, RegistrySettings>,
        context: &Context,
    ) -> Result<Registries> {
        let mut store = Store::load(self.authfile.as_deref(), &env)?;
        if let Some(text) = self.creds() {
            let credentials = explicit(&text)?;
            for registry in registries {
                store.set(&registry, credentials.clone());
            }
        }
        let config = Config {
            credentials: store,
            tls: TlsConfig { verify: self.tls_verify, ca_files: self.ca_file.clone() },
            plain_http: self.plain_http,
            per_registry: settings.iter().map(|(name, own)| (name.clone(), per_registry(own))).collect(),
            per_host: usize::from(self.per_host),
            retries: self.retries,
            max_wait: Duration::from_secs(self.max_wait),
            ..Config::default()
        };
        Registries::new(config, context.events.clone())
    }
}

fn per_registry(settings: &RegistrySettings) -> RegistryConfig {
    RegistryConfig {
        tls_verify: settings.tls_verify,
        ca_files: Vec::new(),
        cert_dir: settings.cert_dir.clone(),
        credentials: settings.credentials.clone(),
    }
}

/// `USER:PASSWORD`, or `USER` and a question.
fn explicit(text: &str) -> Result<Credentials> {
    if text.contains(':') {
        return Credentials::parse(text);
    }
    let password = ask_password(text)?;
    Ok(Credentials::basic(text, password))
}

/// How the terminal was before a question without echo, while it is asked.
static ASKING: Mutex<Option<Termios>> = Mutex::new(None);

/// Echo comes back if the program is stopped while it asks for a password.
pub fn restore_terminal() {
    if let Some(former) = ASKING.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // It fails if the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &former);
    }
}

/// Asks on the terminal, without echo.
fn ask_password(user: &str) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = "--creds names no password, and there is no terminal to ask on: write --creds USER:PASSWORD";
        return Err(Error::input(text));
    }
    let fail = |e: std::io::Error| Error::new(Kind::Input, "asking for the password").because(e);
    let former = tcgetattr(&stdin).map_err(|e| fail(e.into()))?;
    let mut hidden = former.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    *ASKING.lock().unwrap_or_else(PoisonError::into_inner) = Some(former);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| fail(e.into()))?;
    let _ = write!(std::io::stderr(), "Password of {user}: ");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    restore_terminal();
    let _ = writeln!(std::io::stderr());
    read.map_err(fail)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
