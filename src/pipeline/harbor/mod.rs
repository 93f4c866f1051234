//! What Harbor needs beyond the distribution protocol: recognizing it, having its projects before anything is pushed,
//! and asking about rights, read-only mode and quotas before anything moves.
//!
//! Everything goes through [`Api`]. This module knows neither HTTP nor credentials, and nothing about images. What
//! could not be found out is never reported as missing or denied: an account that may push need not have access to the
//! project API (most robots do not), and then the push decides.
//!
//! Threats: the answers may come from a server that is something else, broken or hostile. They are limited in size
//! ([`ApiAnswer`]) and parsed into small structures, and their text is shortened and stripped of control characters
//! before it is shown. The token of the rights check is decoded without verification: it is used for early warnings,
//! never to grant anything.
//!
//! Facts: Harbor 2.0–2.15 `api/v2.0/swagger.yaml`, `src/server/v2.0/handler`, `src/core/service/token`.

mod immutable;
mod preflight;
mod projects;
mod quota;
mod rights;
mod tags;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, Kind, Result};
use crate::content::{Account, Api, ApiAnswer, ApiRequest, Probed};

pub use immutable::immutable_tags;
pub use preflight::{Preflight, PreflightProblem, Severity, preflight};
pub use projects::{Created, ProjectOptions, create_projects, is_project_name, project_of};
pub use quota::{QuotaShort, quotas, storage_limit};
pub use tags::{Artifact, artifact, delete_artifact, delete_tag, tag_digest};

/// Number of simultaneous uploads into one project that Harbor handles well: each locks the project's row in its
/// database.
pub const UPLOADS_PER_PROJECT: u16 = 4;
/// Number of projects that are asked about at a time.
const AT_ONCE: usize = 8;

/// A Harbor 2.x that answered, and what it reported about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harbor {
    registry: String,
    /// The path whose credentials were used for the following answers.
    path: String,
    version: Option<String>,
    read_only: Option<bool>,
    ill: Vec<String>,
}

impl Harbor {
    /// `host[:port]`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    fn account(&self) -> Account<'_> {
        Account { registry: &self.registry, path: &self.path }
    }

    /// Such as `v2.11.0-5cbb1b01`. `None` if this account may not see it.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Whether an administrator has forbidden all changes. `None` if this account may not see it.
    pub fn read_only(&self) -> Option<bool> {
        self.read_only
    }

    /// Components that report themselves unhealthy, such as `database`.
    pub fn ill(&self) -> &[String] {
        &self.ill
    }
}

/// What was found out about a registry.
#[derive(Clone, Debug)]
pub enum Detected {
    Harbor(Harbor),
    /// Any other registry.
    Another,
    /// It calls itself Harbor, and its API does not answer: a gateway may route only `/v2/`, or the API fails at the
    /// moment.
    Unclear(Error),
}

impl Detected {
    /// Returns the Harbor, if there is one whose API answers.
    pub fn harbor(self) -> Option<Harbor> {
        match self {
            Detected::Harbor(harbor) => Some(harbor),
            Detected::Another | Detected::Unclear(_) => None,
        }
    }
}

/// Finds out whether a registry is a Harbor 2.x, as far as this account can see.
///
/// # Errors
/// There is no server to ask, its API fails after it has stated its version, or it is Harbor 1.x, whose API gapferry
/// does not support.
pub async fn detect(api: &dyn Api, account: Account<'_>) -> Result<Detected> {
    let client = Client { api, account };
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let answer = match api.probe(account, "/api/version").await? {
        Probed::Answered(answer) => answer,
        // If one path is not answered, neither is the other.
        Probed::Nothing => return Ok(Detected::Another),
        Probed::Unclear(error) => return Ok(Detected::Unclear(error)),
    };
    if !json::<Version>(&answer).is_some_and(|found| found.version.starts_with("v2")) {
        return client.first_generation().await.map_or(Ok(Detected::Another), Err);
    }
    let system = client.system().await?;
    Ok(Detected::Harbor(Harbor {
        registry: account.registry.to_owned(),
        path: account.path.to_owned(),
        version: system.harbor_version.map(|version| shown(&version)),
        read_only: system.read_only,
        ill: client.ill().await?,
    }))
}

/// Waits for the end of read-only mode, as long as the user allows. Returns the Harbor in its current state.
///
/// # Errors
/// Harbor did not answer.
pub async fn wait_until_writable(api: &dyn Api, mut harbor: Harbor) -> Result<Harbor> {
    let registry = harbor.registry.clone();
    while harbor.read_only == Some(true) {
        let refusal = Error::new(Kind::Refused, "its system information says so");
        if api.wait_for_changes(&registry, refusal).await.is_err() {
            return Ok(harbor);
        }
        harbor.read_only = Client { api, account: harbor.account() }.system().await?.read_only;
    }
    api.takes_changes(&registry);
    Ok(harbor)
}

/// One server, asked with one account.
#[derive(Clone, Copy)]
struct Client<'a> {
    api: &'a dyn Api,
    account: Account<'a>,
}

#[derive(Default, Deserialize)]
struct SystemInfo {
    harbor_version: Option<String>,
    read_only: Option<bool>,
}

impl Client<'_> {
    async fn call(&self, request: ApiRequest) -> Result<ApiAnswer> {
        self.api.call(self.account, request).await
    }

    async fn get(&self, path: impl Into<String>) -> Result<ApiAnswer> {
        self.call(ApiRequest { method: "GET", path: path.into(), ..ApiRequest::default() }).await
    }

    /// The same server, asked with the account for this project or repository.
    fn with_account_of<'b>(&'b self, path: &'b str) -> Client<'b> {
        Client { api: self.api, account: Account { registry: self.account.registry, path } }
    }

    /// Requests a project (`tail` is empty) or something below it. By name, even if the name is a number.
    async fn project(&self, name: &str, tail: &str) -> Result<ApiAnswer> {
        let headers = vec![("X-Is-Resource-Name", "true".to_owned())];
        let path = format!("/api/v2.0/projects/{name}{tail}");
        self.call(ApiRequest { method: "GET", path, headers, json: None }).await
    }

    async fn system(&self) -> Result<SystemInfo> {
        Ok(json(&self.get("/api/v2.0/systeminfo").await?).unwrap_or_default())
    }

    /// The status is 200 whatever the health; the body has the result.
    async fn ill(&self) -> Result<Vec<String>> {
        #[derive(Default, Deserialize)]
        struct Health {
            #[serde(default)]
            components: Vec<Component>,
        }
        #[derive(Deserialize)]
        struct Component {
            name: String,
            status: String,
        }
        let health: Health = json(&self.get("/api/v2.0/health").await?).unwrap_or_default();
        let ill = health.components.into_iter().filter(|component| component.status != "healthy");
        Ok(ill.map(|component| shown(&component.name)).collect())
    }

    /// Harbor 1.x has no `/api/version`. It states its version at a path without a version.
    async fn first_generation(&self) -> Option<Error> {
        let Ok(Probed::Answered(answer)) = self.api.probe(self.account, "/api/systeminfo").await else { return None };
        let version = json::<SystemInfo>(&answer)?.harbor_version?;
        if !version.trim_start_matches('v').starts_with("1.") {
            return None;
        }
        let text = format!(
            "preparing {}: it is Harbor {}, whose API differs; upgrade it to 2.x, or add the images to its storage \
             directory, which Harbor 1.x treats as authoritative",
            self.account.registry,
            shown(&version)
        );
        Some(Error::new(Kind::Refused, text))
    }
}

/// Parses the body of a 200, if it has the expected form. A login page with status 200 does not.
fn json<T: DeserializeOwned>(answer: &ApiAnswer) -> Option<T> {
    (answer.status == 200).then(|| serde_json::from_slice(&answer.body).ok()).flatten()
}

/// The message in Harbor's error body: `{"errors":[{"code","message"}]}`.
fn message(body: &Bytes) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        message: String,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    errors.errors.first().map(|error| shown(&error.message)).filter(|text| !text.is_empty())
}

/// Makes a server's text safe to show on a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
