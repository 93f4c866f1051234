//! Who we are to one registry: its challenge, our credentials, the tokens got for them.

mod challenge;
mod scope;
mod token;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::HeaderValue;

use super::reply::Reply;
use super::retry::Failure;
use super::wire::Wire;
use crate::credentials::{Credentials, Store};
use crate::error::Error;
#[cfg(fuzzing)]
pub(super) use challenge::Bearer;
pub(super) use challenge::Challenge;
pub(super) use scope::Scopes;
use token::{Token, Wanted};

/// The authentication state of one registry.
pub(super) struct Auth {
    registry: String,
    store: Store,
    challenge: Mutex<Option<Challenge>>,
    /// By repository path, whose namespaces may have credentials of their own. The store sees to it that no helper is asked
    /// twice.
    credentials: tokio::sync::Mutex<HashMap<String, Option<Credentials>>>,
    tokens: Mutex<HashMap<Scopes, TokenSlot>>,
}

/// Locked while a token is fetched, so that concurrent requests fetch one.
type TokenSlot = Arc<tokio::sync::Mutex<Option<Token>>>;

impl Auth {
    pub fn new(registry: &str, store: Store) -> Auth {
        let (challenge, credentials, tokens) = Default::default();
        Auth { registry: registry.to_owned(), store, challenge, credentials, tokens }
    }

    pub fn set_challenge(&self, challenge: Option<Challenge>) {
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = challenge;
    }

    /// Whether the registry has asked who we are.
    pub fn is_asked(&self) -> bool {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The `Authorization` for a request, if one is wanted and can be had. Without credentials a Bearer token is fetched
    /// anonymously; for Basic nothing is sent and the registry decides.
    pub async fn header(&self, wire: &Wire, scopes: &Scopes) -> Result<Option<HeaderValue>, Failure> {
        self.header_with(wire, scopes, None).await
    }

    /// A token that has to be fetched is asked for with what `extra` says, too.
    async fn header_with(
        &self,
        wire: &Wire,
        scopes: &Scopes,
        extra: Option<String>,
    ) -> Result<Option<HeaderValue>, Failure> {
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => self.basic(scopes.path()).await,
            Some(Challenge::Bearer(bearer)) => {
                let slot = self.slot(scopes);
                let mut held = slot.lock().await;
                if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
                    return token::header("Bearer", token.secret.expose()).map(Some);
                }
                let credentials = self.credentials(scopes.path()).await.map_err(Failure::never)?;
                let (registry, credentials) = (self.registry.as_str(), credentials.as_ref());
                let wanted = Wanted { registry, bearer: &bearer, scopes, extra: extra.as_deref(), credentials };
                let token = held.insert(wanted.fetch(wire).await?);
                token::header("Bearer", token.secret.expose()).map(Some)
            }
        }
    }

    /// Basic credentials, challenge or not.
    pub async fn basic(&self, path: &str) -> Result<Option<HeaderValue>, Failure> {
        let credentials = self.credentials(path).await.map_err(Failure::never)?;
        credentials.filter(Credentials::has_basic).map(|known| token::basic_header(&known)).transpose()
    }

    /// Whether the answer is about who we are, and so may differ with another token.
    pub fn concerns(reply: &Reply) -> bool {
        match reply.status() {
            401 => true,
            403 => Challenge::first(reply.headers("www-authenticate")).is_some_and(|c| c.missing_scope().is_some()),
            _ => false,
        }
    }

    /// After a refusal of `sent`: takes over a new challenge and gives another `Authorization`, or `None` if there is
    /// nothing else to show.
    pub async fn renewed(
        &self,
        wire: &Wire,
        scopes: &Scopes,
        sent: Option<&HeaderValue>,
        reply: &Reply,
    ) -> Result<Option<HeaderValue>, Failure> {
        let challenge = Challenge::first(reply.headers("www-authenticate"));
        let extra = challenge.as_ref().and_then(Challenge::missing_scope).map(str::to_owned);
        if challenge.is_some() {
            self.set_challenge(challenge);
        }
        self.forget(scopes, sent).await;
        let other = self.header_with(wire, scopes, extra).await?;
        Ok(other.filter(|other| Some(other) != sent))
    }

    /// Drops the token that was refused, unless another request has already replaced it.
    async fn forget(&self, scopes: &Scopes, refused: Option<&HeaderValue>) {
        let slot = self.slot(scopes);
        let mut held = slot.lock().await;
        let current = held.as_ref().and_then(|token| token::header("Bearer", token.secret.expose()).ok());
        if current.as_ref() == refused {
            *held = None;
        }
    }

    fn slot(&self, scopes: &Scopes) -> TokenSlot {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.entry(scopes.clone()).or_default().clone()
    }

    /// What is known for a repository; a helper runs on a thread that may block.
    async fn credentials(&self, path: &str) -> Result<Option<Credentials>, Error> {
        let mut known = self.credentials.lock().await;
        if let Some(credentials) = known.get(path) {
            return Ok(credentials.clone());
        }
        let (store, registry, asked) = (self.store.clone(), self.registry.clone(), path.to_owned());
        let looking_up = tokio::task::spawn_blocking(move || store.find(&registry, &asked));
        let attempt = || format!("looking up credentials for {}", self.registry);
        let found = looking_up.await.map_err(|e| Error::input(attempt()).because(e))??;
        known.insert(path.to_owned(), found.clone());
        Ok(found)
    }
}
