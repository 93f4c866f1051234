//! A registry's own API next to the distribution protocol, as stages see it.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::error::{Error, Result};
use crate::oci::Repository;

/// Whose credentials a request uses: those for the repository with this path. If each project of a registry has its own
/// account, there may be none for the whole registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// `host[:port]`.
    pub registry: &'a str,
    /// Empty for the credentials of the whole registry.
    pub path: &'a str,
}

impl<'a> Account<'a> {
    pub fn of(repository: &'a Repository) -> Account<'a> {
        Account { registry: repository.registry(), path: repository.path() }
    }
}

/// A request to the HTTP server of a registry, with an account's credentials (Basic) and the registry's TLS settings.
#[derive(Clone, Debug, Default)]
pub struct ApiRequest {
    /// `GET`, `HEAD`, `POST`, …
    pub method: &'static str,
    /// Path and query, starting with `/`, percent-encoded.
    pub path: String,
    /// Further headers, such as `X-Is-Resource-Name: true`.
    pub headers: Vec<(&'static str, String)>,
    /// The body, sent as `application/json`.
    pub json: Option<serde_json::Value>,
}

/// The server's response, whatever its status.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    pub status: u16,
    /// At most 4 MiB.
    pub body: Bytes,
}

/// Sends requests to such an API. Implementations retry temporary failures (5xx, 429, broken connections); an error means that
/// no response could be obtained.
#[async_trait]
pub trait Api: Send + Sync {
    async fn call(&self, account: Account<'_>, request: ApiRequest) -> Result<ApiAnswer>;

    /// Groups `repositories` by the account whose credentials apply to them.
    ///
    /// # Errors
    /// Credentials cannot be read.
    async fn accounts(&self, repositories: &[Repository]) -> Result<Vec<Vec<Repository>>>;

    /// What this account may do in the projects of `repositories` (one repository each) according to the registry's token
    /// server, with as few requests as possible. A repository that is missing from the answer could not be determined.
    ///
    /// These tokens then serve all requests for these projects. Use this only for registries whose tokens apply to whole
    /// projects (the first path component), such as Harbor.
    ///
    /// # Errors
    /// No response could be obtained.
    async fn grants(&self, repositories: &[Repository]) -> Result<HashMap<Repository, BTreeSet<String>>>;

    /// Requests `path` to find out whether such an API exists. A server that does not know the path may answer anything.
    ///
    /// # Errors
    /// There is no server to ask.
    async fn probe(&self, account: Account<'_>, path: &str) -> Result<Probed>;

    /// Waits after `registry` has announced that it is read-only, until it may be asked again.
    ///
    /// # Errors
    /// Returns `refusal` once the wait exceeds what the user allows.
    async fn wait_for_changes(&self, registry: &str, refusal: Error) -> Result<()>;

    /// Reports that `registry` accepts changes again, which ends the waits.
    fn takes_changes(&self, registry: &str);
}

/// Whether a registry has an API of its own.
#[derive(Clone, Debug)]
pub enum Probed {
    Answered(ApiAnswer),
    /// The response was not informative, and nothing suggests such an API.
    Nothing,
    /// The response was not informative, although the registry identifies itself as one with such an API.
    Unclear(Error),
}
