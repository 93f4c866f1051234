//! Checks whether a registry accepts the credentials of this run, and what they allow. Nothing is changed.

use reqwest::Method;

use super::Registries;
use super::answer::{page, refusal};
use super::auth::Scopes;
use super::facts::WebPage;
use super::host::{Ask, Host, strange};
use super::location;
use super::reply::Reply;
use super::upload;
use crate::base::error::Result;
use crate::oci::Repository;

/// How a registry reacted to the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthCheck {
    /// It has checked the credentials and accepts them, or accepts anonymous access without any.
    Accepted,
    /// It requests no credentials, so nothing is known about ours.
    NotAsked,
    /// A web page with this text: it is not a registry, or a gateway that routes only the paths of repositories.
    WebPage(String),
}

impl Registries {
    /// Sends the credentials for `path` (may be empty) to the registry: `GET /v2/`, answering its challenge
    /// (distribution-spec, "Determining Support").
    ///
    /// # Errors
    /// [`Unauthorized`](crate::base::error::Kind::Unauthorized) if it or its token server rejects them; or it cannot be asked.
    pub async fn check_auth(&self, registry: &str, path: &str) -> Result<AuthCheck> {
        let host = match Repository::new(registry, path) {
            Ok(repository) => self.target(&repository)?,
            Err(_) => self.host(registry),
        };
        let what = format!("asking {registry} whether it accepts the credentials");
        let ask = Ask::new(Method::GET, "/v2/".to_owned(), Scopes::enter(path), &what);
        if let Some(page) = page(&mut expect(&host, &ask, &[200]).await?).await {
            return Ok(AuthCheck::WebPage(page));
        }
        Ok(if host.auth.is_asked() { AuthCheck::Accepted } else { AuthCheck::NotAsked })
    }

    /// Checks whether we may read a repository, which need not exist.
    ///
    /// # Errors
    /// The registry refuses, a web page came instead of a response, or it cannot be asked.
    pub async fn may_pull(&self, repository: &Repository) -> Result<()> {
        let host = self.target(repository)?;
        let what = format!("asking whether {repository} may be pulled from");
        let path = format!("/v2/{}/tags/list?n=1", repository.path());
        let ask = Ask::new(Method::GET, path, Scopes::pull(repository), &what);
        match page(&mut expect(&host, &ask, &[200, 404]).await?).await {
            Some(page) => Err(strange(&what, format!("the answer is not a registry's: {page}")).with_fact(WebPage)),
            None => Ok(()),
        }
    }

    /// Checks whether we may write to a repository by starting an upload and cancelling it at once.
    ///
    /// # Errors
    /// The registry refuses or cannot be asked.
    pub async fn may_push(&self, repository: &Repository) -> Result<()> {
        may_push(&*self.target(repository)?, repository).await
    }
}

/// As [`Registries::may_push`].
pub(super) async fn may_push(host: &Host, repository: &Repository) -> Result<()> {
    let what = format!("asking whether {repository} may be pushed to");
    let path = format!("/v2/{}/blobs/uploads/", repository.path());
    let reply = expect(host, &Ask::new(Method::POST, path, Scopes::push(repository), &what), &[202]).await?;
    let session = reply.header("location").and_then(|to| location::resolve(reply.url(), to).ok());
    drop(reply);
    if let Some(session) = session {
        upload::give_up(host, repository, session, &what).await;
    }
    Ok(())
}

/// The response, if its status is one of these.
async fn expect(host: &Host, ask: &Ask<'_>, statuses: &[u16]) -> Result<Reply> {
    let reply = host.ask(ask).await?;
    if statuses.contains(&reply.status()) { Ok(reply) } else { Err(refusal(ask.what, reply).await.error) }
}
