//! What an import learns from Harbor before it pushes, against a server that behaves as Harbor does; and that this server
//! behaves so, since other tests rely on it.

#[path = "support/harbor/mod.rs"]
mod fake;

use std::collections::BTreeMap;

use async_trait::async_trait;
use fake::{Account, Harbor as Server, Project, Right, Setup};
use gapferry::content::{Api, ApiAnswer, ApiRequest};
use gapferry::error::{Error, Kind, Result};
use gapferry::harbor::{self, Preflight, ProjectOptions, Severity};
use gapferry::oci::{Digest, Repository, media_type};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;

/// An account's way to the server.
struct As {
    client: reqwest::Client,
    account: Option<(&'static str, &'static str)>,
}

fn logged_in(name: &'static str, secret: &'static str) -> As {
    As { account: Some((name, secret)), ..nobody() }
}

fn admin() -> As {
    logged_in("admin", "Harbor12345")
}

fn nobody() -> As {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    As { client, account: None }
}

impl As {
    fn request(&self, method: &str, registry: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{registry}{path}");
        let request = self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), url);
        match self.account {
            Some((name, secret)) => request.basic_auth(name, Some(secret)),
            None => request,
        }
    }
}

#[async_trait]
impl Api for As {
    async fn call(&self, registry: &str, request: ApiRequest) -> Result<ApiAnswer> {
        let mut sent = self.request(request.method, registry, &request.path);
        for (name, value) in &request.headers {
            sent = sent.header(*name, value);
        }
        if let Some(json) = &request.json {
            sent = sent.json(json);
        }
        let fail = |e: reqwest::Error| Error::new(Kind::Network, "asking").because(e);
        let answer = sent.send().await.map_err(fail)?;
        Ok(ApiAnswer { status: answer.status().as_u16(), body: answer.bytes().await.map_err(fail)? })
    }
}

fn targets(server: &Server, paths: &[&str]) -> Vec<Repository> {
    paths.iter().map(|path| Repository::new(&server.registry(), path).unwrap()).collect()
}

async fn check(server: &Server, account: &As, paths: &[&str]) -> Preflight {
    check_bytes(server, account, paths, &[]).await
}

async fn check_bytes(server: &Server, account: &As, paths: &[&str], bytes: &[(&str, u64)]) -> Preflight {
    let found = harbor::detect(account, &server.registry()).await.unwrap().expect("a Harbor");
    let bytes: BTreeMap<String, u64> = bytes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
    harbor::preflight(account, &found, &targets(server, paths), &bytes).await.unwrap()
}

fn three_projects() -> Setup {
    Setup::default()
        .account(Account::user("ci", "Ci123456"))
        .account(Account::robot("base+ci", "secret"))
        .account(Account::oidc("olga", "clisecret"))
        .with(
            Project::new("base")
                .member("ci", Right::Push)
                .member("robot$base+ci", Right::Push)
                .member("olga", Right::Push),
        )
        .with(Project::new("apps").member("ci", Right::Pull).member("robot$base+ci", Right::Pull))
        .with(Project::new("closed"))
}

#[tokio::test]
async fn harbor_is_recognized_and_tells_its_version_and_mode() {
    let server = Server::start(Setup { read_only: true, unhealthy: Some("database"), ..three_projects() });
    let found = harbor::detect(&admin(), &server.registry()).await.unwrap().unwrap();
    assert_eq!(found.version(), Some("v2.11.0-5cbb1b01"));
    assert_eq!(found.read_only(), Some(true));
    assert_eq!(found.ill(), ["database"]);
    let anonymous = harbor::detect(&nobody(), &server.registry()).await.unwrap().unwrap();
    assert_eq!(anonymous.read_only(), None, "what is not told is not known");
}

/// A server that gives one answer to every request whose path it knows, and 404 else.
struct Scripted(Vec<(&'static str, u16, &'static str)>);

#[async_trait]
impl Api for Scripted {
    async fn call(&self, _: &str, request: ApiRequest) -> Result<ApiAnswer> {
        let known = self.0.iter().find(|(path, ..)| *path == request.path);
        let (status, body) = known.map_or((404, "404 page not found"), |(_, status, body)| (*status, *body));
        Ok(ApiAnswer { status, body: bytes::Bytes::from_static(body.as_bytes()) })
    }
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
        assert_eq!(harbor::detect(&Scripted(answers), "r").await.unwrap(), None);
    }
}

#[tokio::test]
async fn harbor_1_is_refused_with_the_way_that_remains() {
    let old = Scripted(vec![("/api/systeminfo", 200, "{\"harbor_version\":\"v1.10.1-\\u001b[31mx\"}")]);
    let error = harbor::detect(&old, "r.example").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("Harbor v1.10.1-[31mx"), "{error}");
    assert!(error.to_string().contains("storage directory"), "{error}");
}

#[tokio::test]
async fn every_missing_project_is_named_in_one_go() {
    let server = Server::start(three_projects());
    let found = check(&server, &admin(), &["base/a", "new/a", "new/b", "base/b", "other/x/y", "7/x"]).await;
    assert_eq!(found.missing, ["7", "new", "other"]);
    let error = found.check().unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    for name in ["project 7 ", "project new ", "project other "] {
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(error.to_string().contains("--create-projects"));
    assert!(server.pushes().is_empty());
}

#[tokio::test]
async fn a_missing_right_is_told_apart_from_a_missing_project() {
    let server = Server::start(three_projects());
    let found = check(&server, &logged_in("ci", "Ci123456"), &["base/a", "apps/a", "closed/a", "nowhere/a"]).await;
    assert_eq!(found.denied, ["apps"]);
    assert_eq!(found.hidden, ["closed"], "it is there, but Harbor does not say so to this account");
    assert_eq!(found.missing, ["nowhere"]);
    assert_eq!(found.to_create(), ["nowhere", "closed"]);
}

#[tokio::test]
async fn a_robot_that_may_push_passes_though_it_may_not_read_projects() {
    let server = Server::start(Setup { hides_missing: true, ..three_projects() });
    let robot = logged_in("robot$base+ci", "secret");
    let found = check(&server, &robot, &["base/a"]).await;
    assert_eq!(found.problems(), []);
    let found = check(&server, &robot, &["base/a", "apps/a", "nowhere/a"]).await;
    assert_eq!((found.denied, found.hidden), (vec!["apps".to_owned()], vec!["nowhere".to_owned()]));
}

#[tokio::test]
async fn a_secret_that_works_for_the_registry_alone_is_not_called_wrong() {
    let server = Server::start(three_projects());
    let found = check(&server, &logged_in("olga", "clisecret"), &["base/a"]).await;
    assert_eq!(found.problems(), []);
}

#[tokio::test]
async fn rights_that_cannot_be_found_out_are_not_called_denied() {
    let server = Server::start(Setup { token_service: false, ..three_projects() });
    let found = check(&server, &logged_in("robot$base+ci", "secret"), &["base/a", "closed/a"]).await;
    assert_eq!(found.unknown, ["base", "closed"]);
    assert!(found.check().is_ok());
    assert!(found.problems().iter().all(|problem| problem.severity == Severity::Warns));
    // Users have another way.
    let found = check(&server, &logged_in("ci", "Ci123456"), &["base/a", "apps/a"]).await;
    assert_eq!((found.denied, found.unknown), (vec!["apps".to_owned()], vec![]));
}

#[tokio::test]
async fn wrong_credentials_are_named_and_not_mistaken_for_missing_projects() {
    let server = Server::start(three_projects());
    for account in [logged_in("admin", "wrong"), nobody()] {
        let found = check(&server, &account, &["base/a", "nowhere/a"]).await;
        assert!(found.unauthorized);
        assert_eq!(found.problems().len(), 1);
        assert_eq!(found.check().unwrap_err().kind(), Kind::Unauthorized);
    }
}

#[tokio::test]
async fn everything_that_stops_a_push_is_told_together() {
    let setup = three_projects().with(Project::new("hub").proxy_cache()).with(Project::new("small").quota(1000));
    let server = Server::start(Setup { read_only: true, ..setup });
    let paths = ["alone", "a__b/x", "hub/x", "nowhere/x", "small/x"];
    let found = check_bytes(&server, &admin(), &paths, &[("small", 1001), ("base", 1 << 40)]).await;
    assert!(found.read_only);
    assert_eq!(found.proxy_cache, ["hub"]);
    assert_eq!(found.missing, ["nowhere"]);
    assert_eq!(found.bad_names, targets(&server, &["alone", "a__b/x"]));
    assert_eq!(found.quota.len(), 1);
    let text = found.check().unwrap_err().to_string();
    for said in
        ["read-only mode", "hub is a proxy cache", "nowhere does not exist", "alone has no project", "named a__b"]
    {
        assert!(text.contains(said), "{text}");
    }
    assert!(!text.contains("quota"), "a guess does not stop a push: {text}");
    assert!(
        found.problems().iter().any(|problem| problem.text.contains("0 bytes of 1000 bytes used, up to 1001 bytes"))
    );
}

#[tokio::test]
async fn more_projects_than_one_token_request_holds() {
    let names: Vec<String> = (0..45).map(|n| format!("p{n:02}")).collect();
    let setup = names.iter().take(44).fold(three_projects(), |setup, name| {
        let right = if name.as_str() == "p21" { Right::Pull } else { Right::Push };
        setup.with(Project::new(name).member("ci", right))
    });
    let server = Server::start(setup);
    let paths: Vec<String> = names.iter().map(|name| format!("{name}/x")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let found = check(&server, &logged_in("ci", "Ci123456"), &paths).await;
    assert_eq!((found.denied, found.missing), (vec!["p21".to_owned()], vec!["p44".to_owned()]));
}

#[tokio::test]
async fn projects_are_created_once_with_what_was_asked_for() {
    let server = Server::start(three_projects());
    let found = harbor::detect(&admin(), &server.registry()).await.unwrap().unwrap();
    let names = ["base".to_owned(), "2026".to_owned()];
    let options = ProjectOptions { public: true, quota: Some(5 << 30) };
    let created = harbor::create_projects(&admin(), &found, &names, options).await.unwrap();
    assert_eq!(created.iter().map(|project| project.existed).collect::<Vec<_>>(), [true, false]);
    let project = server.projects().into_iter().find(|project| project.name == "2026").unwrap();
    assert_eq!((project.public, project.quota), (true, Some(5 << 30)));
    assert!(check(&server, &admin(), &["2026/x", "base/x"]).await.check().is_ok());
}

#[tokio::test]
async fn a_name_harbor_would_refuse_stops_before_anything_is_created() {
    let server = Server::start(three_projects());
    let found = harbor::detect(&admin(), &server.registry()).await.unwrap().unwrap();
    let names = ["fine".to_owned(), "not--fine".to_owned()];
    let error = harbor::create_projects(&admin(), &found, &names, ProjectOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.to_string().contains("not--fine") && !server.projects().iter().any(|project| project.name == "fine"));
}

#[tokio::test]
async fn an_account_that_may_not_create_projects_is_told_so() {
    let server = Server::start(Setup { everyone_creates: false, ..three_projects() });
    let registry = server.registry();
    for (account, kind, says) in [
        (logged_in("ci", "Ci123456"), Kind::Refused, "Only system admin can create project"),
        (logged_in("robot$base+ci", "secret"), Kind::Refused, "Only system level robot can create project"),
        (nobody(), Kind::Unauthorized, "credentials are not accepted"),
    ] {
        let found = harbor::detect(&account, &registry).await.unwrap().unwrap();
        let names = ["new".to_owned()];
        let error = harbor::create_projects(&account, &found, &names, ProjectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.chain().contains(says), "{}", error.chain());
    }
}

// The server itself.

async fn upload(account: &As, server: &Server, repository: &str, content: &'static [u8]) -> Response {
    let registry = server.registry();
    let begun = account.request("POST", &registry, &format!("/v2/{repository}/blobs/uploads/")).send().await.unwrap();
    if begun.status() != 202 {
        return begun;
    }
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.contains("_state="), "{location}");
    let path = format!("{location}&digest={}", Digest::sha256(content));
    account.request("PUT", &registry, &path).body(content).send().await.unwrap()
}

async fn put_manifest(
    account: &As,
    server: &Server,
    repository: &str,
    tag: &str,
    json: &serde_json::Value,
) -> Response {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let request = account.request("PUT", &server.registry(), &path);
    let media_type = json["mediaType"].as_str().unwrap().to_owned();
    request.header("content-type", media_type).body(json.to_string()).send().await.unwrap()
}

fn image(config: &'static [u8]) -> serde_json::Value {
    let config = json!({"mediaType": media_type::OCI_CONFIG, "digest": Digest::sha256(config), "size": config.len()});
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": []})
}

#[tokio::test]
async fn the_server_takes_an_image_and_gives_it_back() {
    let server = Server::start(three_projects());
    let ci = logged_in("ci", "Ci123456");
    assert_eq!(put_manifest(&ci, &server, "base/a", "1", &image(b"{}")).await.status(), 400, "its config is missing");
    assert_eq!(upload(&ci, &server, "base/a", b"{}").await.status(), 201);
    assert_eq!(put_manifest(&ci, &server, "base/a", "1", &image(b"{}")).await.status(), 201);
    let path = "/v2/base/a/manifests/1";
    let got =
        ci.request("GET", &server.registry(), path).header("accept", media_type::OCI_MANIFEST).send().await.unwrap();
    assert_eq!(got.bytes().await.unwrap(), image(b"{}").to_string());
    let blob = format!("/v2/base/a/blobs/{}", Digest::sha256(b"{}"));
    let part = ci.request("GET", &server.registry(), &blob).header("range", "bytes=1-").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, &b"}"[..]));
    let tags = ci.request("GET", &server.registry(), "/v2/base/a/tags/list").send().await.unwrap();
    assert_eq!(tags.json::<serde_json::Value>().await.unwrap(), json!({"name": "base/a", "tags": ["1"]}));
    assert_eq!((server.uploads(), server.mounts(), server.violations()), (1, 0, vec![]));
}

#[tokio::test]
async fn the_server_refuses_what_harbor_refuses() {
    let setup = three_projects()
        .with(Project::new("fixed").immutable("v*"))
        .with(Project::new("small").quota(4))
        .with(Project::new("hub").proxy_cache());
    let server = Server::start(setup);
    let ci = logged_in("ci", "Ci123456");
    for (account, repository, status) in [
        (&nobody(), "base/a", 401),
        (&logged_in("ci", "wrong"), "base/a", 401),
        (&ci, "apps/a", 401),
        (&ci, "nowhere/a", 401),
        (&ci, "alone", 400),
        (&admin(), "hub/a", 403),
        (&admin(), "small/a", 403),
    ] {
        assert_eq!(upload(account, &server, repository, b"five!").await.status(), status, "{repository}");
    }
    assert_eq!(upload(&admin(), &server, "fixed/a", b"{}").await.status(), 201);
    for (tag, status) in [("v1", 201), ("v1", 412), ("latest", 201), ("latest", 201)] {
        assert_eq!(put_manifest(&admin(), &server, "fixed/a", tag, &image(b"{}")).await.status(), status, "{tag}");
    }
    let absent = json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(b"?"), "size": 1});
    let sparse = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [absent]});
    let refused = put_manifest(&admin(), &server, "fixed/a", "index", &sparse).await;
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.unwrap().contains("MANIFEST_BLOB_UNKNOWN"));
    server.set_read_only(true);
    assert_eq!(upload(&admin(), &server, "base/a", b"{}").await.status(), 403);
}

#[tokio::test]
async fn the_server_mounts_only_from_what_the_account_may_read() {
    let server = Server::start(three_projects());
    let ci = logged_in("ci", "Ci123456");
    for repository in ["apps/a", "closed/a"] {
        assert_eq!(upload(&admin(), &server, repository, b"layer").await.status(), 201);
    }
    for (from, status) in [("apps/a", 201), ("closed/a", 401), ("nowhere/a", 401), ("base/empty", 202)] {
        let path = format!("/v2/base/b/blobs/uploads/?mount={}&from={from}", Digest::sha256(b"layer"));
        assert_eq!(ci.request("POST", &server.registry(), &path).send().await.unwrap().status(), status, "{from}");
    }
    assert_eq!(server.mounts(), 1);
}

#[tokio::test]
async fn the_server_notices_wrong_accounting_and_a_lost_offset() {
    let server = Server::start(three_projects());
    let (ci, registry) = (logged_in("ci", "Ci123456"), server.registry());
    let location = |answer: &Response| answer.headers()["location"].to_str().unwrap().to_owned();
    let begin = || async { ci.request("POST", &registry, "/v2/base/a/blobs/uploads/").send().await.unwrap() };
    let first = location(&begin().await);
    let second = location(&ci.request("PATCH", &registry, &first).body("la").send().await.unwrap());
    let path = format!("{second}&digest={}", Digest::sha256(b"layer"));
    assert_eq!(ci.request("PUT", &registry, &path).body("yer").send().await.unwrap().status(), 400);
    assert_eq!(server.violations().len(), 1);
    let first = location(&begin().await);
    ci.request("PATCH", &registry, &first).body("la").send().await.unwrap();
    let stale = ci.request("PATCH", &registry, &first).body("yer").send().await.unwrap();
    assert!(stale.status() == 404 && stale.text().await.unwrap().contains("BLOB_UPLOAD_INVALID"));
}

#[tokio::test]
async fn the_server_lists_referrers_as_its_version_does() {
    for (version, api, header) in [((2, 7), 404, false), ((2, 8), 200, false), ((2, 9), 200, true)] {
        let server = Server::start(Setup { version, ..three_projects() });
        let ci = logged_in("ci", "Ci123456");
        upload(&ci, &server, "base/a", b"{}").await;
        put_manifest(&ci, &server, "base/a", "1", &image(b"{}")).await;
        let digest = server.tag("base/a", "1").unwrap();
        let mut signature = image(b"{}");
        signature["subject"] = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 1});
        let put = put_manifest(&ci, &server, "base/a", "sig", &signature).await;
        assert_eq!((put.status().as_u16(), put.headers().contains_key("oci-subject")), (201, header));
        let path = format!("/v2/base/a/referrers/{digest}");
        let list = ci.request("GET", &server.registry(), &path).send().await.unwrap();
        assert_eq!(list.status(), api);
        if api == 200 {
            let list: serde_json::Value = list.json().await.unwrap();
            assert_eq!(list["manifests"][0]["digest"], json!(server.tag("base/a", "sig").unwrap()));
        }
    }
}
