//! A registry's own API beside the distribution protocol, as far as stages may see it.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use bytes::Bytes;

use crate::base::error::{Error, Result};
use crate::oci::Repository;

/// Whose credentials a request shows: those that count for the repository with this path. Of a registry where each project has
/// an account of its own, there may be none for the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account<'a> {
    /// `host[:port]`.
    pub registry: &'a str,
    /// Empty: the credentials for all of the registry.
    pub path: &'a str,
}

impl<'a> Account<'a> {
    pub fn of(repository: &'a Repository) -> Account<'a> {
        Account { registry: repository.registry(), path: repository.path() }
    }
}

/// One request to the HTTP server behind a registry, with an account's credentials (Basic) and the registry's TLS settings.
#[derive(Clone, Debug, Default)]
pub struct ApiRequest {
    /// `GET`, `HEAD`, `POST`, …
    pub method: &'static str,
    /// Path and query, beginning with `/`, already percent-encoded.
    pub path: String,
    /// Further headers, such as `X-Is-Resource-Name: true`.
    pub headers: Vec<(&'static str, String)>,
    /// Sent as `application/json`.
    pub json: Option<serde_json::Value>,
}

/// What the server answered, whatever the status.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    pub status: u16,
    /// At most 4 MiB of it.
    pub body: Bytes,
}

/// Whoever can speak to that API. Transient failures (5xx, 429, broken connections) are retried below; an error means that
/// no answer was to be had.
#[async_trait]
pub trait Api: Send + Sync {
    async fn call(&self, account: Account<'_>, request: ApiRequest) -> Result<ApiAnswer>;

    /// Of `repositories` those that the same credentials count for, account by account.
    ///
    /// # Errors
    /// Credentials that cannot be read.
    async fn accounts(&self, repositories: &[Repository]) -> Result<Vec<Vec<Repository>>>;

    /// What this account may do in the projects of `repositories`, one repository of each, by what the registry's token
    /// server grants; in as few requests as possible. A repository that is missing in the answer could not be found out.
    ///
    /// From now on these tokens serve all that is asked of these projects: only for registries whose tokens hold for whole
    /// projects (the first component of a path), such as Harbor.
    ///
    /// # Errors
    /// No answer was to be had.
    async fn grants(&self, repositories: &[Repository]) -> Result<HashMap<Repository, BTreeSet<String>>>;

    /// Asks for `path`, to find out whether there is such an API: a server that does not know the path may answer anything.
    ///
    /// # Errors
    /// There is no server to ask.
    async fn probe(&self, account: Account<'_>, path: &str) -> Result<Probed>;

    /// Waits, after `registry` has said that it takes no change for now, until it may be asked again.
    ///
    /// # Errors
    /// `refusal`, when as much was waited as the user allows.
    async fn wait_for_changes(&self, registry: &str, refusal: Error) -> Result<()>;

    /// `registry` says that it takes changes: those that wait for it go on.
    fn takes_changes(&self, registry: &str);
}

/// What came of the question whether a registry has an API of its own.
#[derive(Clone, Debug)]
pub enum Probed {
    Answered(ApiAnswer),
    /// No answer that says something, and nothing else speaks for such an API.
    Nothing,
    /// No answer that says something, although the registry calls itself one that has such an API.
    Unclear(Error),
}
