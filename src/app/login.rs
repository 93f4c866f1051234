//! Tries credentials at a registry, and stores them where skopeo, podman and docker do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::environment::Environment;
use super::local::check_writable;
use super::login_target::LoginTarget;
use super::outcome::{JsonReport, REPORT_VERSION};
use super::registry::RegistryOptions;
use crate::base::error::{Fact, Result};
use crate::credentials::{AMBIENT, CredentialFile, CredentialOrigin, Credentials, Store, Variables, variable_name};
use crate::transport::registry::AuthCheck;

/// Credentials, and the registry they are for.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    pub target: LoginTarget,
    /// A user name and a password.
    pub credentials: Credentials,
    /// The file that stores the credentials, instead of the file in the environment.
    pub authfile: Option<PathBuf>,
    /// How to connect to the registry. Its credentials are ignored.
    pub registry: RegistryOptions,
}

/// Where the credentials were stored.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginReport {
    pub version: u32,
    pub ok: bool,
    /// `HOST[:PORT]`.
    pub registry: String,
    /// The namespace, empty for the whole registry.
    pub namespace: String,
    /// The user of the credentials.
    pub user: String,
    /// Where the credentials are stored.
    pub kept: CredentialOrigin,
    /// How the registry answered.
    #[serde(skip)]
    pub checked: AuthCheck,
    /// The name of a variable that is set and takes precedence over the stored credentials.
    #[serde(skip)]
    pub stronger_variable: Option<String>,
}

impl JsonReport for LoginReport {}

/// A fact about an error: the credentials that were tried are not stored yet.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("logging in")]
pub struct LoggingIn;

impl Fact for LoggingIn {}

/// Checks whether [`login`] could store credentials, as far as possible without changing anything, before a person types a
/// password.
///
/// # Errors
/// No location is known; a file is malformed, or cannot be read or replaced; or a helper cannot be run.
pub fn check_login(target: &LoginTarget, authfile: Option<&Path>, environment: &Environment) -> Result<()> {
    place(target, authfile, environment).map(drop)
}

/// Tries credentials at a registry, and stores them if the registry accepts them.
///
/// # Errors
/// As for [`check_login`]; or the credentials cannot be stored; or the registry does not accept them or cannot be reached.
/// Nothing is changed then. The error has the fact [`LoggingIn`] if the registry was asked.
pub async fn login(request: &LoginRequest, environment: &Environment) -> Result<LoginReport> {
    let LoginRequest { target, credentials, authfile, .. } = request;
    let kept = place(target, authfile.as_deref(), environment)?;
    credentials.check_keepable()?;
    let user = credentials.username.clone();
    let attempt = || format!("logging in to {target} as {user}");
    let checked = check(request, environment).await.map_err(|e| e.while_doing(attempt()).with_fact(LoggingIn))?;
    let origin = kept.log_in(&target.registry, &target.path, credentials)?;
    Ok(LoginReport {
        version: REPORT_VERSION,
        ok: true,
        registry: target.registry.clone(),
        namespace: target.path.clone(),
        user,
        kept: origin,
        checked,
        stronger_variable: stronger_variable(&target.registry, environment).filter(|_| authfile.is_none()),
    })
}

/// Returns the file that will store the credentials.
fn place(target: &LoginTarget, authfile: Option<&Path>, environment: &Environment) -> Result<CredentialFile> {
    let kept = CredentialFile::to_write(authfile, &|name| environment.variable(name))?;
    kept.check(&target.registry, &target.path)?;
    if kept.path().exists() {
        check_writable([&kept.path().to_owned()])?;
    }
    Ok(kept)
}

async fn check(request: &LoginRequest, environment: &Environment) -> Result<AuthCheck> {
    let LoginRequest { target, credentials, registry, .. } = request;
    let mut store = Store::anonymous();
    store.set(&target.registry, credentials.clone());
    let registries = registry.connect_as(store, &BTreeMap::new(), environment)?;
    registries.check_auth(&target.registry, &target.path).await
}

/// Returns a variable that takes precedence over stored credentials.
fn stronger_variable(registry: &str, environment: &Environment) -> Option<String> {
    let own = Variables::of(environment.variables.clone()).has(registry).then(|| variable_name(registry));
    let all = || environment.variable(AMBIENT).filter(|value| !value.is_empty()).map(|_| AMBIENT.to_owned());
    own.or_else(all)
}
