//! Authentication at one registry: its challenge, our credentials, and the tokens obtained with them.

mod challenges;
mod claims;
mod scope;
mod shared;
mod token;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::HeaderValue;

use super::challenge::{Bearer, Challenge};
use super::failure::{Failure, Retry};
use super::outage::Work;
use super::reply::Reply;
use super::wire::Wire;
use crate::base::blocking::blocking;
use crate::base::error::{Error, Kind};
use crate::credentials::{Credentials, Store};
use challenges::{Challenges, KnownChallenge};
pub(super) use claims::Granted;
pub(super) use scope::Scopes;
pub(super) use shared::Shared;
use shared::SharedTokens;
use token::{Token, TokenRequest};

/// The authentication state of one registry.
pub(super) struct Auth {
    registry: String,
    store: Store,
    challenges: Challenges,
    /// By repository path, because namespaces may have their own credentials. The store makes sure that no helper is asked
    /// twice.
    credentials: tokio::sync::Mutex<HashMap<String, Option<Credentials>>>,
    tokens: Mutex<HashMap<Scopes, TokenSlot>>,
    /// Tokens for several repositories that were announced.
    shared: SharedTokens,
    /// Repositories that will be read, by project, as long as they have no shared token.
    expected: Mutex<BTreeMap<String, String>>,
    /// Held while they get one.
    sharing: tokio::sync::Mutex<()>,
}

/// What is used to answer a challenge.
#[derive(Clone, Copy, Default)]
struct Answering<'a> {
    /// Scopes that the registry found missing, for a token that must be fetched.
    extra: Option<&'a str>,
    /// What the registry has just refused.
    refused: Option<&'a HeaderValue>,
}

/// Locked while a token is fetched, so that concurrent requests fetch only one.
type TokenSlot = Arc<tokio::sync::Mutex<Option<Token>>>;

impl Auth {
    pub fn new(registry: &str, store: Store) -> Auth {
        let (challenges, credentials, tokens, shared, expected, sharing) = Default::default();
        Auth { registry: registry.to_owned(), store, challenges, credentials, tokens, shared, expected, sharing }
    }

    /// Announces that the repository will be read: if the token server is Harbor's, one token serves several repositories.
    pub fn expect(&self, path: &str) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.entry(scope::project(path).to_owned()).or_insert_with(|| path.to_owned());
    }

    /// Records the challenge of the registry's root.
    pub fn challenged(&self, challenge: Challenge) {
        self.challenges.learn("", challenge);
    }

    /// Whether the registry has requested authentication.
    pub fn is_asked(&self) -> bool {
        self.challenges.latest().is_some()
    }

    /// Whether its token server is Harbor's.
    pub fn is_harbor(&self) -> bool {
        self.challenges.is_harbor()
    }

    /// The `Authorization` for a request, if one is needed and available. Without credentials, a Bearer token is fetched
    /// anonymously; for Basic, nothing is sent and the registry decides. The same happens if the only known token server
    /// belongs to another repository and gives no token for this one.
    pub async fn header(&self, wire: &Wire, scopes: &Scopes) -> Result<Option<HeaderValue>, Failure> {
        let known = self.challenges.of(scopes);
        let is_own = matches!(known, KnownChallenge::Own(_));
        let Some(challenge) = known.into_challenge() else { return Ok(None) };
        match (self.answer(wire, scopes, &challenge, Answering::default()).await, &challenge) {
            (Err(failure), Challenge::Bearer(bearer)) if !is_own && is_for_good(&failure) => {
                self.challenges.note_refused(scopes, bearer, &failure.error);
                Ok(None)
            }
            (Err(failure), _) => Err(failure),
            (Ok((shown, answered)), _) => {
                // A challenge that could be answered comes first from now on.
                if answered != challenge {
                    self.challenges.learn(scopes.path(), answered);
                }
                Ok(shown)
            }
        }
    }

    /// The `Authorization` that answers `challenge`, and the challenge that it really answers: another token server may have
    /// issued the token, or Basic is used if the registry accepts both and no token is available.
    async fn answer(
        &self,
        wire: &Wire,
        scopes: &Scopes,
        challenge: &Challenge,
        with: Answering<'_>,
    ) -> Result<(Option<HeaderValue>, Challenge), Failure> {
        let Challenge::Bearer(bearer) = challenge else {
            return Ok((self.basic(scopes.path()).await?, Challenge::Basic));
        };
        let failure = match self.bearer(wire, scopes, bearer, with.extra).await {
            Ok(token) => return Ok((Some(token), challenge.clone())),
            Err(failure) => failure,
        };
        for other in bearer.others() {
            if let Ok(token) = self.bearer(wire, scopes, &other, with.extra).await {
                return Ok((Some(token), Challenge::Bearer(other)));
            }
        }
        let basic = if bearer.or_basic { self.basic(scopes.path()).await? } else { None };
        // A temporary failure of the token server is no reason to send the password to the registry.
        let failure = match basic.is_some() && failure.retry != Retry::Never {
            true => match self.bearer(wire, scopes, bearer, with.extra).await {
                Ok(token) => return Ok((Some(token), challenge.clone())),
                Err(failure) => failure,
            },
            false => failure,
        };
        match basic {
            Some(basic) if Some(&basic) != with.refused => {
                // If Basic is refused too, the password need not be tried again.
                if is_for_good(&failure) {
                    self.challenges.note_refused(scopes, bearer, &failure.error);
                }
                Ok((Some(basic), Challenge::Basic))
            }
            _ => Err(failure),
        }
    }

    /// A token from the server that `bearer` names.
    async fn bearer(
        &self,
        wire: &Wire,
        scopes: &Scopes,
        bearer: &Bearer,
        extra: Option<&str>,
    ) -> Result<HeaderValue, Failure> {
        if bearer.is_harbor() {
            self.share_expected().await.map_err(Failure::never)?;
        }
        let is_enough = |granted: &Granted| {
            scopes.are_granted_by_project(granted) || bearer.is_harbor() && scopes.are_answered_by_project(granted)
        };
        if let Some(shared) = self.shared.serving(scopes).filter(|_| extra.is_none()) {
            match self.token(wire, bearer, &shared.token, &shared.scopes, None).await {
                Ok(token) if token.granted.as_ref().is_none_or(is_enough) => {
                    return token::header("Bearer", token.secret.expose());
                }
                Ok(_) => {}
                // Some token servers do not issue tokens for several repositories.
                Err(failure) if failure.retry == Retry::Never => self.shared.drop_group(&shared),
                Err(failure) => return Err(failure),
            }
        }
        let token = self.token(wire, bearer, &self.slot(scopes), scopes, extra).await?;
        token::header("Bearer", token.secret.expose())
    }

    /// The current token, or a new one for these scopes.
    async fn token(
        &self,
        wire: &Wire,
        bearer: &Bearer,
        slot: &TokenSlot,
        scopes: &Scopes,
        extra: Option<&str>,
    ) -> Result<Token, Failure> {
        let mut held = slot.lock().await;
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.clone());
        }
        let credentials = self.credentials(scopes.path()).await.map_err(Failure::never)?;
        let (registry, credentials) = (self.registry.as_str(), credentials.as_ref());
        let wanted = TokenRequest { registry, bearer, scopes, extra, credentials };
        let token = wanted.fetch(wire).await?;
        // An account without permissions gets such a token; so does everyone while Harbor cannot reach its database.
        let grants_nothing = |granted: &Granted| granted.values().any(BTreeSet::is_empty);
        if bearer.is_harbor()
            && credentials.is_some()
            && token.granted.as_ref().is_some_and(grants_nothing)
            && let Some(failure) = wire.admitted(&format!("getting a token for {registry}"), Work::Token).await
        {
            return Err(failure);
        }
        Ok(held.insert(token).clone())
    }

    /// From now on, tokens for whole projects serve all repositories in the projects of `paths`, which name one repository of
    /// each project. Returns the groups whose tokens can be requested.
    ///
    /// # Errors
    /// Credentials cannot be read.
    pub async fn announce(&self, paths: Vec<String>) -> Result<Vec<Arc<Shared>>, Error> {
        Ok(self.shared.announce(self.by_account(paths).await?))
    }

    /// Gets shared tokens for the expected repositories.
    async fn share_expected(&self) -> Result<(), Error> {
        let _turn = self.sharing.lock().await;
        let expected = std::mem::take(&mut *self.expected.lock().unwrap_or_else(PoisonError::into_inner));
        if !expected.is_empty() {
            self.shared.expect(self.by_account(expected.into_values().collect()).await?);
        }
        Ok(())
    }

    /// Groups the paths by their credentials.
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

    /// What the token of a group grants. `None` without a token, or if the token does not say.
    pub async fn granted(&self, wire: &Wire, shared: &Arc<Shared>) -> Result<Option<Granted>, Failure> {
        let Some(Challenge::Bearer(bearer)) = self.challenges.latest() else { return Ok(None) };
        match self.token(wire, &bearer, &shared.token, &shared.scopes, None).await {
            Ok(token) => Ok(token.granted),
            Err(failure) if failure.retry == Retry::Never => {
                self.shared.drop_group(shared);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Basic credentials, with or without a challenge.
    pub async fn basic(&self, path: &str) -> Result<Option<HeaderValue>, Failure> {
        let credentials = self.credentials(path).await.map_err(Failure::never)?;
        credentials.filter(Credentials::has_basic).map(|known| token::basic_header(&known)).transpose()
    }

    /// Whether the response to a request with this `Authorization` concerns authentication, and may differ with another token.
    pub fn concerns(reply: &Reply, sent: Option<&HeaderValue>) -> bool {
        match (reply.status(), sent) {
            (401, _) => true,
            (403, Some(_)) => Challenge::of(reply).is_some_and(|challenge| challenge.missing_scope().is_some()),
            // Some gateways send 403 where they should send a challenge.
            (403, None) => matches!(Challenge::of(reply), Some(Challenge::Bearer(_))),
            _ => false,
        }
    }

    /// After a refusal of `sent`: records a new challenge and returns another `Authorization`, or `None` if there is nothing
    /// else to send.
    pub async fn renewed(
        &self,
        wire: &Wire,
        scopes: &Scopes,
        sent: Option<&HeaderValue>,
        reply: &Reply,
    ) -> Result<Option<HeaderValue>, Failure> {
        if self.is_final(scopes, sent).await {
            return Ok(None);
        }
        let challenge = Challenge::of(reply).filter(|challenge| !self.is_of_harbors_tokens(scopes, challenge, sent));
        let asked = scopes.words();
        let named = |challenge: &Challenge| {
            challenge.missing_scope().or_else(|| challenge.other_scope(&asked)).map(str::to_owned)
        };
        let extra = challenge.as_ref().and_then(named);
        // It names the token server that has just refused.
        let refused = self.challenges.take_refused(scopes, challenge.as_ref());
        if let Some((bearer, error)) = refused.filter(|_| extra.is_none()) {
            return Err(self.without_token(scopes, &Challenge::Bearer(bearer), Failure::never(error)).await);
        }
        self.forget(scopes, sent).await;
        let is_named = challenge.is_some();
        // Not the challenge that is known meanwhile: other repositories have their own.
        let Some(challenge) = challenge.or_else(|| self.challenges.of(scopes).into_challenge()) else {
            return Ok(None);
        };
        let answer =
            match self.answer(wire, scopes, &challenge, Answering { extra: extra.as_deref(), refused: sent }).await {
                // A token server may refuse everything because of one scope.
                Err(failure) if extra.is_some() && failure.retry == Retry::Never => {
                    self.answer(wire, scopes, &challenge, Answering { extra: None, refused: sent }).await
                }
                answer => answer,
            };
        match answer {
            // Only a challenge that could be answered applies to other requests for the repository: a registry that allows
            // anonymous reads may ask for a token in one place and give it to no account.
            Ok((other, answered)) => {
                if is_named || answered != challenge {
                    self.challenges.learn(scopes.path(), answered);
                }
                Ok(other.filter(|other| Some(other) != sent))
            }
            Err(failure) => Err(self.without_token(scopes, &challenge, failure).await),
        }
    }

    /// Without credentials, a token server that has refused a token once is not asked again; requests with these scopes go
    /// without a token.
    async fn without_token(&self, scopes: &Scopes, challenge: &Challenge, failure: Failure) -> Failure {
        let is_anonymous = matches!(self.credentials(scopes.path()).await, Ok(None));
        if let Challenge::Bearer(bearer) = challenge
            && is_anonymous
            && is_for_good(&failure)
        {
            self.challenges.note_refused(scopes, bearer, &failure.error);
        }
        failure
    }

    /// Whether requests with these scopes go without a token, because no account gets one.
    pub fn goes_without(&self, scopes: &Scopes) -> bool {
        self.challenges.is_refused(scopes)
    }

    /// After a refusal of what [`renewed`](Auth::renewed) returned: the other scheme that the registry accepts, if it has said
    /// so: Basic after a token, and a token after Basic.
    pub async fn alternative(
        &self,
        wire: &Wire,
        scopes: &Scopes,
        sent: Option<&HeaderValue>,
        reply: &Reply,
    ) -> Result<Option<HeaderValue>, Failure> {
        match Challenge::of(reply) {
            Some(Challenge::Bearer(bearer)) if bearer.or_basic && reply.status() == 401 && !bearer.is_harbor() => {}
            _ => return Ok(None),
        }
        match sent.is_some_and(is_bearer) {
            true => self.basic(scopes.path()).await,
            false => self.renewed(wire, scopes, sent, reply).await,
        }
    }

    /// Requests to this repository use Basic credentials from now on.
    pub fn prefer_basic(&self, scopes: &Scopes) {
        self.challenges.learn(scopes.path(), Challenge::Basic);
    }

    /// Harbor answers every refused token with a challenge for Basic credentials. It wants tokens anyway, because each request
    /// with a password costs it a password hash.
    fn is_of_harbors_tokens(&self, scopes: &Scopes, challenge: &Challenge, sent: Option<&HeaderValue>) -> bool {
        let is_harbor = |known: &Challenge| matches!(known, Challenge::Bearer(bearer) if bearer.is_harbor());
        *challenge == Challenge::Basic
            && sent.is_some_and(is_bearer)
            && self.challenges.of(scopes).into_challenge().as_ref().is_some_and(is_harbor)
    }

    /// Whether the refused token is a new one of Harbor's that grants something in these projects, but not what was needed;
    /// another one would grant no more.
    async fn is_final(&self, scopes: &Scopes, sent: Option<&HeaderValue>) -> bool {
        if !self.challenges.is_harbor() || !sent.is_some_and(is_bearer) {
            return false;
        }
        let shared = self.shared.serving(scopes).map(|shared| shared.token.clone());
        for slot in shared.into_iter().chain([self.slot(scopes)]) {
            let held = slot.lock().await;
            let Some(token) = held.as_ref().filter(|token| token.is_sent_as(sent) && token.is_fresh()) else {
                continue;
            };
            let is_final =
                |granted: &Granted| scopes.are_answered_by_project(granted) && !scopes.are_granted_by_project(granted);
            return token.granted.as_ref().is_some_and(is_final);
        }
        false
    }

    /// Drops the refused token, unless another request has already replaced it.
    async fn forget(&self, scopes: &Scopes, refused: Option<&HeaderValue>) {
        if let Some(shared) = self.shared.serving(scopes) {
            let token = forget(&shared.token, refused).await;
            if let Some(token) = shared.dropped(token, refused) {
                self.shared.refused(&token, scopes);
            }
        }
        forget(&self.slot(scopes), refused).await;
    }

    fn slot(&self, scopes: &Scopes) -> TokenSlot {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.entry(scopes.clone()).or_default().clone()
    }

    /// The credentials for a repository; a helper runs on a thread that may block.
    async fn credentials(&self, path: &str) -> Result<Option<Credentials>, Error> {
        let mut known = self.credentials.lock().await;
        if let Some(credentials) = known.get(path) {
            return Ok(credentials.clone());
        }
        let (store, registry, asked) = (self.store.clone(), self.registry.clone(), path.to_owned());
        let attempted = format!("looking up credentials for {}", self.registry);
        let found = blocking(&attempted, move || store.find(&registry, &asked)).await?;
        known.insert(path.to_owned(), found.clone());
        Ok(found)
    }
}

/// Whether a token server will never issue a token; problems on this side do not count.
fn is_for_good(failure: &Failure) -> bool {
    let is_there = matches!(failure.error.kind(), Kind::Unauthorized | Kind::Refused | Kind::NotFound | Kind::Network);
    failure.retry == Retry::Never && is_there && failure.error.stopped().is_none()
}

/// Takes the token out of `slot` if it is the refused one.
async fn forget(slot: &TokenSlot, refused: Option<&HeaderValue>) -> Option<Token> {
    let mut held = slot.lock().await;
    match held.as_ref() {
        Some(token) if token.is_sent_as(refused) => held.take(),
        _ => None,
    }
}

pub(super) fn is_bearer(sent: &HeaderValue) -> bool {
    sent.as_bytes().starts_with(b"Bearer ")
}
