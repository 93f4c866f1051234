//! Options about registries, the same for every command that speaks to one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::context::{Context, env};
use crate::allowlist::RegistrySettings;
use crate::credentials::{Credentials, Store};
use crate::error::{Error, Kind, Result};
use crate::transport::registry::{Config, Registries, RegistryConfig, TlsConfig};

#[derive(Args, Clone)]
#[command(next_help_heading = "Registry options")]
pub struct RegistryArgs {
    /// File with credentials, as skopeo, podman and docker write it
    ///
    /// Default: REGISTRY_AUTH_FILE, else DOCKER_CONFIG/config.json, else $XDG_RUNTIME_DIR/containers/auth.json,
    /// ~/.config/containers/auth.json and ~/.docker/config.json.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Credentials for every registry of this command; without a password it is asked for
    #[arg(long, value_name = "USER[:PASSWORD]", conflicts_with = "authfile", hide_env_values = true)]
    #[arg(env = "GAPFERRY_CREDS")]
    creds: Option<String>,
    /// Check certificates; false also allows plain HTTP
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1)]
    #[arg(default_missing_value = "true", require_equals = true)]
    tls_verify: bool,
    /// PEM file of a certificate authority to trust beside the system's; repeatable
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,
    /// Speak plain HTTP; registries on this machine are tried that way anyway
    #[arg(long)]
    plain_http: bool,
    /// Images and blobs handled at the same time
    #[arg(short, long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Requests to one registry at the same time
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    per_host: u16,
    /// Further tries after a failure that may pass
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    retries: u32,
    /// Seconds to wait at most in all when a registry asks for patience
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    max_wait: u64,
}

impl RegistryArgs {
    pub fn jobs(&self) -> usize {
        usize::from(self.jobs)
    }

    /// The client for `registries`, to each of which `--creds` applies, with what an allowlist says of them.
    pub fn connect(
        &self,
        registries: impl IntoIterator<Item = String>,
        settings: &BTreeMap<String, RegistrySettings>,
        context: &Context,
    ) -> Result<Registries> {
        let mut store = Store::load(self.authfile.as_deref(), &env)?;
        if let Some(text) = &self.creds {
            let credentials = explicit(text)?;
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

/// Asks on the terminal, without echo.
fn ask_password(user: &str) -> Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    use std::io::{BufRead, IsTerminal, Write};
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let text = "--creds names no password, and there is no terminal to ask on: write --creds USER:PASSWORD";
        return Err(Error::input(text));
    }
    let fail = |e: std::io::Error| Error::new(Kind::Input, "asking for the password").because(e);
    let former = tcgetattr(&stdin).map_err(|e| fail(e.into()))?;
    let mut hidden = former.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| fail(e.into()))?;
    let _ = write!(std::io::stderr(), "Password of {user}: ");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &former);
    let _ = writeln!(std::io::stderr());
    read.map_err(fail)?;
    restored.map_err(|e| fail(e.into()))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
