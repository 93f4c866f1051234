//! Options of every command that connects to a registry.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::arrange::REGISTRY_OPTIONS;
use super::password::{CREDS, from_stdin};
use super::stdin::take_stdin;
use crate::app::{GivenCredentials, RegistryOptions};
use crate::base::error::Result;
use crate::base::progress::units::parse_duration;
use crate::credentials::Credentials;

#[derive(Args, Clone)]
#[command(next_help_heading = REGISTRY_OPTIONS)]
pub struct RegistryArgs {
    /// Credentials file, as skopeo and docker write it
    ///
    /// Default: REGISTRY_AUTH_FILE; otherwise DOCKER_CONFIG/config.json; otherwise $XDG_RUNTIME_DIR/containers/auth.json,
    /// ~/.config/containers/auth.json and ~/.docker/config.json.
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Credentials; asks for PASS if it is left out
    ///
    /// They apply to every registry of this command. Other users of the machine can see them on the command line: prefer to
    /// be asked, or use --creds-stdin, --authfile, `gapferry login` or an environment variable. GAPFERRY_CREDS applies to
    /// every registry, GAPFERRY_CREDS_HOST to one: write HOST in capitals with `_` for `.` and `:` and `__` for `-`
    /// (GAPFERRY_CREDS_MY__HARBOR_EXAMPLE_COM_5000). Precedence: --creds and --creds-stdin, --authfile, the variable of the
    /// registry, GAPFERRY_CREDS, files. Credential helpers do not inherit these variables.
    #[arg(long, value_name = "USER[:PASS]", conflicts_with = "authfile")]
    creds: Option<String>,
    /// Read USER:PASS from standard input
    #[arg(long, conflicts_with_all = ["authfile", "creds"])]
    creds_stdin: bool,
    /// Verify certificates; =false also allows plain HTTP
    ///
    /// Default: what registries.conf says about the registry; otherwise true.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(hide_possible_values = true)]
    tls_verify: Option<bool>,
    /// Also trust the certificate authorities in this PEM file
    ///
    /// Repeatable.
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,
    /// Directory with *.crt (authorities), *.cert and *.key (client)
    ///
    /// Default, for each registry: the directory HOST[:PORT] in ~/.config/containers/certs.d, otherwise
    /// /etc/containers/certs.d, otherwise /etc/docker/certs.d.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    cert_dir: Option<PathBuf>,
    /// Mirrors and blocked registries, as for podman and skopeo
    ///
    /// Mirrors are used for reading: in the order of the file, then the registry itself. Default:
    /// CONTAINERS_REGISTRIES_CONF; otherwise ~/.config/containers/registries.conf; otherwise
    /// /etc/containers/registries.conf; each with the registries.conf.d/*.conf next to it. Short names always follow
    /// Docker; aliases in the file are ignored.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    registries_conf: Option<PathBuf>,
    /// Use plain HTTP; tried automatically for registries on this machine
    #[arg(long, hide_short_help = true)]
    plain_http: bool,
    /// Images and blobs to handle in parallel
    #[arg(short, long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Parallel requests of each kind per registry
    ///
    /// The kinds are reading, uploading, mounting and tagging.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=256))]
    #[arg(hide_short_help = true)]
    per_host: u16,
    /// Retries of a request after a temporary failure [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    #[arg(hide_short_help = true)]
    retries: Option<u32>,
    /// How long to wait for a registry that is down [default: 2m]
    ///
    /// Format: 30s, 2m, 1h. All requests to the registry wait together. The same applies to a token server or blob storage
    /// that the registry needs, and to a registry that fails at one kind of request, for example one that opens uploads but
    /// completes none. When the time is up, the command stops with exit code 5; run it again to continue. Only time without
    /// any success of that kind counts. Waits that the registry asks for (see --max-wait) and slow transfers do not count.
    /// A single upload without an answer fails after about this time without stopping the command; a large one is given
    /// longer. With --retries, the default is the time that those retries take.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, hide_short_help = true)]
    retry_budget: Option<Duration>,
    /// How long to wait for a rate limit
    ///
    /// Format: 90s, 10m, 6h. This is the total time without progress; the slow final pulls under Docker Hub's limit do not
    /// count. If the registry asks for a longer wait, the command stops; run it again to continue. The same limit applies
    /// while Harbor is read-only (pushes only), and for a server that announces when it will be back (503 with
    /// Retry-After); after that, the server counts as down and the exit code is 5.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration, hide_short_help = true)]
    max_wait: Duration,
    /// Fail a connection that moves less than 32 KiB in this time
    ///
    /// A connection that is slower, about 550 bytes per second for each blob, counts as broken and is tried again. On a
    /// slow link, raise this value and lower --jobs.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_stall, hide_short_help = true)]
    stall_timeout: Duration,
    /// Log every request and response, with secrets masked
    ///
    /// One line for each request (>), each response (<), the bytes read of its body (=) and each failure (!). A number in
    /// front shows which lines belong together. With --log-format json each line is an object.
    #[arg(long, hide_short_help = true)]
    log_http: bool,
}

impl RegistryArgs {
    pub fn jobs(&self) -> usize {
        usize::from(self.jobs)
    }

    /// Claims standard input for credentials. Call this before reading files, so that nothing else parses or prints the
    /// credentials.
    ///
    /// # Errors
    /// Standard input is already claimed for another purpose.
    pub fn claim_stdin(&self) -> Result<()> {
        if self.creds_stdin { take_stdin(CREDS) } else { Ok(()) }
    }

    /// Converts the options for the library.
    ///
    /// # Errors
    /// Standard input does not contain credentials, or is already claimed for another purpose.
    pub fn options(&self) -> Result<RegistryOptions> {
        let credentials = match (&self.authfile, &self.creds, self.creds_stdin) {
            (_, _, true) => GivenCredentials::Given(from_stdin()?),
            (Some(path), ..) => GivenCredentials::File(path.clone()),
            (None, Some(text), _) if text.contains(':') => GivenCredentials::Given(Credentials::parse(text)?),
            (None, Some(user), _) if !user.is_empty() => GivenCredentials::User(user.clone()),
            _ => GivenCredentials::LookedUp,
        };
        Ok(RegistryOptions {
            credentials,
            tls_verify: self.tls_verify,
            ca_files: self.ca_file.clone(),
            cert_dir: self.cert_dir.clone(),
            registries_conf: self.registries_conf.clone(),
            plain_http: self.plain_http,
            jobs: self.jobs(),
            per_host: usize::from(self.per_host),
            retries: self.retries,
            retry_budget: self.retry_budget,
            max_wait: self.max_wait,
            stall_timeout: self.stall_timeout,
            log_http: self.log_http,
        })
    }

    /// The credentials file from the command line.
    pub fn authfile(&self) -> Option<PathBuf> {
        self.authfile.clone()
    }
}

fn parse_stall(text: &str) -> Result<Duration, String> {
    parse_duration(text).and_then(|time| if time.is_zero() { Err("at least 1s".to_owned()) } else { Ok(time) })
}
