//! What a login has kept is forgotten.

use std::path::PathBuf;

use serde::Serialize;

use super::environment::Environment;
use super::login_target::LoginTarget;
use super::outcome::{JsonReport, REPORT_VERSION};
use crate::base::error::{Error, Result};
use crate::credentials::{CredentialFile, CredentialOrigin, Store, Variables};

/// What is to be forgotten.
#[derive(Clone, Debug)]
pub struct LogoutRequest {
    /// `None`: all that the first file has.
    pub target: Option<LoginTarget>,
    /// Also what is kept for namespaces below the target.
    pub below: bool,
    /// The file of credentials, instead of those of the environment.
    pub authfile: Option<PathBuf>,
}

/// What was forgotten.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogoutReport {
    pub version: u32,
    pub ok: bool,
    /// Where it was kept.
    pub forgotten: Vec<CredentialOrigin>,
    /// Where the registry's credentials come from now, if there still are any.
    #[serde(skip)]
    pub remaining: Option<CredentialOrigin>,
}

impl JsonReport for LogoutReport {}

/// Forgets the credentials that count: those of the first file that has any, and of the credential helper that it names. May
/// run a helper, so it can block.
///
/// # Errors
/// Nothing is kept; a file that is malformed, or cannot be read or replaced; a helper that fails.
pub fn logout(request: &LogoutRequest, environment: &Environment) -> Result<LogoutReport> {
    let LogoutRequest { target, below, authfile } = request;
    let files = CredentialFile::all(authfile.as_deref(), &|name| environment.variable(name));
    // What the other files have was not written by a login of this kind.
    let searched = if target.is_some() { &files[..] } else { files.get(..1).unwrap_or_default() };
    let forgotten = forget(searched, target.as_ref(), *below)?;
    if forgotten.is_empty() {
        let whom = target.as_ref().map_or("all registries".to_owned(), LoginTarget::to_string);
        let paths: Vec<String> = searched.iter().map(|file| file.path().display().to_string()).collect();
        return Err(Error::input(format!("logging out of {whom}: nothing is kept in {}", paths.join(", "))));
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

/// A logout means to be unknown to the registry.
fn remaining(target: &LoginTarget, request: &LogoutRequest, environment: &Environment) -> Option<CredentialOrigin> {
    let authfile = request.authfile.as_deref();
    let mut store = Store::load(authfile, &|name| environment.variable(name)).unwrap_or_default();
    if authfile.is_none() {
        store.set_variables(Variables::of(environment.variables.clone()));
    }
    // What cannot be found out is no reason to call a logout failed that was done.
    store.locate(&target.registry, &target.path).ok().flatten().map(|found| found.origin)
}
