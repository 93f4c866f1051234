//! Obstacles to a push are found, distinguished, and reported together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use gapferry::base::error::{Kind, Result};
use gapferry::content::{Account, Api, ApiAnswer, ApiRequest, Probed};
use gapferry::oci::Repository;
use gapferry::pipeline::harbor::{self, Detected, Preflight, ProjectOptions, Severity};

use super::{ADMIN, CI, Creds, NOBODY, OLGA, ROBOT, client, three_projects};
use crate::support::harbor::{Harbor as Server, Project, Right, Setup};

fn targets(server: &Server, paths: &[&str]) -> Vec<Repository> {
    paths.iter().map(|path| Repository::new(&server.registry(), path).unwrap()).collect()
}

async fn check(server: &Server, creds: Creds, paths: &[&str]) -> Preflight {
    let api = client(server, creds);
    let found = harbor::detect(&api, at(&server.registry())).await.unwrap().harbor().expect("a Harbor");
    harbor::preflight(&api, &found, &targets(server, paths)).await.unwrap()
}

#[tokio::test]
async fn harbor_is_recognized_with_its_version_and_mode() {
    let server = Server::start(Setup { read_only: true, unhealthy: Some("database"), ..three_projects() });
    let found = harbor::detect(&client(&server, ADMIN), at(&server.registry())).await.unwrap().harbor().unwrap();
    assert_eq!(found.version(), Some("v2.11.0-5cbb1b01"));
    assert_eq!(found.read_only(), Some(true));
    assert_eq!(found.ill(), ["database"]);
    let anonymous = harbor::detect(&client(&server, NOBODY), at(&server.registry())).await.unwrap().harbor().unwrap();
    assert_eq!(anonymous.read_only(), None, "an unreported value is unknown");
}

fn at(registry: &str) -> Account<'_> {
    Account { registry, path: "" }
}

/// A server with one fixed answer per known path, and 404 otherwise.
struct Scripted(Vec<(&'static str, u16, &'static str)>);

#[async_trait]
impl Api for Scripted {
    async fn call(&self, _: Account<'_>, request: ApiRequest) -> Result<ApiAnswer> {
        let known = self.0.iter().find(|(path, ..)| *path == request.path);
        let (status, body) = known.map_or((404, "404 page not found"), |(_, status, body)| (*status, *body));
        Ok(ApiAnswer { status, body: bytes::Bytes::from_static(body.as_bytes()) })
    }

    async fn grants(&self, _: &[Repository]) -> Result<HashMap<Repository, BTreeSet<String>>> {
        Ok(HashMap::new())
    }

    async fn accounts(&self, repositories: &[Repository]) -> Result<Vec<Vec<Repository>>> {
        Ok(vec![repositories.to_vec()])
    }

    async fn probe(&self, account: Account<'_>, path: &str) -> Result<Probed> {
        let request = ApiRequest { method: "GET", path: path.to_owned(), ..ApiRequest::default() };
        self.call(account, request).await.map(Probed::Answered)
    }

    async fn wait_for_changes(&self, _: &str, refusal: gapferry::Error) -> Result<()> {
        Err(refusal)
    }

    fn takes_changes(&self, _: &str) {}
}

#[tokio::test]
async fn another_registry_is_not_taken_for_harbor() {
    for answers in [
        vec![],
        vec![("/api/version", 200, "<html>log in</html>")],
        vec![("/api/version", 401, "{}")],
        vec![("/api/version", 502, "bad gateway")],
        vec![("/api/version", 200, r#"{"version":"18.2"}"#)],
        vec![("/api/systeminfo", 200, r#"{"harbor_version":7}"#)],
    ] {
        assert!(matches!(harbor::detect(&Scripted(answers), at("r")).await, Ok(Detected::Another)));
    }
}

#[tokio::test]
async fn harbor_1_is_refused_with_a_pointer_to_its_storage_directory() {
    let old = Scripted(vec![("/api/systeminfo", 200, "{\"harbor_version\":\"v1.10.1-\\u001b[31mx\"}")]);
    let error = harbor::detect(&old, at("r.example")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("Harbor v1.10.1-[31mx"), "{error}");
    assert!(error.to_string().contains("storage directory"), "{error}");
}

#[tokio::test]
async fn all_missing_projects_are_named_at_once() {
    let server = Server::start(three_projects());
    let found = check(&server, ADMIN, &["base/a", "new/a", "new/b", "base/b", "other/x/y", "7/x"]).await;
    assert_eq!(found.missing, ["7", "new", "other"]);
    let error = found.check().unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    for name in ["project 7 ", "project new ", "project other "] {
        assert!(error.chain().contains(name), "{error:?}");
    }
    assert!(error.chain().contains("--create-projects"));
    assert!(server.pushes().is_empty());
}

#[tokio::test]
async fn a_missing_right_and_a_missing_project_are_reported_separately() {
    let server = Server::start(three_projects());
    let found = check(&server, CI, &["base/a", "apps/a", "closed/a", "nowhere/a"]).await;
    assert_eq!(found.denied, ["apps"]);
    assert_eq!(found.hidden, ["closed"], "the project exists, but Harbor hides it from this account");
    assert_eq!(found.missing, ["nowhere"]);
    assert_eq!(found.to_create(), ["nowhere", "closed"]);
}

#[tokio::test]
async fn a_push_robot_passes_without_the_right_to_read_projects() {
    let server = Server::start(Setup { hides_missing: true, ..three_projects() });
    let found = check(&server, ROBOT, &["base/a"]).await;
    assert_eq!(found.problems(), []);
    let found = check(&server, ROBOT, &["base/a", "apps/a", "nowhere/a"]).await;
    assert_eq!((found.denied, found.hidden), (vec!["apps".to_owned()], vec!["nowhere".to_owned()]));
}

#[tokio::test]
async fn a_cli_secret_that_the_project_api_rejects_is_not_called_wrong() {
    let server = Server::start(three_projects());
    let found = check(&server, OLGA, &["base/a"]).await;
    assert_eq!(found.problems(), []);
}

#[tokio::test]
async fn unknown_rights_are_not_reported_as_denied() {
    let server = Server::start(Setup { token_service: false, ..three_projects() });
    let found = check(&server, ROBOT, &["base/a", "closed/a"]).await;
    assert_eq!(found.unknown, ["base", "closed"]);
    assert!(found.check().is_ok());
    assert!(found.problems().iter().all(|problem| problem.severity == Severity::Warns));
    // Users have another way to find out.
    let found = check(&server, CI, &["base/a", "apps/a"]).await;
    assert_eq!((found.denied, found.unknown), (vec!["apps".to_owned()], vec![]));
}

#[tokio::test]
async fn wrong_credentials_are_reported_and_not_mistaken_for_missing_projects() {
    let server = Server::start(three_projects());
    for creds in ["admin:Wr0ng-pw", NOBODY] {
        let found = check(&server, creds, &["base/a", "nowhere/a"]).await;
        assert!(found.unauthorized);
        assert_eq!(found.problems().len(), 1);
        assert_eq!(found.check().unwrap_err().kind(), Kind::Unauthorized);
    }
}

#[tokio::test]
async fn everything_that_stops_a_push_is_reported_together() {
    let setup = three_projects().with(Project::new("hub").proxy_cache());
    let server = Server::start(Setup { read_only: true, ..setup });
    let found = check(&server, ADMIN, &["alone", "a__b/x", "a__b/x", "hub/x", "nowhere/x"]).await;
    assert!(found.read_only);
    assert_eq!(found.proxy_cache, ["hub"]);
    assert_eq!(found.missing, ["nowhere"]);
    assert_eq!(found.bad_names, targets(&server, &["alone", "a__b/x"]));
    let text = found.check().unwrap_err().chain();
    for message in [
        "read-only mode",
        "hub is a proxy cache",
        "nowhere does not exist",
        "alone has no project",
        "project name a__b",
    ] {
        assert!(text.contains(message), "{text}");
    }
}

#[tokio::test]
async fn an_insufficient_quota_is_a_warning_with_figures() {
    let setup = three_projects()
        .with(Project::new("small").quota(1000).member("ci", Right::Pull))
        .with(Project::new("2026").quota(1000));
    let server = Server::start(setup);
    let needed = |amounts: &[(&str, u64)]| -> BTreeMap<String, u64> {
        amounts.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect()
    };
    let api = client(&server, ADMIN);
    let found = harbor::detect(&api, at(&server.registry())).await.unwrap().harbor().unwrap();
    let bytes = needed(&[("small", 1001), ("2026", 1001), ("base", 1 << 40), ("nowhere", 1)]);
    let short = harbor::quotas(&api, &found, &bytes).await.unwrap();
    assert_eq!(short.iter().map(|quota| quota.project.as_str()).collect::<Vec<_>>(), ["2026", "small"]);
    assert_eq!(short[0].problem().severity, Severity::Warns);
    assert!(short[0].problem().text.contains("0 B of 1000 B used, 1001 B to add"), "{}", short[0].problem());
    assert_eq!(harbor::quotas(&api, &found, &needed(&[("small", 1000)])).await.unwrap(), []);
    let robot = client(&server, ROBOT);
    assert_eq!(harbor::quotas(&robot, &found, &bytes).await.unwrap(), [], "unreadable values are not guessed");
}

#[tokio::test]
async fn more_projects_than_fit_into_one_token_request_are_checked() {
    let names: Vec<String> = (0..45).map(|n| format!("p{n:02}")).collect();
    let setup = names.iter().take(44).fold(three_projects(), |setup, name| {
        let right = if name.as_str() == "p21" { Right::Pull } else { Right::Push };
        setup.with(Project::new(name).member("ci", right))
    });
    let server = Server::start(setup);
    let paths: Vec<String> = names.iter().map(|name| format!("{name}/x")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let found = check(&server, CI, &paths).await;
    assert_eq!((found.denied, found.missing), (vec!["p21".to_owned()], vec!["p44".to_owned()]));
}

#[tokio::test]
async fn projects_are_created_once_with_the_requested_settings() {
    let server = Server::start(three_projects());
    let found = harbor::detect(&client(&server, ADMIN), at(&server.registry())).await.unwrap().harbor().unwrap();
    let names = ["base".to_owned(), "2026".to_owned()];
    let options = ProjectOptions { public: true, quota: Some(5 << 30) };
    let created = harbor::create_projects(&client(&server, ADMIN), &found, &names, options).await.unwrap();
    assert_eq!(created.iter().map(|project| project.existed).collect::<Vec<_>>(), [true, false]);
    let project = server.projects().into_iter().find(|project| project.name == "2026").unwrap();
    assert_eq!((project.public, project.quota), (true, Some(5 << 30)));
    assert!(check(&server, ADMIN, &["2026/x", "base/x"]).await.check().is_ok());
}

#[tokio::test]
async fn a_project_name_harbor_refuses_fails_before_any_project_is_created() {
    let server = Server::start(three_projects());
    let found = harbor::detect(&client(&server, ADMIN), at(&server.registry())).await.unwrap().harbor().unwrap();
    let names = ["fine".to_owned(), "not--fine".to_owned()];
    let error =
        harbor::create_projects(&client(&server, ADMIN), &found, &names, ProjectOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.to_string().contains("not--fine") && !server.projects().iter().any(|project| project.name == "fine"));
}

#[tokio::test]
async fn an_account_without_the_right_to_create_projects_gets_a_clear_error() {
    let server = Server::start(Setup { everyone_creates: false, ..three_projects() });
    for (creds, kind, says) in [
        (CI, Kind::Refused, "Only system admin can create project"),
        (ROBOT, Kind::Refused, "Only system level robot can create project"),
        (NOBODY, Kind::Unauthorized, "credentials are not accepted"),
    ] {
        let api = client(&server, creds);
        let found = harbor::detect(&api, at(&server.registry())).await.unwrap().harbor().unwrap();
        let names = ["new".to_owned()];
        let error = harbor::create_projects(&api, &found, &names, ProjectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.chain().contains(says), "{}", error.chain());
    }
}
