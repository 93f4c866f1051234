//! What the command line and files say about registries, as one value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use reqwest::Url;

use super::proxy::Proxies;
use super::tls::{self, TlsSettings};
use crate::base::error::Result;
use crate::credentials::{Credentials, Store};
use crate::oci::Repository;
use crate::routes::Routes;

/// How to connect to registries.
#[derive(Clone, Debug)]
pub struct Config {
    pub credentials: Store,
    pub tls: TlsConfig,
    pub proxies: Proxies,
    /// Mirrors, moved and blocked registries.
    pub routes: Routes,
    /// Plain HTTP for every registry. Hosts of this machine are tried with plain HTTP anyway.
    pub plain_http: bool,
    /// By `host[:port]`, as in references.
    pub per_registry: BTreeMap<String, RegistryConfig>,
    /// Parallel requests to a registry; downloads and uploads are counted separately.
    pub per_host: usize,
    /// Retries after a temporary failure.
    pub retries: u32,
    /// How long a registry that has answered before may stay without a successful response before it is given up for the rest
    /// of the run. `None` for as long as the retries of one request take.
    pub retry_budget: Option<Duration>,
    /// How long a request may wait in total because the registry asked for it (Retry-After). The waits between the last pulls
    /// of a limit are each bounded by it, and not added up.
    pub max_wait: Duration,
    /// How long a response may take, and how long 32 KiB of a body may take in either direction.
    pub stall_timeout: Duration,
    /// How long a registry may take to store an upload after its last byte: an object store may copy it first.
    pub commit_timeout: Duration,
    /// Blobs of at least this many bytes are uploaded so that an interrupted upload can continue, at the cost of one more
    /// request.
    pub large_blob: u64,
    pub connect_timeout: Duration,
    /// Before the first retry; doubles from there, up to 30 s.
    pub first_delay: Duration,
    pub user_agent: String,
    /// Whether to report every exchange, with secrets masked.
    pub log_http: bool,
}

/// Which certificates to trust.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// `false` accepts any certificate, and plain HTTP if there is no TLS (as skopeo does). `None` means what the routes say
    /// about a registry, otherwise `true`.
    pub verify: Option<bool>,
    /// PEM files with authorities to trust in addition to those of the system.
    pub ca_files: Vec<PathBuf>,
    /// A directory in the form of `certs.d/<host>`, for every registry and instead of `certs_d`; for servers that registries
    /// redirect to, `certs_d` comes first.
    pub cert_dir: Option<PathBuf>,
    /// Where to look for directories named `host[:port]`; the first that has one for a registry applies.
    pub certs_d: Vec<PathBuf>,
}

/// Settings for a single registry.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    pub tls_verify: Option<bool>,
    pub ca_files: Vec<PathBuf>,
    /// A directory in the form of `certs.d/<host>`: `*.crt` authorities, `x.cert` and `x.key` of the client.
    pub cert_dir: Option<PathBuf>,
    pub credentials: Option<Credentials>,
}

impl TlsConfig {
    /// The directories of containers/image `docker/docker_client.go` (`perHostCertDirs`), for `certs_d`.
    pub fn default_certs_d(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
        let home = env("HOME").filter(|home| !home.is_empty());
        let own = home.map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
        own.into_iter().chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            credentials: Store::anonymous(),
            tls: TlsConfig::default(),
            proxies: Proxies::default(),
            routes: Routes::default(),
            plain_http: false,
            per_registry: BTreeMap::new(),
            per_host: 6,
            retries: 5,
            retry_budget: None,
            max_wait: Duration::from_secs(10 * 60),
            stall_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(15 * 60),
            large_blob: 32 * 1024 * 1024,
            connect_timeout: Duration::from_secs(15),
            first_delay: Duration::from_millis(500),
            user_agent: concat!("gapferry/", env!("CARGO_PKG_VERSION")).to_owned(),
            log_http: false,
        }
    }
}

impl Config {
    /// Reads every certificate file that was named once, so that a wrong one is reported before the first request.
    pub(super) fn check(&self) -> Result<()> {
        tls::client_config(&self.tls_named(None, false))?;
        self.per_registry
            .values()
            .try_for_each(|registry| tls::client_config(&self.tls_named(Some(registry), false)).map(drop))
    }

    /// The settings for requests on behalf of `registry`, which the routes may call `insecure`.
    ///
    /// Token servers and storage servers are trusted according to the settings of their own host; without any, like the
    /// registry that redirected to them. Our certificate is only for the registry, unless one was configured for that host.
    pub(super) fn tls_for(&self, registry: &str, insecure: bool, url: &Url) -> TlsSettings {
        let names = names(url);
        if names.iter().any(|name| name.eq_ignore_ascii_case(registry)) {
            return self.tls_of(registry, insecure);
        }
        match names.iter().find(|name| self.per_registry.contains_key(*name) || self.in_certs_d(name).is_some()) {
            Some(known) => {
                let settings = self.tls_of(known, false);
                let named_for_all = settings.cert_dir.is_some() && settings.cert_dir == self.tls.cert_dir;
                match self.in_certs_d(known).filter(|_| named_for_all) {
                    Some(own) => TlsSettings { cert_dir: Some(own), ..settings },
                    None => TlsSettings { identify: !named_for_all, ..settings },
                }
            }
            None => TlsSettings { identify: false, ..self.tls_of(registry, insecure) },
        }
    }

    /// Whether `registry` may be used without verifying its identity, depending on whether the routes call it `insecure`.
    pub(super) fn is_lax(&self, registry: &str, insecure: bool) -> bool {
        !self.tls_named(self.per_registry.get(registry), insecure).verify
    }

    fn tls_of(&self, registry: &str, insecure: bool) -> TlsSettings {
        let mut settings = self.tls_named(self.per_registry.get(registry), insecure);
        if settings.cert_dir.is_none() {
            settings.cert_dir = self.in_certs_d(registry);
        }
        settings
    }

    /// The first directory with that name; an inaccessible one is skipped, as in containers/image.
    fn in_certs_d(&self, registry: &str) -> Option<PathBuf> {
        // A server may redirect to any host: `..` is not the name of a directory of ours.
        Repository::new(registry, "any").ok()?;
        let directories = self.tls.certs_d.iter().map(|place| place.join(registry));
        directories.into_iter().find(|directory| std::fs::read_dir(directory).is_ok())
    }

    /// The credentials for one registry. Those given for every registry of a command are not for the `mirror` of another one;
    /// those given for the mirror by name are.
    pub(super) fn store_for(&self, registry: &str, mirror: bool) -> Store {
        let mut store = if mirror { self.credentials.looked_up() } else { self.credentials.clone() };
        if let Some(credentials) = self.per_registry.get(registry).and_then(|own| own.credentials.clone()) {
            store.set(registry, credentials);
        }
        store
    }

    /// What was configured by name, whatever is in `certs_d`.
    fn tls_named(&self, registry: Option<&RegistryConfig>, insecure: bool) -> TlsSettings {
        let own = registry.cloned().unwrap_or_default();
        TlsSettings {
            verify: own.tls_verify.or(self.tls.verify).unwrap_or(!insecure),
            ca_files: self.tls.ca_files.iter().cloned().chain(own.ca_files).collect(),
            cert_dir: own.cert_dir.or_else(|| self.tls.cert_dir.clone()),
            identify: true,
        }
    }
}

/// `host:port`, and `host` alone if the port is the default of the scheme: how a reference may name this server.
fn names(url: &Url) -> Vec<String> {
    let Some(host) = url.host_str() else { return Vec::new() };
    let host = if host == "registry-1.docker.io" { "docker.io" } else { host };
    let with_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    let bare = url.port().is_none().then(|| host.to_owned());
    with_port.into_iter().chain(bare).collect()
}

/// Retries of a mirror after a temporary failure; another place can be asked instead.
const MIRROR_RETRIES: u32 = 1;
/// How long a mirror may make a request wait.
const MIRROR_WAIT: Duration = Duration::from_secs(30);

/// Retries of the registry itself after a wrong response: wrong bytes, or a web page. That may be temporary, but more often
/// the registry has nothing else, and each retry reads a whole blob.
const WRONG_RETRIES: u32 = 2;

/// Bytes per second that a slow server passes on: a proxy that receives a complete upload before it passes it on, or an object
/// store that copies it.
const COPIED: u64 = 1024 * 1024;

/// Maximum delay that we choose before a retry.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The part of [`Config`] about waiting and retrying.
#[derive(Clone, Debug)]
pub(super) struct RequestLimits {
    pub retries: u32,
    /// Retries after a wrong response.
    pub wrong_retries: u32,
    pub max_wait: Duration,
    pub first_delay: Duration,
    pub retry_budget: Option<Duration>,
    pub stall: Duration,
    pub commit: Duration,
}

impl Default for RequestLimits {
    fn default() -> RequestLimits {
        let config = Config::default();
        RequestLimits::of(&config)
    }
}

impl RequestLimits {
    pub fn of(config: &Config) -> RequestLimits {
        let (retries, max_wait) = (config.retries, config.max_wait);
        let wrong_retries = retries.min(WRONG_RETRIES);
        let (stall, commit) = (config.stall_timeout, config.commit_timeout);
        let (first_delay, retry_budget) = (config.first_delay, config.retry_budget);
        RequestLimits { retries, wrong_retries, max_wait, first_delay, retry_budget, stall, commit }
    }

    /// How long a registry may take to store an upload of `size` bytes after the last of them. It may pass the upload on or
    /// copy it, at [`COPIED`] or faster; apart from that, this is time without a response, which the retry budget bounds. It
    /// is a little longer, so that a registry that answers nothing at all is given up first.
    pub fn to_store(&self, size: u64) -> Duration {
        let Some(budget) = self.retry_budget else { return self.commit };
        let without_answer = budget.max(self.stall).saturating_add(self.stall / 2);
        without_answer.saturating_add(Duration::from_secs(size / COPIED)).min(self.commit)
    }

    /// The option that allows more than `patience` for a response, for the end of an error message, or an empty string.
    pub fn more_than(&self, patience: Duration) -> &'static str {
        match patience > self.stall && patience < self.commit {
            true => " (a longer --retry-budget allows more)",
            false => "",
        }
    }

    /// The delays before the retries of one request.
    pub fn backoff(&self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(self.first_delay)
            .with_max_delay(LONGEST_DELAY)
            .with_max_times(self.retries as usize)
            .with_jitter()
    }

    /// The same delays without an end, for all requests that wait together.
    pub fn rounds(&self) -> ExponentialBackoff {
        self.backoff().without_max_times().build()
    }

    /// These limits for a place that is not the only one to ask.
    pub fn for_mirror(&self) -> RequestLimits {
        let (retries, max_wait) = (self.retries.min(MIRROR_RETRIES), self.max_wait.min(MIRROR_WAIT));
        RequestLimits { retries, wrong_retries: 0, max_wait, retry_budget: None, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_registry_sends_us_its_authorities_are_trusted_but_our_certificate_is_not_shown() {
        let place = tempfile::tempdir().unwrap();
        for known in ["registry.internal:5000", "tokens.internal"] {
            std::fs::create_dir(place.path().join(known)).unwrap();
        }
        let certs_d = vec![place.path().to_owned()];
        let config = Config { tls: TlsConfig { certs_d, ..TlsConfig::default() }, ..Config::default() };
        for (url, directory, identify) in [
            ("https://registry.internal:5000/v2/", "registry.internal:5000", true),
            ("https://storage.internal/x", "registry.internal:5000", false),
            ("https://registry.internal/x", "registry.internal:5000", false),
            ("https://tokens.internal/token", "tokens.internal", true),
        ] {
            let settings = config.tls_for("registry.internal:5000", false, &url.parse().unwrap());
            assert_eq!(settings.cert_dir, Some(place.path().join(directory)), "{url}");
            assert_eq!(settings.identify, identify, "{url}");
        }
        let stranger = config.tls_for("other.internal", false, &"https://../x".parse().unwrap());
        assert_eq!(stranger.cert_dir, None);
    }

    /// An unanswered small blob would cost a quarter of an hour, and a large one needs the time.
    #[test]
    fn what_is_large_may_take_long_to_be_stored_and_the_rest_has_the_retry_budget() {
        let of = |retry_budget: Option<u64>, size| {
            let retry_budget = retry_budget.map(Duration::from_secs);
            RequestLimits { retry_budget, ..RequestLimits::default() }.to_store(size).as_secs()
        };
        let mib = 1024 * 1024;
        let reported =
            [of(Some(120), 1), of(Some(20), 1), of(Some(120), 300 * mib), of(Some(120), 20_000 * mib), of(None, 1)];
        assert_eq!(reported, [150, 90, 150 + 300, 900, 900]);
    }

    #[test]
    fn a_directory_named_for_all_registries_does_not_hide_what_is_known_of_a_token_server() {
        let place = tempfile::tempdir().unwrap();
        for known in ["registry.internal", "tokens.internal"] {
            std::fs::create_dir(place.path().join(known)).unwrap();
        }
        let (named, certs_d) = (place.path().join("named"), vec![place.path().to_owned()]);
        let tls = TlsConfig { certs_d, cert_dir: Some(named.clone()), ..TlsConfig::default() };
        let config = Config { tls, ..Config::default() };
        for (url, directory, identify) in [
            ("https://registry.internal/v2/", named.clone(), true),
            ("https://tokens.internal/token", place.path().join("tokens.internal"), true),
            ("https://storage.internal/x", named, false),
        ] {
            let settings = config.tls_for("registry.internal", false, &url.parse().unwrap());
            assert_eq!((settings.cert_dir, settings.identify), (Some(directory), identify), "{url}");
        }
    }

    #[test]
    fn the_places_are_those_of_containers_and_docker_in_their_order() {
        let places = |home: Option<&'static str>| {
            TlsConfig::default_certs_d(&|name| home.filter(|_| name == "HOME").map(Into::into))
        };
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        assert_eq!(places(None), system);
        assert_eq!(places(Some("/home/me")).first(), Some(&PathBuf::from("/home/me/.config/containers/certs.d")));
        assert_eq!(places(Some("/home/me"))[1..], system);
    }
}
