//! A token server at `/token` and the check of what it gave.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Answer, Seen};

/// Gives `token1`, `token2`, … to every client.
pub struct Tokens {
    uses: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    given: usize,
    /// Valid tokens, and how often each may still be used.
    left: HashMap<String, usize>,
}

impl Tokens {
    /// Good until they are made to expire.
    pub fn new() -> Tokens {
        Tokens::good_for(usize::MAX)
    }

    /// Each is good for so many requests.
    pub fn good_for(uses: usize) -> Tokens {
        Tokens { uses, state: Mutex::default() }
    }

    pub fn expire(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).left.clear();
    }

    /// An answer, unless the request has a valid token and may pass.
    pub fn answer(&self, request: &Seen) -> Option<Answer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if request.target.starts_with("/token") {
            state.given += 1;
            let token = format!("token{}", state.given);
            state.left.insert(token.clone(), self.uses);
            return Some(Answer::new(200).body(format!(r#"{{"token":"{token}","expires_in":300}}"#)));
        }
        let token = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        match state.left.get_mut(token) {
            Some(left) if *left > 0 => {
                *left -= 1;
                None
            }
            _ => Some(challenge(request)),
        }
    }
}

/// 401, and where tokens are.
pub fn challenge(request: &Seen) -> Answer {
    let realm = format!("http://{}/token", request.header("host"));
    let challenge = format!(r#"Bearer realm="{realm}",service="the registry",scope="x""#);
    Answer::new(401).with("WWW-Authenticate", challenge).body(r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
}
