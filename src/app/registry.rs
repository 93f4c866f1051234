//! How a command connects to registries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use crate::base::error::Result;
use crate::base::progress::Event;
use crate::credentials::{AMBIENT, Credentials, Store, Variables};
use crate::pipeline::allowlist::RegistrySettings;
use crate::routes::Routes;
use crate::transport::registry::{Config, Proxies, Registries, RegistryConfig, TlsConfig};

/// Default number of retries of a request.
const RETRIES: u32 = 5;
/// Default time that a registry may be silent: long enough for a restart.
const RETRY_BUDGET: Duration = Duration::from_secs(120);

/// See the module documentation. The default is that of the command line.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    pub credentials: GivenCredentials,
    /// Whether to verify certificates. `None` for the setting in `registries.conf`, or true.
    pub tls_verify: Option<bool>,
    /// PEM files of additional authorities to trust.
    pub ca_files: Vec<PathBuf>,
    /// A directory in the form of `certs.d/HOST`, used for every registry.
    pub cert_dir: Option<PathBuf>,
    /// The `registries.conf` to use instead of those of the user and the machine.
    pub registries_conf: Option<PathBuf>,
    pub plain_http: bool,
    /// Number of images and blobs handled at the same time.
    pub jobs: usize,
    /// Number of requests to one registry at the same time, of each kind.
    pub per_host: usize,
    /// Number of retries of a request.
    pub retries: Option<u32>,
    /// Time to wait for a registry that has stopped answering. `None` for 2 minutes, or the duration of `retries`.
    pub retry_budget: Option<Duration>,
    /// Time to wait without progress if a registry limits requests.
    pub max_wait: Duration,
    /// Time that an answer, or 32 KiB of a body, may take.
    pub stall_timeout: Duration,
    /// Report every request and answer. Secrets are masked.
    pub log_http: bool,
}

/// The credentials in a request. They are used for every registry of the command.
#[derive(Clone, Debug, Default)]
pub enum GivenCredentials {
    /// None given: use variables, then credential files.
    #[default]
    LookedUp,
    /// One file, instead of variables and other files.
    File(PathBuf),
    Given(Credentials),
    /// A user whose password is asked for.
    User(String),
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        let Config { per_host, max_wait, stall_timeout, .. } = Config::default();
        RegistryOptions {
            credentials: GivenCredentials::LookedUp,
            tls_verify: None,
            ca_files: Vec::new(),
            cert_dir: None,
            registries_conf: None,
            plain_http: false,
            jobs: 6,
            per_host,
            retries: None,
            retry_budget: None,
            max_wait,
            stall_timeout,
            log_http: false,
        }
    }
}

impl GivenCredentials {
    /// Returns the credentials in the request. Asks for the password of a user.
    ///
    /// # Errors
    /// Asking is not possible.
    pub fn credentials(&self, environment: &Environment) -> Result<Option<Credentials>> {
        match self {
            GivenCredentials::LookedUp | GivenCredentials::File(_) => Ok(None),
            GivenCredentials::Given(credentials) => Ok(Some(credentials.clone())),
            GivenCredentials::User(user) => asked(user, environment).map(Some),
        }
    }
}

impl RegistryOptions {
    /// Creates the client for `registries`, with the settings of an allowlist.
    ///
    /// # Errors
    /// Credentials, certificates or configuration cannot be used.
    pub fn connect(
        &self,
        registries: impl IntoIterator<Item = String>,
        settings: &BTreeMap<String, RegistrySettings>,
        environment: &Environment,
    ) -> Result<Registries> {
        self.connect_as(self.credentials(registries, environment)?, settings, environment)
    }

    /// Returns the only file to search for credentials, if one was given.
    pub(super) fn authfile(&self) -> Option<&Path> {
        match &self.credentials {
            GivenCredentials::File(path) => Some(path),
            _ => None,
        }
    }

    /// Collects the credentials for `registries`. Those in the request take precedence over the environment.
    ///
    /// # Errors
    /// Credentials or credential files cannot be read.
    pub(super) fn credentials(
        &self,
        registries: impl IntoIterator<Item = String>,
        environment: &Environment,
    ) -> Result<Store> {
        let authfile = self.authfile();
        let mut store = Store::load(authfile, &|name| environment.variable(name))?;
        if authfile.is_some() {
            return Ok(store);
        }
        if let Some(credentials) = self.credentials.credentials(environment)? {
            registries.into_iter().for_each(|registry| store.set(&registry, credentials.clone()));
            return Ok(store);
        }
        let variables = Variables::of(environment.variables.clone());
        let others: Vec<String> = registries.into_iter().filter(|registry| !variables.has(registry)).collect();
        store.set_variables(variables);
        let ambient = environment.variable(AMBIENT).filter(|text| !text.is_empty() && !others.is_empty());
        let ambient = ambient.map(|text| match text.contains(':') {
            true => Credentials::parse(&text),
            false => asked(&text, environment),
        });
        if let Some(credentials) = ambient.transpose()? {
            others.iter().for_each(|registry| store.set_ambient(registry, credentials.clone()));
        }
        Ok(store)
    }

    /// Creates the client with these credentials.
    ///
    /// # Errors
    /// Certificates or configuration cannot be used.
    pub(super) fn connect_as(
        &self,
        credentials: Store,
        settings: &BTreeMap<String, RegistrySettings>,
        environment: &Environment,
    ) -> Result<Registries> {
        let env = |name: &str| environment.variable(name);
        let routes = Routes::load(self.registries_conf.as_deref(), &env)?;
        for warning in &routes.warnings {
            environment.events.report(Event::Warning(warning.clone()));
        }
        let config = Config {
            credentials,
            tls: TlsConfig {
                verify: self.tls_verify,
                ca_files: self.ca_files.clone(),
                cert_dir: self.cert_dir.clone(),
                certs_d: TlsConfig::default_certs_d(&env),
            },
            proxies: Proxies::of_environment(&env)?,
            routes,
            plain_http: self.plain_http,
            per_registry: settings.iter().map(|(name, own)| (name.clone(), per_registry(own))).collect(),
            per_host: self.per_host,
            retries: self.retries.unwrap_or(RETRIES),
            retry_budget: self.retry_budget.or_else(|| self.retries.is_none().then_some(RETRY_BUDGET)),
            max_wait: self.max_wait,
            stall_timeout: self.stall_timeout,
            log_http: self.log_http,
            ..Config::default()
        };
        Registries::new(config, environment.events.clone())
    }
}

fn asked(user: &str, environment: &Environment) -> Result<Credentials> {
    environment.passwords.password_of(user).map(|password| Credentials::basic(user, password.expose()))
}

fn per_registry(settings: &RegistrySettings) -> RegistryConfig {
    RegistryConfig {
        tls_verify: settings.tls_verify,
        ca_files: Vec::new(),
        cert_dir: settings.cert_dir.clone(),
        credentials: settings.credentials.clone(),
    }
}
