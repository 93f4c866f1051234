//! Selects the challenge for a request: repositories on one host may have different token servers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::scope::Scopes;
use crate::base::error::Error;
use crate::transport::registry::challenge::{Bearer, Challenge};

/// The challenges of a registry.
#[derive(Default)]
pub(super) struct Challenges(Mutex<State>);

#[derive(Default)]
struct State {
    /// The latest challenge of any request; it applies until a repository has sent its own.
    latest: Option<Challenge>,
    /// The latest challenge of each repository, by path; that of the root has the empty path.
    own: HashMap<String, Challenge>,
    /// Scopes for which a token server has refused a token, with the refusal. These requests go without a token as long as no
    /// challenge of their repository could be answered.
    refused: HashMap<Scopes, (Bearer, Error)>,
}

/// The challenge to answer before a request is sent.
pub(super) enum KnownChallenge {
    /// A challenge of the same repository.
    Own(Challenge),
    /// A challenge of another repository.
    Other(Challenge),
    Nothing,
}

impl KnownChallenge {
    pub fn into_challenge(self) -> Option<Challenge> {
        match self {
            KnownChallenge::Own(challenge) | KnownChallenge::Other(challenge) => Some(challenge),
            KnownChallenge::Nothing => None,
        }
    }
}

impl Challenges {
    /// Records a challenge that a request to the repository at `path` has received.
    pub fn learn(&self, path: &str, challenge: Challenge) {
        let mut state = self.lock();
        state.own.insert(path.to_owned(), challenge.clone());
        state.latest = Some(challenge);
    }

    pub fn of(&self, scopes: &Scopes) -> KnownChallenge {
        let state = self.lock();
        match (state.own.get(scopes.path()), &state.latest) {
            (Some(own), _) => KnownChallenge::Own(own.clone()),
            (None, _) if state.refused.contains_key(scopes) => KnownChallenge::Nothing,
            (None, Some(latest)) => KnownChallenge::Other(latest.clone()),
            (None, None) => KnownChallenge::Nothing,
        }
    }

    pub fn latest(&self) -> Option<Challenge> {
        self.lock().latest.clone()
    }

    /// Whether one of its token servers is Harbor's.
    pub fn is_harbor(&self) -> bool {
        let is_harbor = |challenge: &Challenge| matches!(challenge, Challenge::Bearer(bearer) if bearer.is_harbor());
        let state = self.lock();
        state.latest.iter().chain(state.own.values()).any(is_harbor)
    }

    /// Records that the token server of `bearer` refuses a token for these scopes.
    pub fn note_refused(&self, scopes: &Scopes, bearer: &Bearer, error: &Error) {
        self.lock().refused.insert(scopes.clone(), (bearer.clone(), error.clone()));
    }

    /// Whether these requests go without a token, because a token server has refused one.
    pub fn is_refused(&self, scopes: &Scopes) -> bool {
        self.lock().refused.contains_key(scopes)
    }

    /// Why the token server of `challenge` refused a token for these scopes, if it was asked before. Afterwards it can be
    /// asked again.
    pub fn take_refused(&self, scopes: &Scopes, challenge: Option<&Challenge>) -> Option<(Bearer, Error)> {
        let (asked, error) = self.lock().refused.remove(scopes)?;
        match challenge {
            Some(Challenge::Bearer(bearer)) => bearer.is_same_server(&asked).then_some((asked, error)),
            Some(Challenge::Basic) => None,
            // No other way to get a token was named.
            None => Some((asked, error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
