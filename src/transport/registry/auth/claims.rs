//! What a token grants, if it says so: the `access` claim of a JWT (distribution `docs/spec/auth/jwt.md`).
//!
//! **Threats.** The claim is decoded without verifying its signature, which is the registry's job. It is used to warn early
//! and to choose among tokens, never to grant anything.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The granted actions by repository path.
pub(in crate::transport::registry) type Granted = BTreeMap<String, BTreeSet<String>>;

#[derive(Deserialize)]
struct Claims {
    access: Option<Vec<Access>>,
}

#[derive(Deserialize)]
struct Access {
    #[serde(default, rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    actions: Option<Vec<String>>,
}

/// Returns `None` if it is not a JWT with such a claim.
pub(super) fn granted(token: &str) -> Option<Granted> {
    let payload = token.split('.').nth(1)?.trim_end_matches('=');
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let mut granted = Granted::new();
    for access in claims.access?.into_iter().filter(|access| access.kind == "repository") {
        granted.entry(access.name).or_default().extend(access.actions.unwrap_or_default());
    }
    Some(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("x.{}.y", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn the_claim_says_what_may_be_done() {
        let granted = granted(&token(
            r#"{"access":[{"type":"repository","name":"a/x","actions":["pull","push"]},
                {"type":"repository","name":"b/x","actions":null},{"type":"registry","name":"catalog","actions":["*"]}]}"#,
        ));
        let granted = granted.unwrap();
        let words = |path: &str| granted.get(path).map(|actions| actions.iter().cloned().collect::<Vec<_>>().join(","));
        assert_eq!((words("a/x").as_deref(), words("b/x").as_deref()), (Some("pull,push"), Some("")));
        assert_eq!(words("catalog"), None);
    }

    #[test]
    fn what_is_no_token_says_nothing_rather_than_denied() {
        for text in ["", "opaque", "a.b.c", "..", "x.e30.y", &token("[]"), &token(r#"{"access":null}"#)] {
            assert!(granted(text).is_none(), "{text}");
        }
    }
}
