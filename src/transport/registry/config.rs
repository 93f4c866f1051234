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

/// How registries are spoken to.
#[derive(Clone, Debug)]
pub struct Config {
    pub credentials: Store,
    pub tls: TlsConfig,
    pub proxies: Proxies,
    /// Mirrors, moved and blocked registries.
    pub routes: Routes,
    /// Plain HTTP for every registry. Hosts of this machine are tried by plain HTTP anyway.
    pub plain_http: bool,
    /// By `host[:port]`, as in references.
    pub per_registry: BTreeMap<String, RegistryConfig>,
    /// Concurrent requests to one registry, downloads and uploads counted apart.
    pub per_host: usize,
    /// Further tries after a passing failure.
    pub retries: u32,
    /// How long a registry that has answered before may stay without a successful answer before it is given up for the
    /// rest of the run. `None`: as long as the tries of one request take.
    pub retry_budget: Option<Duration>,
    /// How long in all one request may wait because the registry asked for it (Retry-After). The waits between the last
    /// pulls of a limit are each bounded by it, and not added up.
    pub max_wait: Duration,
    /// How long an answer may take, and how long 32 KiB of a body may, in either direction.
    pub stall_timeout: Duration,
    /// How long a registry may take to store an upload after its last byte: an object store may copy it first.
    pub commit_timeout: Duration,
    /// Blobs of at least this many bytes are uploaded so that an upload that breaks can go on, for one request more.
    pub large_blob: u64,
    pub connect_timeout: Duration,
    /// Before the second try; doubles from there, up to 30 s.
    pub first_delay: Duration,
    pub user_agent: String,
    /// Report every exchange, secrets masked.
    pub log_http: bool,
}

/// Whom to trust.
#[derive(Clone, Debug, Default)]
pub struct TlsConfig {
    /// `false`: any certificate will do, and plain HTTP if there is no TLS at all (as skopeo does). `None`: what the routes
    /// say of a registry, else `true`.
    pub verify: Option<bool>,
    /// PEM files trusted beside the system's authorities.
    pub ca_files: Vec<PathBuf>,
    /// A directory in the form of `certs.d/<host>`, for every registry and instead of `certs_d`; where registries send us,
    /// `certs_d` comes first.
    pub cert_dir: Option<PathBuf>,
    /// Where directories named `host[:port]` are looked for; the first that has one for a registry counts.
    pub certs_d: Vec<PathBuf>,
}

/// What differs for one registry.
#[derive(Clone, Debug, Default)]
pub struct RegistryConfig {
    pub tls_verify: Option<bool>,
    pub ca_files: Vec<PathBuf>,
    /// A directory in the form of `certs.d/<host>`: `*.crt` authorities, `x.cert` and `x.key` for us.
    pub cert_dir: Option<PathBuf>,
    pub credentials: Option<Credentials>,
}

impl TlsConfig {
    /// The places of containers/image `docker/docker_client.go` (`perHostCertDirs`), for `certs_d`.
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

    /// The settings for requests on behalf of `registry`, of which the routes may say that it is `insecure`.
    ///
    /// Token servers and storage are trusted as what is known of their own host says; where nothing is, as the registry
    /// that sent us there. Our certificate is for the registry alone, unless one was set up for that very host.
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

    /// Whether `registry` may be spoken to without proof of who it is, if the routes call it `insecure` or not.
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

    /// The first directory of that name; one that may not be looked into is passed over, as in containers/image.
    fn in_certs_d(&self, registry: &str) -> Option<PathBuf> {
        // A server may send us to any host: `..` is no name of a directory of ours.
        Repository::new(registry, "any").ok()?;
        let directories = self.tls.certs_d.iter().map(|place| place.join(registry));
        directories.into_iter().find(|directory| std::fs::read_dir(directory).is_ok())
    }

    /// The credentials that count for one registry. Those given for the registries that references name are not for the
    /// `mirror` of another one; what was given for it by its own name is.
    pub(super) fn store_for(&self, registry: &str, mirror: bool) -> Store {
        let mut store = if mirror { self.credentials.looked_up() } else { self.credentials.clone() };
        if let Some(credentials) = self.per_registry.get(registry).and_then(|own| own.credentials.clone()) {
            store.set(registry, credentials);
        }
        store
    }

    /// What was said by name, whatever lies in `certs_d`.
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

/// `host:port`, and `host` alone where the port is that of the scheme: how a reference may name this place.
fn names(url: &Url) -> Vec<String> {
    let Some(host) = url.host_str() else { return Vec::new() };
    let host = if host == "registry-1.docker.io" { "docker.io" } else { host };
    let with_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
    let bare = url.port().is_none().then(|| host.to_owned());
    with_port.into_iter().chain(bare).collect()
}

/// How often a mirror is asked again after a passing failure: another place can be asked instead.
const MIRROR_RETRIES: u32 = 1;
/// How long a mirror may make a request wait.
const MIRROR_WAIT: Duration = Duration::from_secs(30);

/// How often the registry itself is asked again after an answer that is not what was asked for: wrong bytes, a web page. It may be a
/// passing fault; more often it is what the registry has, and each try reads a whole blob.
const WRONG_RETRIES: u32 = 2;

/// Bytes that are passed on in a second, when it is slow: by a proxy that takes an upload as a whole before it passes it on, or by an
/// object store that copies it.
const COPIED: u64 = 1024 * 1024;

/// The longest wait of our own choice before another try.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The part of [`Config`] that says how long to wait and how often to try.
#[derive(Clone, Debug)]
pub(super) struct RequestLimits {
    pub retries: u32,
    /// How often the same is asked for again after an answer that is something else.
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

    /// How long a registry may take to store an upload of `size` bytes after the last of them. What has taken it may pass it on
    /// or copy it, at [`COPIED`] at least; besides that, this is time without an answer, and the retry budget bounds it. It is a little longer,
    /// so that a registry that answers nothing at all is given up before.
    pub fn to_store(&self, size: u64) -> Duration {
        let Some(budget) = self.retry_budget else { return self.commit };
        let without_answer = budget.max(self.stall).saturating_add(self.stall / 2);
        without_answer.saturating_add(Duration::from_secs(size / COPIED)).min(self.commit)
    }

    /// Which option allows more than `patience` for an answer, for the end of an error's text; empty, where none does.
    pub fn more_than(&self, patience: Duration) -> &'static str {
        match patience > self.stall && patience < self.commit {
            true => " (a longer --retry-budget allows more)",
            false => "",
        }
    }

    /// The waits before the further tries of one request.
    pub fn backoff(&self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(self.first_delay)
            .with_max_delay(LONGEST_DELAY)
            .with_max_times(self.retries as usize)
            .with_jitter()
    }

    /// The same waits without an end, for all requests that wait together.
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

    /// A small blob that is not answered would cost a quarter of an hour, and a large one needs the time.
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
