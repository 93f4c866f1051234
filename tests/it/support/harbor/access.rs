//! Accounts, their rights, and Harbor's answers when a right is missing (`middleware/v2auth`, `middleware/security`).

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::answer::{header as with_header, refuse};
use super::{Answer, Call, Project, State};

/// The rights of a project member on its repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    Pull,
    /// Push only: a robot for deliveries.
    Deliver,
    /// Pull and push.
    Push,
    /// Pull, push and delete.
    Maintain,
}

impl Right {
    /// The corresponding actions of a token.
    fn actions(self) -> &'static [&'static str] {
        match self {
            Right::Pull => &["pull"],
            Right::Deliver => &["push"],
            Right::Push => &["pull", "push"],
            Right::Maintain => &["pull", "push", "delete"],
        }
    }
}

/// An account with a secret.
#[derive(Clone)]
pub struct Account {
    /// Robots carry their prefix: `robot$base+ci`.
    pub name: String,
    pub secret: String,
    pub admin: bool,
    /// May read the project API. Robots with only push and pull may not.
    pub reads_projects: bool,
    /// An OIDC user's CLI secret, which works only for `/v2/` and `/service/token`.
    pub cli_only: bool,
}

impl Account {
    pub fn user(name: &str, secret: &str) -> Account {
        let (name, secret) = (name.to_owned(), secret.to_owned());
        Account { name, secret, admin: false, reads_projects: true, cli_only: false }
    }

    pub fn admin(name: &str, secret: &str) -> Account {
        Account { admin: true, ..Account::user(name, secret) }
    }

    pub fn robot(name: &str, secret: &str) -> Account {
        Account { reads_projects: false, ..Account::user(&format!("robot${name}"), secret) }
    }

    pub fn oidc(name: &str, secret: &str) -> Account {
        Account { cli_only: true, ..Account::user(name, secret) }
    }

    pub fn is_robot(&self) -> bool {
        self.name.starts_with("robot$")
    }
}

/// The grants of a token: project to actions. Harbor checks the project of a scope, not the repository.
pub type Claims = BTreeMap<String, BTreeSet<String>>;

/// Wrong credentials make the request anonymous: public projects can still be pulled.
#[derive(Clone)]
pub enum Identity {
    Anonymous,
    Account(Account),
    Token(Claims),
}

pub fn identify(state: &State, path: &str, headers: &HeaderMap) -> Identity {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    if let Some(token) = value.strip_prefix("Bearer ") {
        return state.tokens.get(token).cloned().map_or(Identity::Anonymous, Identity::Token);
    }
    let plain = value.strip_prefix("Basic ").and_then(|encoded| STANDARD.decode(encoded).ok()).unwrap_or_default();
    let plain = String::from_utf8_lossy(&plain).into_owned();
    let Some((name, secret)) = plain.split_once(':') else { return Identity::Anonymous };
    let cli = path.starts_with("/v2") || path == "/service/token";
    let known = state.setup.accounts.iter().find(|account| account.name == name && account.secret == secret);
    known.filter(|account| cli || !account.cli_only).cloned().map_or(Identity::Anonymous, Identity::Account)
}

/// The actions of `identity` on the repositories of `project`.
pub fn actions(identity: &Identity, project: &Project) -> BTreeSet<String> {
    let own = match identity {
        Identity::Account(account) if account.admin => Right::Maintain.actions(),
        Identity::Account(account) => project.members.get(&account.name).map_or(&[][..], |right| right.actions()),
        Identity::Token(claims) => return claims.get(&project.name).cloned().unwrap_or_default(),
        Identity::Anonymous => &[],
    };
    let public: &[&str] = if project.public { &["pull"] } else { &[] };
    own.iter().chain(public).map(|action| (*action).to_owned()).collect()
}

/// Refuses requests to `/v2/` that Harbor refuses before it looks at the content.
pub fn check(state: &State, call: &Call, repository: &str) -> Result<(), Answer> {
    let needed = match call.method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE if !call.path.contains("/blobs/uploads/") => "delete",
        _ => "push",
    };
    let mount = call.parameter("from").filter(|_| call.method == Method::POST && call.query.contains_key("mount"));
    let wanted = [Some((repository, needed)), mount.map(|from| (from, "pull"))];
    let bad = |name: &str| refuse(400, "BAD_REQUEST", &format!("invalid repository name: {name}"));
    if let Some((name, _)) = wanted.iter().flatten().find(|(name, _)| !name.contains('/')) {
        return Err(bad(name));
    }
    for (name, action) in wanted.into_iter().flatten() {
        let project = name.split('/').next().unwrap_or(name);
        let scope = format!("repository:{name}:{}", if action == "push" { "pull,push" } else { action });
        if call.method == Method::HEAD && !call.headers.contains_key(header::AUTHORIZATION) {
            return Err(challenge(state, call, "authorize header needed to send HEAD to repository", &scope));
        }
        let Some(project) = state.projects.get(project) else {
            return Err(refuse(401, "UNAUTHORIZED", &format!("project {project} not found")));
        };
        if !actions(&call.identity, project).contains(action) {
            let text = format!("unauthorized to access repository: {name}, action: {action}");
            return Err(challenge(state, call, &text, &scope));
        }
        if action == "push" && project.proxy_cache && call.method != Method::PATCH {
            let text = format!("can not push artifact to a proxy project: {}", project.name);
            return Err(refuse(403, "DENIED", &text));
        }
    }
    Ok(())
}

/// 401: a Bearer challenge for anonymous requests, a Basic one for wrong credentials.
pub fn challenge(state: &State, call: &Call, message: &str, scope: &str) -> Answer {
    let wanted = if call.headers.contains_key(header::AUTHORIZATION) {
        "Basic realm=\"harbor\"".to_owned()
    } else {
        let scope = if scope.is_empty() { String::new() } else { format!(",scope=\"{scope}\"") };
        format!("Bearer realm=\"http://{}/service/token\",service=\"harbor-registry\"{scope}", state.address)
    };
    with_header(refuse(401, "UNAUTHORIZED", message), "www-authenticate", wanted)
}

/// The database driver's message when the database is unreachable.
pub const UNREACHABLE: &str = "failed to connect to `user=postgres database=registry`: 127.0.0.1:5432 (127.0.0.1): dial \
                               error: dial tcp 127.0.0.1:5432: connect: connection refused";

/// The answers while the database is unreachable: the middleware treats every error as a missing right, and no password
/// is accepted.
pub fn without_database(state: &State, call: &Call) -> Answer {
    let is_root = matches!(call.path.as_str(), "/v2" | "/v2/");
    if is_root || call.method == Method::HEAD && call.path == "/api/v2.0/projects" {
        return challenge(state, call, "unauthorized: unauthorized", "");
    }
    if !call.path.starts_with("/v2") || !call.is_safe() {
        return refuse(500, "UNKNOWN", "internal server error");
    }
    let text = UNREACHABLE;
    with_header(refuse(401, "UNAUTHORIZED", text), "www-authenticate", "Basic realm=\"harbor\"")
}
