//! What the command line and files say about registries, as one value.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::tls::{self, TlsSettings};
use crate::credentials::{Credentials, Store};
use crate::error::Result;

/// How registries are spoken to.
#[derive(Clone, Debug)]
pub struct Config {
    pub credentials: Store,
    pub tls: TlsConfig,
    /// Plain HTTP for every registry. Hosts of this machine are tried by plain HTTP anyway.
    pub plain_http: bool,
    /// By `host[:port]`, as in references.
    pub per_registry: BTreeMap<String, RegistryConfig>,
    /// Concurrent requests to one registry, downloads and uploads counted apart.
    pub per_host: usize,
    /// Further tries after a passing failure.
    pub retries: u32,
    /// How long in all one request may wait because the registry asked for it (Retry-After).
    pub max_wait: Duration,
    /// How long the other side may be silent, in an answer or a body.
    pub stall_timeout: Duration,
    /// How long a registry may take to store an upload after its last byte: an object store may copy it first.
    pub commit_timeout: Duration,
    pub connect_timeout: Duration,
    /// Before the second try; doubles from there, up to 30 s.
    pub first_delay: Duration,
    pub user_agent: String,
    /// Report every exchange, secrets masked.
    pub log_http: bool,
}

/// Whom to trust.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// `false`: any certificate will do, and plain HTTP if there is no TLS at all (as skopeo does).
    pub verify: bool,
    /// PEM files trusted beside the system's authorities.
    pub ca_files: Vec<PathBuf>,
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

impl Default for TlsConfig {
    fn default() -> TlsConfig {
        TlsConfig { verify: true, ca_files: Vec::new() }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            credentials: Store::anonymous(),
            tls: TlsConfig::default(),
            plain_http: false,
            per_registry: BTreeMap::new(),
            per_host: 6,
            retries: 5,
            max_wait: Duration::from_secs(10 * 60),
            stall_timeout: Duration::from_secs(60),
            commit_timeout: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(15),
            first_delay: Duration::from_millis(500),
            user_agent: concat!("gapferry/", env!("CARGO_PKG_VERSION")).to_owned(),
            log_http: false,
        }
    }
}

impl Config {
    /// Reads every certificate file once, so that a wrong one is told before the first request.
    pub(super) fn check(&self) -> Result<()> {
        tls::client_config(&self.tls_with(None))?;
        self.per_registry.values().try_for_each(|registry| tls::client_config(&self.tls_with(Some(registry))).map(drop))
    }

    /// The settings for whatever host stands in `url`: a registry, its token server or its storage.
    pub(super) fn tls_for(&self, url: &Url) -> TlsSettings {
        self.tls_with(self.registry(url))
    }

    /// Whether credentials may go to `url`'s host without TLS.
    pub(super) fn may_be_plain(&self, url: &Url) -> bool {
        self.plain_http || !self.tls_for(url).verify
    }

    /// The credentials that count for one registry.
    pub(super) fn store_for(&self, registry: &str) -> Store {
        let mut store = self.credentials.clone();
        if let Some(credentials) = self.per_registry.get(registry).and_then(|own| own.credentials.clone()) {
            store.set(registry, credentials);
        }
        store
    }

    fn registry(&self, url: &Url) -> Option<&RegistryConfig> {
        let host = match url.host_str()? {
            "registry-1.docker.io" => "docker.io",
            host => host,
        };
        let with_port = url.port_or_known_default().map(|port| format!("{host}:{port}"));
        let bare = url.port().is_none().then_some(host);
        with_port.as_deref().into_iter().chain(bare).find_map(|key| self.per_registry.get(key))
    }

    fn tls_with(&self, registry: Option<&RegistryConfig>) -> TlsSettings {
        let own = registry.cloned().unwrap_or_default();
        TlsSettings {
            verify: own.tls_verify.unwrap_or(self.tls.verify),
            ca_files: self.tls.ca_files.iter().cloned().chain(own.ca_files).collect(),
            cert_dir: own.cert_dir,
        }
    }
}
