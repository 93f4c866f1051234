//! Whether this account may push to a project, found out without pushing.
//!
//! Harbor grants a registry token exactly the actions an account has on the project of a scope, whatever the scope asks
//! for (`src/core/service/token/creator.go`), to users, OIDC secrets and robots alike; so the token's `access` claim is
//! the answer, for many projects in one request. Where the token service can't be asked, users have
//! `/users/current/permissions`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::error::Result;

use super::{Client, json};

/// So many scopes fit one request line of 8 KiB, which is nginx's limit, with names of full length.
const SCOPES_AT_ONCE: usize = 20;

/// What is known of the right to push to one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    Allowed,
    /// It may pull and not push.
    Denied,
    /// It may do nothing there: no right at all, or no such project.
    Nothing,
    /// Could not be found out.
    Unknown,
}

/// Harbor sends both names, and one of them is empty.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    fn given(&self) -> Option<&str> {
        let names = [&self.token, &self.access_token];
        names.into_iter().flatten().map(String::as_str).find(|token| !token.is_empty())
    }
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    access: Option<Vec<Access>>,
}

#[derive(Deserialize)]
struct Access {
    name: String,
    #[serde(default)]
    actions: Option<Vec<String>>,
}

impl Client<'_> {
    /// The right to push to each of `projects`, given as project → path of some repository in it.
    pub(super) async fn push_rights(&self, projects: &BTreeMap<String, String>) -> Result<BTreeMap<String, Push>> {
        let mut rights = BTreeMap::new();
        let all: Vec<(&String, &String)> = projects.iter().collect();
        for some in all.chunks(SCOPES_AT_ONCE) {
            let scopes: String = some.iter().map(|(_, path)| format!("&scope=repository:{path}:pull,push")).collect();
            let answer = self.get(format!("/service/token?service=harbor-registry{scopes}")).await?;
            let access = json::<Token>(&answer).and_then(|token| access_of(token.given()?)).unwrap_or_default();
            for (project, path) in some {
                let granted = access.iter().find(|access| access.name == **path);
                rights.insert((*project).clone(), granted.map_or(Push::Unknown, |access| judge(&access.actions)));
            }
        }
        Ok(rights)
    }

    /// The same for one project whose number is known, by the users' own API.
    pub(super) async fn push_permission(&self, project: u64) -> Result<Push> {
        #[derive(Deserialize)]
        struct Permission {
            resource: String,
            action: String,
        }
        let path = format!("/api/v2.0/users/current/permissions?scope=/project/{project}&relative=true");
        let answer = self.get(path).await?;
        let permissions = json::<Option<Vec<Permission>>>(&answer).flatten().unwrap_or_default();
        let may = |wanted: &str| {
            let on_repositories = |resource: &str| resource.rsplit('/').next() == Some("repository");
            permissions.iter().any(|permission| on_repositories(&permission.resource) && permission.action == wanted)
        };
        // An empty list is also what a scope gets that the server does not understand.
        Ok(match (may("push"), permissions.is_empty()) {
            (true, _) => Push::Allowed,
            (false, true) => Push::Unknown,
            (false, false) => Push::Denied,
        })
    }
}

fn judge(actions: &Option<Vec<String>>) -> Push {
    let actions = actions.as_deref().unwrap_or_default();
    match actions {
        [] => Push::Nothing,
        _ if actions.iter().any(|action| action == "push" || action == "*") => Push::Allowed,
        _ => Push::Denied,
    }
}

/// The `access` claim of a JWT; the signature is the registry's business.
fn access_of(token: &str) -> Option<Vec<Access>> {
    let payload = token.split('.').nth(1)?.trim_end_matches('=');
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    claims.access
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("x.{}.y", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn the_claim_tells_what_may_be_done() {
        let access = access_of(&token(
            r#"{"access":[{"type":"repository","name":"a/x","actions":["pull","push"]},
                {"name":"b/x","actions":["pull"]},{"name":"c/x","actions":null},{"name":"d/x","actions":["*"]}]}"#,
        ));
        let judged: Vec<Push> = access.unwrap().iter().map(|access| judge(&access.actions)).collect();
        assert_eq!(judged, [Push::Allowed, Push::Denied, Push::Nothing, Push::Allowed]);
    }

    #[test]
    fn what_is_no_token_tells_nothing_rather_than_denied() {
        for text in ["", "opaque", "a.b.c", "..", "x.e30.y", &token("[]"), &token(r#"{"access":null}"#)] {
            assert!(access_of(text).is_none(), "{text}");
        }
    }
}
