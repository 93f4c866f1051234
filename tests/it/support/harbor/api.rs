//! Harbor's own API as far as an import needs it, and the token service.

use std::collections::BTreeSet;

use axum::http::{Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::access::{Account, Identity, UNREACHABLE, actions};
use super::answer::{bytes, empty, header as with_header, json, refuse};
use super::manifests::immutable;
use super::{Answer, Call, Database, Project, Scopes, State, artifacts};

pub fn answer(state: &mut State, call: &Call) -> Answer {
    // A client that keeps Harbor's session cookie is taken for a browser and needs a CSRF token.
    if !call.is_safe() && call.headers.contains_key(header::COOKIE) {
        return refuse(403, "FORBIDDEN", "CSRF token not found in request");
    }
    if call.path.starts_with("/api/") && state.setup.busy_api > 0 {
        state.setup.busy_api -= 1;
        return empty(503);
    }
    let answer = match call.path.as_str() {
        "/api/version" => json(200, json!({"version": "v2.0"})),
        "/api/v2.0/ping" => bytes(200, "text/plain; charset=utf-8", "Pong".into()),
        "/api/v2.0/health" => health(state),
        "/api/v2.0/systeminfo" => system(state, call),
        "/api/v2.0/projects" => projects(state, call),
        "/api/v2.0/users/current/permissions" => permissions(state, call),
        "/service/token" if state.setup.token_service => token(state, call),
        path => match path.strip_prefix("/api/v2.0/projects/") {
            Some(rest) if call.method == Method::DELETE => untag(state, call, rest),
            Some(rest) => project(state, call, rest),
            None => refuse(404, "NOT_FOUND", "the path is not found"),
        },
    };
    with_header(answer, "set-cookie", "sid=a1b2; Path=/; HttpOnly")
}

/// Whether the answer to a request depends on the database.
pub fn needs_database(database: Database, call: &Call) -> bool {
    match call.path.as_str() {
        "/api/version" | "/api/v2.0/health" => false,
        // Tokens are issued, but to the anonymous user.
        "/service/token" => false,
        "/api/v2.0/systeminfo" => database == Database::AwayForLong,
        _ => true,
    }
}

/// 200 whatever the health.
fn health(state: &State) -> Answer {
    let ill = state.setup.unhealthy.or((state.database != Database::Running).then_some("database"));
    let component = |name: &str| match ill == Some(name) {
        true => json!({"name": name, "status": "unhealthy", "error": format!("failed to check {name}: {UNREACHABLE}")}),
        false => json!({"name": name, "status": "healthy"}),
    };
    let status = if ill.is_some() { "unhealthy" } else { "healthy" };
    let components = ["core", "database", "jobservice", "portal", "redis", "registry", "registryctl"].map(component);
    json(200, json!({"status": status, "components": components}))
}

fn system(state: &mut State, call: &Call) -> Answer {
    let (major, minor) = state.setup.version;
    let mut info = json!({"auth_mode": "db_auth", "harbor_version": format!("v{major}.{minor}.0-5cbb1b01"),
                          "self_registration": false});
    if matches!(call.identity, Identity::Account(_)) {
        info["read_only"] = state.setup.read_only.into();
        if state.setup.read_only {
            state.say_read_only();
        }
        info["project_creation_restriction"] =
            if state.setup.everyone_creates { "everyone" } else { "adminonly" }.into();
    }
    json(200, info)
}

fn projects(state: &mut State, call: &Call) -> Answer {
    if call.method == Method::POST {
        return create(state, call);
    }
    let Some(name) = call.parameter("project_name").filter(|_| call.method == Method::HEAD) else {
        return json(200, json!([]));
    };
    match readable(state, call, name) {
        Ok(_) => empty(200),
        Err(refusal) => refusal,
    }
}

/// The project, if the account may see it.
fn readable<'a>(state: &'a State, call: &Call, name: &str) -> Result<&'a Project, Answer> {
    let found = state.projects.get(name);
    let account = match &call.identity {
        Identity::Account(account) => Some(account),
        _ => None,
    };
    let may = |project: &Project| match account {
        Some(account) => {
            let member = account.reads_projects && project.members.contains_key(&account.name);
            account.admin || project.public || member
        }
        None => project.public,
    };
    match found {
        Some(project) if may(project) => Ok(project),
        _ if account.is_none() => Err(refuse(401, "UNAUTHORIZED", "unauthorized")),
        None if !state.setup.hides_missing => Err(refuse(404, "NOT_FOUND", &format!("project {name} not found"))),
        _ => Err(refuse(403, "FORBIDDEN", "forbidden")),
    }
}

fn create(state: &mut State, call: &Call) -> Answer {
    let account = match &call.identity {
        Identity::Account(account) => account.clone(),
        _ => return refuse(401, "UNAUTHORIZED", "unauthorized"),
    };
    if account.is_robot() && !account.admin {
        return refuse(403, "FORBIDDEN", "Only system level robot can create project");
    }
    if !account.admin && !state.setup.everyone_creates {
        return refuse(403, "FORBIDDEN", "Only system admin can create project");
    }
    let Ok(request) = serde_json::from_slice::<Value>(&call.body) else {
        return refuse(422, "UNPROCESSABLE_ENTITY", "parsing body failed");
    };
    let name = request["project_name"].as_str().unwrap_or("");
    let public = request["metadata"]["public"].as_str().unwrap_or("false");
    if !valid_name(name) || !matches!(public, "true" | "false") {
        return refuse(400, "BAD_REQUEST", &format!("invalid project name: '{name}'"));
    }
    if state.projects.contains_key(name) {
        return refuse(409, "CONFLICT", &format!("The project named {name} already exists"));
    }
    // Only an administrator can set a limit; others get the system's default, which is unlimited here.
    let quota = request["storage_limit"].as_u64().filter(|limit| account.admin && *limit > 0);
    let id = state.projects.values().map(|project| project.id).max().unwrap_or(0) + 1;
    let mut project = Project { id, quota, public: public == "true", ..Project::new(name) };
    project.members.insert(account.name.clone(), super::Right::Maintain);
    state.projects.insert(name.to_owned(), project);
    with_header(empty(201), "location", format!("/api/v2.0/projects/{id}"))
}

/// `^[a-z0-9]+(?:[._-][a-z0-9]+)*$`, at most 255 characters.
fn valid_name(name: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 255 && name.split(['.', '_', '-']).all(word)
}

/// `/projects/{name or id}` and `/projects/{name or id}/summary`. Digits are an id unless the header says otherwise.
fn project(state: &State, call: &Call, rest: &str) -> Answer {
    let (wanted, tail) = rest.split_once('/').unwrap_or((rest, ""));
    let by_name = call.header("x-is-resource-name") == "true";
    let id = wanted.parse::<u64>().ok().filter(|_| !by_name);
    let name = match id {
        Some(id) => state.projects.values().find(|project| project.id == id).map_or("", |project| &project.name),
        None => wanted,
    };
    if tail == "immutabletagrules" {
        return rules(state, call, name);
    }
    let project = match readable(state, call, name) {
        Ok(project) => project,
        Err(refusal) => return refusal,
    };
    if let Some(rest) = tail.strip_prefix("repositories/") {
        return artifacts::answer(state, call, project, rest);
    }
    let mut view = json!({"project_id": project.id, "name": project.name, "metadata": {"public": project.public.to_string()},
                          "repo_count": 0});
    if project.proxy_cache {
        view["registry_id"] = 1.into();
    }
    match tail {
        "" => json(200, view),
        "summary" => {
            let hard = project.quota.map_or(json!(-1), |quota| json!(quota));
            json(
                200,
                json!({"repo_count": 0, "quota": {"hard": {"storage": hard}, "used": {"storage": project.used()}}}),
            )
        }
        _ => refuse(404, "NOT_FOUND", "the path is not found"),
    }
}

/// Only project managers may read them.
fn rules(state: &State, call: &Call, name: &str) -> Answer {
    let may = |project: &&Project| match &call.identity {
        Identity::Account(account) => {
            let manages = project.members.get(&account.name) == Some(&super::Right::Maintain);
            account.admin || (manages && account.reads_projects)
        }
        _ => false,
    };
    let Some(project) = state.projects.get(name).filter(may) else { return refuse(403, "FORBIDDEN", "forbidden") };
    let everywhere = json!([{"decoration": "repoMatches", "kind": "doublestar", "pattern": "**"}]);
    let rule = |pattern: &String| {
        json!({"action": "immutable", "id": 1, "template": "immutable_template", "scope_selectors": {"repository": everywhere},
               "tag_selectors": [{"decoration": "matches", "kind": "doublestar", "pattern": pattern}]})
    };
    json(200, project.immutable.iter().map(rule).collect())
}

/// DELETE of `/projects/{name}/repositories/{name, slashes escaped twice}/artifacts/{digest}`, which takes its tags along, or of
/// `…/tags/{name}` below it: then the artifact stays.
fn untag(state: &mut State, call: &Call, rest: &str) -> Answer {
    let parts: Vec<&str> = rest.split('/').collect();
    let (project, repository, digest, tag) = match parts[..] {
        [project, "repositories", repository, "artifacts", digest, "tags", tag] => {
            (project, repository, digest, Some(tag))
        }
        [project, "repositories", repository, "artifacts", digest] => (project, repository, digest, None),
        _ => return refuse(404, "NOT_FOUND", "the path is not found"),
    };
    // A robot may have the right to delete tags without any right to read the project.
    let may_delete = |project: &&Project| actions(&call.identity, project).contains("delete");
    let project =
        match state.projects.get(project).filter(may_delete).map_or_else(|| readable(state, call, project), Ok) {
            Ok(project) if may_delete(&project) => project.clone(),
            Ok(_) => return refuse(403, "FORBIDDEN", "forbidden"),
            Err(refusal) => return refusal,
        };
    let name = format!("{}/{}", project.name, repository.replace("%252F", "/"));
    let unknown = || refuse(404, "NOT_FOUND", &format!("{rest} not found"));
    let Some(held) = state.repositories.get_mut(&name) else { return unknown() };
    let Some(tag) = tag else {
        let Ok(digest) = digest.parse() else { return unknown() };
        held.tags.retain(|_, meant| *meant != digest);
        return if held.manifests.remove(&digest).is_some() { empty(200) } else { unknown() };
    };
    match held.tags.get(tag) {
        Some(found) if found.to_string() == digest && project.is_immutable(tag) => immutable(&name, tag),
        Some(found) if found.to_string() == digest => {
            held.tags.remove(tag);
            empty(200)
        }
        _ => unknown(),
    }
}

fn permissions(state: &State, call: &Call) -> Answer {
    let account = match &call.identity {
        Identity::Account(account) => account,
        _ => return refuse(401, "UNAUTHORIZED", "unauthorized"),
    };
    let id = call.parameter("scope").and_then(|scope| scope.strip_prefix("/project/")).and_then(|id| id.parse().ok());
    let Some(project) = state.projects.values().find(|project| Some(project.id) == id) else {
        return json(200, Value::Null);
    };
    let prefix =
        if call.parameter("relative") == Some("true") { String::new() } else { format!("/project/{}/", project.id) };
    let identity = Identity::Account(Account::clone(account));
    let list: Vec<_> = actions(&identity, project)
        .into_iter()
        .map(|action| json!({"resource": format!("{prefix}repository"), "action": action}))
        .collect();
    json(200, if list.is_empty() { Value::Null } else { list.into() })
}

/// Tokens for the registry. The requested scope does not matter: the token grants what the account may do.
fn token(state: &mut State, call: &Call) -> Answer {
    if call.parameter("service") != Some("harbor-registry") {
        return refuse(400, "BAD_REQUEST", "Unable to handle service");
    }
    let asked = call.query.get("scope").into_iter().flatten();
    let scopes: Vec<String> = asked.flat_map(|scopes| scopes.split(' ').map(str::to_owned)).collect();
    if scopes.is_empty() && matches!(call.identity, Identity::Anonymous) {
        return empty(401);
    }
    let scopes = match (state.setup.several_scopes, scopes.len()) {
        (Scopes::Refused, 2..) => return refuse(403, "DENIED", "one scope at a time"),
        (Scopes::First | Scopes::FirstOpaque, _) => scopes.into_iter().take(1).collect(),
        _ => scopes,
    };
    let mut claims = super::access::Claims::new();
    let mut access = vec![];
    let nobody = Identity::Anonymous;
    let identity = if state.database == Database::Running { &call.identity } else { &nobody };
    for scope in scopes.iter().filter_map(|scope| scope.strip_prefix("repository:")) {
        let name = scope.rsplit_once(':').map_or(scope, |(name, _)| name);
        let Some((project, _)) = name.split_once('/') else {
            return refuse(500, "UNKNOWN", "internal server error");
        };
        let granted: BTreeSet<String> =
            state.projects.get(project).map(|project| actions(identity, project)).unwrap_or_default();
        access.push(json!({"type": "repository", "name": name, "actions": granted}));
        claims.entry(project.to_owned()).or_default().extend(granted);
    }
    state.counter += 1;
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let payload =
        json!({"iss": "harbor-token-issuer", "aud": "harbor-registry", "jti": state.counter, "access": access});
    let token = match state.setup.several_scopes {
        Scopes::FirstOpaque => format!("opaque-{}", state.counter),
        _ => format!("{}.{}.c2lnbmVk", part(json!({"typ": "JWT", "alg": "RS256"})), part(payload)),
    };
    state.tokens.insert(token.clone(), claims);
    // Both field names are present, one of them empty.
    let issued = "2026-11-21T04:00:00Z";
    json(200, json!({"token": token, "access_token": "", "expires_in": 1800, "issued_at": issued}))
}
