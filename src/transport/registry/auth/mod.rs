//! Who we are to one registry: its challenge, our credentials, the tokens got for them.

mod challenge;
mod claims;
mod scope;
mod shared;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::HeaderValue;

use super::reply::Reply;
use super::retry::{Failure, Retry};
use super::wire::Wire;
use crate::credentials::{Credentials, Store};
use crate::error::Error;
pub(super) use challenge::{Bearer, Challenge};
pub(super) use claims::Granted;
pub(super) use scope::Scopes;
pub(super) use shared::Shared;
use shared::SharedTokens;
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
    /// Tokens for several repositories that were announced.
    shared: SharedTokens,
    /// Repositories that are going to be read, by their projects, as long as they have no shared token.
    expected: Mutex<BTreeMap<String, String>>,
    /// Held while they get one.
    sharing: tokio::sync::Mutex<()>,
}

/// Locked while a token is fetched, so that concurrent requests fetch one.
type TokenSlot = Arc<tokio::sync::Mutex<Option<Token>>>;

impl Auth {
    pub fn new(registry: &str, store: Store) -> Auth {
        let (challenge, credentials, tokens, shared, expected, sharing) = Default::default();
        Auth { registry: registry.to_owned(), store, challenge, credentials, tokens, shared, expected, sharing }
    }

    /// The repository with this path is going to be read: if the token server turns out to be Harbor's, one token serves several.
    pub fn expect(&self, path: &str) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.entry(scope::project(path).to_owned()).or_insert_with(|| path.to_owned());
    }

    pub fn set_challenge(&self, challenge: Option<Challenge>) {
        *self.challenge.lock().unwrap_or_else(PoisonError::into_inner) = challenge;
    }

    /// Whether the registry has asked who we are.
    pub fn is_asked(&self) -> bool {
        self.challenge.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Whether its token server is Harbor's.
    pub fn is_harbor(&self) -> bool {
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(&*challenge, Some(Challenge::Bearer(bearer)) if bearer.is_harbor())
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
                if bearer.is_harbor() {
                    self.share_expected().await.map_err(Failure::never)?;
                }
                let is_enough = |granted: &Granted| {
                    scopes.are_granted_by_project(granted)
                        || bearer.is_harbor() && scopes.are_answered_by_project(granted)
                };
                if let Some(shared) = self.shared.serving(scopes).filter(|_| extra.is_none()) {
                    match self.token(wire, &bearer, (&shared.token, &shared.scopes), None).await {
                        Ok(token) if token.granted.as_ref().is_none_or(is_enough) => {
                            return token::header("Bearer", token.secret.expose()).map(Some);
                        }
                        Ok(_) => {}
                        // Some token servers give none for several repositories.
                        Err(failure) if failure.retry == Retry::Never => self.shared.drop_group(&shared),
                        Err(failure) => return Err(failure),
                    }
                }
                let fetched = self.token(wire, &bearer, (&self.slot(scopes), scopes), extra.as_deref()).await;
                let token = match (fetched, bearer.or_basic) {
                    (Err(failure), true) => {
                        let Some(basic) = self.basic(scopes.path()).await? else { return Err(failure) };
                        self.set_challenge(Some(Challenge::Basic));
                        return Ok(Some(basic));
                    }
                    (fetched, _) => fetched?,
                };
                token::header("Bearer", token.secret.expose()).map(Some)
            }
        }
    }

    /// The token that is held there, or a new one for these scopes.
    async fn token(
        &self,
        wire: &Wire,
        bearer: &Bearer,
        (slot, scopes): (&TokenSlot, &Scopes),
        extra: Option<&str>,
    ) -> Result<Token, Failure> {
        let mut held = slot.lock().await;
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.clone());
        }
        let credentials = self.credentials(scopes.path()).await.map_err(Failure::never)?;
        let (registry, credentials) = (self.registry.as_str(), credentials.as_ref());
        let wanted = Wanted { registry, bearer, scopes, extra, credentials };
        Ok(held.insert(wanted.fetch(wire).await?).clone())
    }

    /// From now on, tokens for whole projects serve all repositories in the projects of `paths`, which name one repository of
    /// each project. Gives the groups whose tokens can be asked for.
    ///
    /// # Errors
    /// Credentials that cannot be read.
    pub async fn announce(&self, paths: Vec<String>) -> Result<Vec<Arc<Shared>>, Error> {
        Ok(self.shared.announce(self.by_account(paths).await?))
    }

    /// Gives the repositories that are expected their shared tokens.
    async fn share_expected(&self) -> Result<(), Error> {
        let _turn = self.sharing.lock().await;
        let expected = std::mem::take(&mut *self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        if !expected.is_empty() {
            self.shared.expect(self.by_account(expected.into_values().collect()).await?);
        }
        Ok(())
    }

    /// The paths that the same credentials count for.
    pub async fn by_account(&self, paths: Vec<String>) -> Result<Vec<Vec<String>>, Error> {
        let mut accounts: Vec<(Option<Credentials>, Vec<String>)> = Vec::new();
        for path in paths {
            let credentials = self.credentials(&path).await?;
            match accounts.iter_mut().find(|(known, _)| *known == credentials) {
                Some((_, paths)) => paths.push(path),
                None => accounts.push((credentials, vec![path])),
            }
        }
        Ok(accounts.into_iter().map(|(_, paths)| paths).collect())
    }

    /// What the token of a group grants. `None`: there is none, or it does not say so.
    pub async fn granted(&self, wire: &Wire, shared: &Arc<Shared>) -> Result<Option<Granted>, Failure> {
        let challenge = self.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Challenge::Bearer(bearer)) = challenge else { return Ok(None) };
        match self.token(wire, &bearer, (&shared.token, &shared.scopes), None).await {
            Ok(token) => Ok(token.granted),
            Err(failure) if failure.retry == Retry::Never => {
                self.shared.drop_group(shared);
                Ok(None)
            }
            Err(failure) => Err(failure),
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
            403 => Challenge::of(reply).is_some_and(|c| c.missing_scope().is_some()),
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
        let challenge = Challenge::of(reply);
        let asked = scopes.words();
        let named = |challenge: &Challenge| {
            challenge.missing_scope().or_else(|| challenge.other_scope(&asked)).map(str::to_owned)
        };
        let extra = challenge.as_ref().and_then(named);
        if challenge.is_some() {
            self.set_challenge(challenge);
        }
        self.forget(scopes, sent).await;
        let other = match self.header_with(wire, scopes, extra.clone()).await {
            // A token server may refuse all for the sake of one scope.
            Err(failure) if extra.is_some() && failure.retry == Retry::Never => {
                self.header_with(wire, scopes, None).await?
            }
            other => other?,
        };
        Ok(other.filter(|other| Some(other) != sent))
    }

    /// Drops the token that was refused, unless another request has already replaced it.
    async fn forget(&self, scopes: &Scopes, refused: Option<&HeaderValue>) {
        if let Some(shared) = self.shared.serving(scopes)
            && let Some(token) = forget(&shared.token, refused).await
        {
            self.shared.refused(&token, scopes);
        }
        forget(&self.slot(scopes), refused).await;
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

/// Takes the token out of `slot` if it is the refused one.
async fn forget(slot: &TokenSlot, refused: Option<&HeaderValue>) -> Option<Token> {
    let mut held = slot.lock().await;
    let current = held.as_ref().and_then(|token| token::header("Bearer", token.secret.expose()).ok());
    if current.as_ref() == refused { held.take() } else { None }
}
