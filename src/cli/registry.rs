//! Options about registries, the same for every command that speaks to one.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::password::{CREDS, from_stdin};
use super::stdin::take_stdin;
use crate::app::{GivenCredentials, RegistryOptions};
use crate::base::error::Result;
use crate::base::progress::units::parse_duration;
use crate::credentials::Credentials;

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
    /// the question, --creds-stdin, --authfile, `gapferry login`, or a variable: GAPFERRY_CREDS for every registry,
    /// GAPFERRY_CREDS_HOST for one, HOST in capitals with `_` for `.` and `:` and `__` for `-`
    /// (GAPFERRY_CREDS_MY__HARBOR_EXAMPLE_COM_5000). --creds and --creds-stdin count most, then the variable of the
    /// registry, then GAPFERRY_CREDS, then files; --authfile counts more than variables. Credential helpers do not inherit these
    /// variables.
    #[arg(long, value_name = "USER[:PASS]", conflicts_with = "authfile")]
    creds: Option<String>,
    /// Read credentials for the registries, USER:PASS, from standard input
    #[arg(long, conflicts_with_all = ["authfile", "creds"])]
    creds_stdin: bool,
    /// Check certificates; =false allows plain HTTP as well
    ///
    /// Default: what registries.conf says of the registry, else true.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(hide_possible_values = true)]
    tls_verify: Option<bool>,
    /// PEM file of a certificate authority to trust as well; repeatable
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,
    /// Directory of certificates for the registries: *.crt (authorities), *.cert with *.key (ours)
    ///
    /// Default, for each registry: the directory HOST[:PORT] in ~/.config/containers/certs.d, else /etc/containers/certs.d,
    /// else /etc/docker/certs.d.
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    cert_dir: Option<PathBuf>,
    /// Mirrors, moved and blocked registries, in a file as podman and skopeo read it
    ///
    /// Mirrors are for reading: the one that comes first is asked first, the registry itself last. Default:
    /// CONTAINERS_REGISTRIES_CONF, else ~/.config/containers/registries.conf, else /etc/containers/registries.conf, with the
    /// registries.conf.d/*.conf beside them. Short names mean what they mean to Docker, whatever the file says of them.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    registries_conf: Option<PathBuf>,
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
    /// Further tries of a request after a failure that may pass [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    #[arg(hide_short_help = true)]
    retries: Option<u32>,
    /// How long to wait for a registry that has stopped answering, such as 30s, 2m or 1h
    ///
    /// All requests to it wait together; the same holds for a token server or a blob storage that it needs, and for a registry
    /// that fails at one kind of request: it gives no blob, say, or opens uploads and completes none. Then the command gives up
    /// and ends with exit code 5; what is done is kept, and the same command continues. Time counts only while nothing of that
    /// kind succeeds; waits that the registry asks for (see --max-wait) and transfers that are slow but moving do not count.
    /// A single upload that gets no answer fails after about this time without ending the command; a large one gets longer.
    /// Default: 2m; with --retries, the time that these take.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, hide_short_help = true)]
    retry_budget: Option<Duration>,
    /// How long to wait when a registry's limit is reached, such as 90s, 10m or 6h
    ///
    /// The total time without progress; the slow last pulls of Docker Hub's limit do not count. If the registry wants more
    /// patience the command stops, what is done is kept, and the same command continues. A push also waits this long for
    /// Harbor's read-only mode to end, and every command for a server that announces when it will be back (503 with
    /// Retry-After); after that, such a server counts as down, and the exit code is 5.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration, hide_short_help = true)]
    max_wait: Duration,
    /// How long an answer, or 32 KiB of a body, may take in either direction
    ///
    /// A line slower than that, about 550 bytes a second for each blob, is taken for broken and tried again. Raise it, and
    /// lower --jobs, for a line that is honestly so slow.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_stall, hide_short_help = true)]
    stall_timeout: Duration,
    /// Show every request and answer, secrets masked
    ///
    /// A line for each request (>), each answer (<), the bytes read of its body (=), and each failure (!); the number in front
    /// says which belong together. With --log-format json they are objects.
    #[arg(long, hide_short_help = true)]
    log_http: bool,
}

impl RegistryArgs {
    pub fn jobs(&self) -> usize {
        usize::from(self.jobs)
    }

    /// To be called before files are read: what is meant to be credentials is parsed, and shown, as nothing else.
    ///
    /// # Errors
    /// Standard input is something else already.
    pub fn claim_stdin(&self) -> Result<()> {
        if self.creds_stdin { take_stdin(CREDS) } else { Ok(()) }
    }

    /// What these options mean.
    ///
    /// # Errors
    /// Standard input holds no credentials, or is something else already.
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

    /// The file of credentials that the command line names.
    pub fn authfile(&self) -> Option<PathBuf> {
        self.authfile.clone()
    }
}

fn parse_stall(text: &str) -> Result<Duration, String> {
    parse_duration(text).and_then(|time| if time.is_zero() { Err("at least 1s".to_owned()) } else { Ok(time) })
}
