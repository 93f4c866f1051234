//! Checks which credentials gapferry uses for a registry, and what the registry allows with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::environment::Environment;
use super::failure::as_detail;
use super::login_target::LoginTarget;
use super::outcome::{JsonReport, REPORT_VERSION};
use super::registry::RegistryOptions;
use crate::base::blocking::blocking;
use crate::base::error::{Error, Kind, Result};
use crate::credentials::{CredentialFile, CredentialOrigin, FoundCredentials, Store};
use crate::oci::Repository;
use crate::transport::registry::{AuthCheck, Registries};

/// The registry or repository to check.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// The registry or repository. For a repository, pulling is checked too.
    pub target: LoginTarget,
    /// Whether to check pushing to the repository as well.
    pub push: bool,
    pub registry: RegistryOptions,
}

/// The result of the check. `null` means not asked, or not known.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthReport {
    pub version: u32,
    /// Whether everything that was asked for is allowed.
    pub ok: bool,
    /// `HOST[:PORT]`.
    pub registry: String,
    /// The path of the repository that was checked, or `null` if only the registry was.
    pub repository: Option<String>,
    /// Where the credentials come from, or `null` if there are none.
    pub credentials: Option<CredentialOrigin>,
    /// The user of the credentials, or `null` if they name no user.
    pub user: Option<String>,
    /// Whether the credentials are an identity token.
    pub identity_token: bool,
    /// Whether the registry asks for credentials.
    pub asked: Option<bool>,
    /// Whether the registry accepts the credentials.
    pub accepted: Option<bool>,
    /// Whether the repository can be pulled from.
    pub pull: Option<bool>,
    /// Whether the repository can be pushed to.
    pub push: Option<bool>,
    /// Why something is not allowed, or could not be checked.
    #[serde(rename = "error", serialize_with = "as_detail")]
    pub failure: Option<Error>,
    /// The files that were searched for credentials.
    #[serde(skip)]
    pub searched: Vec<PathBuf>,
}

impl JsonReport for AuthReport {}

/// Asks a registry what it allows with the credentials gapferry would use. Pushing is tested by starting an upload and
/// cancelling it, which changes nothing. A refusal by the registry is part of the report, not an error.
///
/// # Errors
/// Credentials, certificates or configuration cannot be used, or `push` is set without a repository.
pub async fn auth_check(request: &AuthRequest, environment: &Environment) -> Result<AuthReport> {
    let AuthRequest { target, push, registry } = request;
    if *push && target.path.is_empty() {
        return Err(Error::input(format!("checking {target}: --push needs a repository")));
    }
    let mut store = registry.credentials([target.registry.clone()], environment)?;
    let found = locate(&store, target).await?;
    if let Some(found) = &found {
        // The report must describe the credentials that are sent, and a helper is asked only once.
        store.set(&target.registry, found.credentials.clone());
    }
    let registries = registry.connect_as(store, &BTreeMap::new(), environment)?;
    let mut report = AuthReport { searched: searched(registry, environment), ..AuthReport::of(target, found) };
    report.failure = report.ask(&registries, target, *push).await.err();
    report.ok = report.failure.is_none();
    Ok(report)
}

/// Runs on a blocking thread, because a credential helper can wait for its user.
async fn locate(store: &Store, target: &LoginTarget) -> Result<Option<FoundCredentials>> {
    let (store, registry, path) = (store.clone(), target.registry.clone(), target.path.clone());
    let attempted = format!("looking up credentials for {target}");
    blocking(&attempted, move || store.locate(&registry, &path)).await
}

fn searched(registry: &RegistryOptions, environment: &Environment) -> Vec<PathBuf> {
    let files = CredentialFile::all(registry.authfile(), &|name| environment.variable(name));
    files.iter().map(CredentialFile::path).map(Path::to_owned).collect()
}

impl AuthReport {
    fn of(target: &LoginTarget, found: Option<FoundCredentials>) -> AuthReport {
        let repository = Some(target.path.clone()).filter(|path| !path.is_empty());
        let registry = target.registry.clone();
        let mut report = AuthReport { version: REPORT_VERSION, registry, repository, ..AuthReport::default() };
        if let Some(FoundCredentials { credentials, origin }) = found {
            report.identity_token = credentials.identity_token.is_some();
            report.user = Some(credentials.username).filter(|user| !user.is_empty());
            report.credentials = Some(origin);
        }
        report
    }

    /// Asks one question after the other, and stops at the first negative answer.
    async fn ask(&mut self, registries: &Registries, target: &LoginTarget, push: bool) -> Result<()> {
        let checked = registries.check_auth(&target.registry, &target.path).await;
        self.accepted = verdict(&checked);
        self.asked = self.accepted.map(|_| !matches!(checked, Ok(AuthCheck::NotAsked)));
        let checked = checked?;
        if let AuthCheck::WebPage(_) = &checked {
            (self.accepted, self.asked) = (None, None);
        }
        if target.path.is_empty() {
            return match checked {
                AuthCheck::WebPage(page) => Err(no_registry(&target.registry, &page)),
                AuthCheck::Accepted | AuthCheck::NotAsked => Ok(()),
            };
        }
        let named = |e| Error::input(format!("checking {target}")).because(e);
        let repository = Repository::new(&target.registry, &target.path).map_err(named)?;
        let pull = registries.may_pull(&repository).await;
        self.pull = verdict(&pull);
        pull?;
        if push {
            let push = registries.may_push(&repository).await;
            self.push = verdict(&push);
            push?;
        }
        Ok(())
    }
}

/// The error when a web page answers at the root. A gateway might route only the paths of repositories.
fn no_registry(registry: &str, page: &str) -> Error {
    let text = format!(
        "asking {registry} whether it accepts the credentials: GET /v2/ was not answered by a registry: {page}; if only \
         repositories are routed to a registry, check `gapferry auth check {registry}/REPOSITORY`"
    );
    Error::new(Kind::Network, text)
}

fn verdict<T>(answer: &Result<T>) -> Option<bool> {
    match answer {
        Ok(_) => Some(true),
        Err(e) => matches!(e.kind(), Kind::Unauthorized | Kind::Refused | Kind::NotFound).then_some(false),
    }
}
