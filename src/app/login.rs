//! Credentials are tried at the registry, then kept where skopeo, podman and docker keep them.

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

/// Credentials, and the registry that they are for.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    pub target: LoginTarget,
    /// A user name and a password.
    pub credentials: Credentials,
    /// The file that keeps them, instead of that of the environment.
    pub authfile: Option<PathBuf>,
    /// How to speak to the registry; its credentials do not count.
    pub registry: RegistryOptions,
}

/// Where credentials were kept.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginReport {
    pub version: u32,
    pub ok: bool,
    /// `HOST[:PORT]`.
    pub registry: String,
    /// Empty: the whole registry.
    pub namespace: String,
    /// Whose they are.
    pub user: String,
    /// Where they are.
    pub kept: CredentialOrigin,
    /// How the registry took them.
    #[serde(skip)]
    pub checked: AuthCheck,
    /// A variable that is set, and counts more than what is kept.
    #[serde(skip)]
    pub stronger_variable: Option<String>,
}

impl JsonReport for LoginReport {}

/// A fact about an error: credentials were tried that nothing keeps yet.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("logging in")]
pub struct LoggingIn;

impl Fact for LoggingIn {}

/// Whether [`login`] could keep credentials, as far as can be known without changing anything: better known before a
/// person types a password.
///
/// # Errors
/// No place is known; a file that is malformed, or cannot be read or replaced; a helper that cannot be run.
pub fn check_login(target: &LoginTarget, authfile: Option<&Path>, environment: &Environment) -> Result<()> {
    place(target, authfile, environment).map(drop)
}

/// Tries credentials at a registry and keeps them, if it accepts them.
///
/// # Errors
/// As of [`check_login`]; credentials that cannot be kept; a registry that does not accept them or is not reached. Nothing is
/// changed then. The error has the fact [`LoggingIn`] if the registry was asked.
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

/// The file that is to keep them.
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

/// While it is set, what is kept does not count.
fn stronger_variable(registry: &str, environment: &Environment) -> Option<String> {
    let own = Variables::of(environment.variables.clone()).has(registry).then(|| variable_name(registry));
    let all = || environment.variable(AMBIENT).filter(|value| !value.is_empty()).map(|_| AMBIENT.to_owned());
    own.or_else(all)
}
