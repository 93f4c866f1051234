//! A token server at `/token`, and the check of its tokens.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Answer, Seen};

/// Issues `token1`, `token2`, … to any client.
pub struct Tokens {
    uses: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    given: usize,
    /// Valid tokens with their remaining uses.
    left: HashMap<String, usize>,
}

impl Tokens {
    /// Tokens that are valid until they are made to expire.
    pub fn new() -> Tokens {
        Tokens::good_for(usize::MAX)
    }

    /// Tokens that are each valid for this many requests.
    pub fn good_for(uses: usize) -> Tokens {
        Tokens { uses, state: Mutex::default() }
    }

    pub fn expire(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).left.clear();
    }

    /// The refusal, unless the request has a valid token.
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

/// 401 with the address of the token server.
pub fn challenge(request: &Seen) -> Answer {
    let realm = format!("http://{}/token", request.header("host"));
    let challenge = format!(r#"Bearer realm="{realm}",service="the registry",scope="x""#);
    Answer::new(401).with("WWW-Authenticate", challenge).body(r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
}
