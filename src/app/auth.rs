//! Whom a registry takes us for, and what it lets us do.

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

/// A registry, or a repository there.
#[derive(Clone, Debug)]
pub struct AuthRequest {
    /// Of a repository it is also asked whether it may be pulled from.
    pub target: LoginTarget,
    /// Ask as well whether the repository may be pushed to.
    pub push: bool,
    pub registry: RegistryOptions,
}

/// What was found out; `null` is what was not asked, or could not be.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthReport {
    pub version: u32,
    /// All that was asked may be done.
    pub ok: bool,
    /// `HOST[:PORT]`.
    pub registry: String,
    /// The path of the repository that was asked about. `null`: none was.
    pub repository: Option<String>,
    /// Where the credentials come from. `null`: there are none.
    pub credentials: Option<CredentialOrigin>,
    /// `null`: the credentials name no user.
    pub user: Option<String>,
    /// The credentials are an identity token.
    pub identity_token: bool,
    /// `false`: the registry asks for no credentials.
    pub asked: Option<bool>,
    /// The registry accepts the credentials.
    pub accepted: Option<bool>,
    /// The repository may be pulled from.
    pub pull: Option<bool>,
    /// The repository may be pushed to.
    pub push: Option<bool>,
    /// Why something may not be done, or could not be asked.
    #[serde(rename = "error", serialize_with = "as_detail")]
    pub failure: Option<Error>,
    /// The files in which credentials are looked for.
    #[serde(skip)]
    pub searched: Vec<PathBuf>,
}

impl JsonReport for AuthReport {}

/// Asks a registry what the credentials that it is shown are good for. Pushing is tried by an upload that is begun and given
/// up; nothing is changed there. What the registry refuses is in the report.
///
/// # Errors
/// Credentials, certificates or configuration that cannot be used; `push` without a repository.
pub async fn auth_check(request: &AuthRequest, environment: &Environment) -> Result<AuthReport> {
    let AuthRequest { target, push, registry } = request;
    if *push && target.path.is_empty() {
        return Err(Error::input(format!("checking {target}: no repository is named that may be pushed to")));
    }
    let mut store = registry.credentials([target.registry.clone()], environment)?;
    let found = locate(&store, target).await?;
    if let Some(found) = &found {
        // What is reported is what is shown, and a helper is asked once.
        store.set(&target.registry, found.credentials.clone());
    }
    let registries = registry.connect_as(store, &BTreeMap::new(), environment)?;
    let mut report = AuthReport { searched: searched(registry, environment), ..AuthReport::of(target, found) };
    report.failure = report.ask(&registries, target, *push).await.err();
    report.ok = report.failure.is_none();
    Ok(report)
}

/// A helper may wait for its user.
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

    /// Asks one thing after the other, up to the first that is not so.
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

/// What a web page at the root means: a gateway may know only the paths of repositories.
fn no_registry(registry: &str, page: &str) -> Error {
    let text = format!(
        "asking {registry} whether it accepts the credentials: GET /v2/ is not answered as a registry does: {page}; if only \
         repositories are routed to a registry, `gapferry auth check {registry}/REPOSITORY` can tell"
    );
    Error::new(Kind::Network, text)
}

fn verdict<T>(answer: &Result<T>) -> Option<bool> {
    match answer {
        Ok(_) => Some(true),
        Err(e) => matches!(e.kind(), Kind::Unauthorized | Kind::Refused | Kind::NotFound).then_some(false),
    }
}
