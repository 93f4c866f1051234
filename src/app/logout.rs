//! Removes stored credentials.

use std::path::PathBuf;

use serde::Serialize;

use super::environment::Environment;
use super::login_target::LoginTarget;
use super::outcome::{JsonReport, REPORT_VERSION};
use crate::base::error::{Error, Result};
use crate::credentials::{CredentialFile, CredentialOrigin, Store, Variables};

/// What to remove.
#[derive(Clone, Debug)]
pub struct LogoutRequest {
    /// The registry or namespace. `None` for everything in the first file.
    pub target: Option<LoginTarget>,
    /// Whether to remove the credentials of namespaces below the target as well.
    pub below: bool,
    /// The file of credentials, instead of those in the environment.
    pub authfile: Option<PathBuf>,
}

/// What was removed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogoutReport {
    pub version: u32,
    pub ok: bool,
    /// Where the removed credentials were stored.
    pub forgotten: Vec<CredentialOrigin>,
    /// Where credentials for the registry come from now, if any are left.
    #[serde(skip)]
    pub remaining: Option<CredentialOrigin>,
}

impl JsonReport for LogoutReport {}

/// Removes the credentials that take precedence: those in the first file that has any, and in the credential helper that it
/// names. Can run a helper, so it can block.
///
/// # Errors
/// Nothing is stored; a file is malformed, or cannot be read or replaced; or a helper fails.
pub fn logout(request: &LogoutRequest, environment: &Environment) -> Result<LogoutReport> {
    let LogoutRequest { target, below, authfile } = request;
    let files = CredentialFile::all(authfile.as_deref(), &|name| environment.variable(name));
    // The other files were not written by a login of gapferry.
    let searched = if target.is_some() { &files[..] } else { files.get(..1).unwrap_or_default() };
    let forgotten = forget(searched, target.as_ref(), *below)?;
    if forgotten.is_empty() {
        let whom = target.as_ref().map_or("all registries".to_owned(), LoginTarget::to_string);
        let paths: Vec<String> = searched.iter().map(|file| file.path().display().to_string()).collect();
        return Err(Error::input(format!("logging out of {whom}: no credentials are stored in {}", paths.join(", "))));
    }
    let remaining = target.as_ref().and_then(|target| remaining(target, request, environment));
    Ok(LogoutReport { version: REPORT_VERSION, ok: true, forgotten, remaining })
}

fn forget(files: &[CredentialFile], target: Option<&LoginTarget>, below: bool) -> Result<Vec<CredentialOrigin>> {
    for file in files {
        let forgotten = match target {
            Some(target) => file.log_out(&target.registry, &target.path, below)?,
            None => file.log_out_of_all()?,
        };
        if !forgotten.is_empty() {
            return Ok(forgotten);
        }
    }
    Ok(Vec::new())
}

/// Returns where credentials still come from: a logout should leave none.
fn remaining(target: &LoginTarget, request: &LogoutRequest, environment: &Environment) -> Option<CredentialOrigin> {
    let authfile = request.authfile.as_deref();
    let mut store = Store::load(authfile, &|name| environment.variable(name)).unwrap_or_default();
    if authfile.is_none() {
        store.set_variables(Variables::of(environment.variables.clone()));
    }
    // The logout itself succeeded, so an error here is ignored.
    store.locate(&target.registry, &target.path).ok().flatten().map(|found| found.origin)
}
