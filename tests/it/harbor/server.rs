//! The fake Harbor itself: it accepts what Harbor accepts and refuses what Harbor refuses.

use gapferry::oci::{Digest, media_type};
use serde_json::{Value, json};

use super::{ADMIN, CI, Creds, NOBODY, ROBOT, three_projects};
use crate::support::harbor::{Harbor as Server, Project, Row, Setup};
use crate::support::http::Answer;

fn send(server: &Server, creds: Creds, method: &'static str, path: &str, body: &[u8]) -> Answer {
    typed(server, creds, method, path, "application/octet-stream", body)
}

fn typed(server: &Server, creds: Creds, method: &'static str, path: &str, media_type: &str, body: &[u8]) -> Answer {
    let request = server.request(method, path).basic(creds.split_once(':'));
    request.header("content-type", media_type).header("accept", media_type::ACCEPT_MANIFESTS).body(body).send()
}

fn begin(server: &Server, creds: Creds, repository: &str) -> Answer {
    send(server, creds, "POST", &format!("/v2/{repository}/blobs/uploads/"), b"")
}

fn location(answer: &Answer) -> String {
    answer.header("location").unwrap().to_owned()
}

fn upload(server: &Server, creds: Creds, repository: &str, content: &[u8]) -> Answer {
    let begun = begin(server, creds, repository);
    if begun.status != 202 {
        return begun;
    }
    assert!(location(&begun).contains("_state="));
    let path = format!("{}&digest={}", location(&begun), Digest::sha256(content));
    send(server, creds, "PUT", &path, content)
}

fn put(server: &Server, creds: Creds, repository: &str, tag: &str, manifest: &Value) -> Answer {
    let media_type = manifest["mediaType"].as_str().unwrap();
    let path = format!("/v2/{repository}/manifests/{tag}");
    typed(server, creds, "PUT", &path, media_type, manifest.to_string().as_bytes())
}

fn image(config: &[u8]) -> Value {
    let config = json!({"mediaType": media_type::OCI_CONFIG, "digest": Digest::sha256(config), "size": config.len()});
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": []})
}

#[test]
fn it_stores_and_serves_an_image() {
    let server = Server::start(three_projects());
    put(&server, CI, "base/a", "1", &image(b"{}")).expect(400);
    upload(&server, CI, "base/a", b"{}").expect(201);
    put(&server, CI, "base/a", "1", &image(b"{}")).expect(201);
    let got = send(&server, CI, "GET", "/v2/base/a/manifests/1", b"").expect(200);
    assert_eq!(got.text(), image(b"{}").to_string());
    let blob = format!("/v2/base/a/blobs/{}", Digest::sha256(b"{}"));
    let part = server.request("GET", &blob).basic(CI.split_once(':')).header("range", "bytes=1-").send().expect(206);
    assert_eq!(part.text(), "}");
    let head = send(&server, CI, "HEAD", &blob, b"").expect(200);
    assert_eq!(head.header("content-length"), Some("2"));
    let tags = send(&server, CI, "GET", "/v2/base/a/tags/list", b"").expect(200);
    assert_eq!(tags.json(), json!({"name": "base/a", "tags": ["1"]}));
    assert_eq!((server.uploads(), server.mounts(), server.violations()), (1, 0, vec![]));
}

#[test]
fn it_refuses_what_harbor_refuses() {
    let setup = three_projects()
        .with(Project::new("fixed").immutable("v*"))
        .with(Project::new("small").quota(4))
        .with(Project::new("hub").proxy_cache());
    let server = Server::start(setup);
    for (creds, repository, status) in [
        (NOBODY, "base/a", 401),
        ("ci:Wr0ng-pw", "base/a", 401),
        (CI, "apps/a", 401),
        (CI, "nowhere/a", 401),
        (CI, "alone", 400),
        (ADMIN, "hub/a", 403),
        (ADMIN, "small/a", 403),
    ] {
        upload(&server, creds, repository, b"five!").expect(status);
    }
    upload(&server, ADMIN, "fixed/a", b"{}").expect(201);
    for (tag, status) in [("v1", 201), ("v1", 412), ("latest", 201), ("latest", 201)] {
        put(&server, ADMIN, "fixed/a", tag, &image(b"{}")).expect(status);
    }
    let absent = json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(b"?"), "size": 1});
    let sparse = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [absent]});
    let refused = put(&server, ADMIN, "fixed/a", "index", &sparse).expect(400);
    assert!(refused.text().contains("MANIFEST_BLOB_UNKNOWN"));
    server.set_read_only(true);
    upload(&server, ADMIN, "base/a", b"{}").expect(403);
}

#[test]
fn it_mounts_only_from_what_the_account_may_read() {
    let server = Server::start(three_projects());
    for repository in ["apps/a", "closed/a"] {
        upload(&server, ADMIN, repository, b"layer").expect(201);
    }
    for (from, status) in [("apps/a", 201), ("closed/a", 401), ("nowhere/a", 401), ("base/empty", 202)] {
        let path = format!("/v2/base/b/blobs/uploads/?mount={}&from={from}", Digest::sha256(b"layer"));
        send(&server, CI, "POST", &path, b"").expect(status);
    }
    assert_eq!(server.mounts(), 1);
}

#[test]
fn it_detects_wrong_accounting_and_a_lost_offset() {
    let server = Server::start(three_projects());
    let second = location(&send(&server, CI, "PATCH", &location(&begin(&server, CI, "base/a")), b"la"));
    let path = format!("{second}&digest={}", Digest::sha256(b"layer"));
    send(&server, CI, "PUT", &path, b"yer").expect(400);
    assert_eq!(server.violations().len(), 1);
    let first = location(&begin(&server, CI, "base/a"));
    send(&server, CI, "PATCH", &first, b"la").expect(202);
    let stale = send(&server, CI, "PATCH", &first, b"yer").expect(404);
    assert!(stale.text().contains("BLOB_UPLOAD_INVALID"));
}

#[test]
fn it_lists_referrers_as_its_version_does() {
    for (version, api, header) in [((2, 7), 404, None), ((2, 8), 200, None), ((2, 9), 200, Some(()))] {
        let server = Server::start(Setup { version, ..three_projects() });
        upload(&server, CI, "base/a", b"{}").expect(201);
        put(&server, CI, "base/a", "1", &image(b"{}")).expect(201);
        let digest = server.tag("base/a", "1").unwrap();
        let mut signature = image(b"{}");
        signature["subject"] = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 1});
        let stored = put(&server, CI, "base/a", "sig", &signature).expect(201);
        assert_eq!(stored.header("oci-subject").map(drop), header);
        let list = send(&server, CI, "GET", &format!("/v2/base/a/referrers/{digest}"), b"").expect(api);
        if api == 200 {
            assert_eq!(list.json()["manifests"][0]["digest"], json!(server.tag("base/a", "sig").unwrap()));
        }
    }
}

#[test]
fn its_token_answer_has_both_field_names() {
    let server = Server::start(three_projects());
    let scopes = "scope=repository:base/a:pull,push&scope=repository:apps/a:pull,push&scope=repository:closed/a:pull";
    let path = format!("/service/token?service=harbor-registry&{scopes}");
    let answer = send(&server, ROBOT, "GET", &path, b"").expect(200).json();
    assert!(answer["token"].as_str().is_some_and(|token| !token.is_empty()));
    assert_eq!(answer["access_token"], "");
    // The token is valid for the whole project.
    let bearer = format!("Bearer {}", answer["token"].as_str().unwrap());
    for (path, status) in [("base/other", 202), ("apps/a", 401), ("closed/a", 401)] {
        let request = server.request("POST", &format!("/v2/{path}/blobs/uploads/"));
        request.header("authorization", &bearer).send().expect(status);
    }
}

#[test]
fn an_image_its_policies_withhold_exists_and_can_be_pushed() {
    let server = Server::start(three_projects().with(Project::new("trust").content_trust()));
    upload(&server, ADMIN, "trust/a", b"{}").expect(201);
    for _ in 0..2 {
        put(&server, ADMIN, "trust/a", "1", &image(b"{}")).expect(201);
    }
    let path = "/v2/trust/a/manifests/1";
    assert!(send(&server, ADMIN, "GET", path, b"").expect(412).text().contains("PROJECTPOLICYVIOLATION"));
    send(&server, ADMIN, "HEAD", path, b"").expect(412);
    let artifact = send(&server, ADMIN, "GET", "/api/v2.0/projects/trust/repositories/a/artifacts/1", b"").expect(200);
    let digest = server.tag("trust/a", "1").unwrap();
    assert_eq!(artifact.json()["digest"], json!(digest), "the API still resolves the tag");
    let mut signature = image(b"{}");
    signature["annotations"] = json!({"by": "cosign"});
    put(&server, ADMIN, "trust/a", &format!("sha256-{}.sig", digest.hex()), &signature).expect(201);
    send(&server, ADMIN, "GET", path, b"").expect(200);
    // Listed among the tags, but not among the artifacts.
    let list = "/api/v2.0/projects/trust/repositories/a/artifacts";
    let listed = send(&server, ADMIN, "GET", &format!("{list}?with_accessory=true"), b"").expect(200).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["accessories"][0]["type"], "signature.cosign");
    assert_eq!(send(&server, ADMIN, "GET", list, b"").json()[0]["accessories"], Value::Null);
    let tags = send(&server, ADMIN, "GET", "/v2/trust/a/tags/list", b"").expect(200).json();
    assert_eq!(tags["tags"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_exceeded_quota_is_refused_when_an_upload_ends_and_the_session_stays() {
    let server = Server::start(three_projects().with(Project::new("small").quota(4)));
    let begun = location(&begin(&server, ADMIN, "small/a"));
    let refused = send(&server, ADMIN, "PUT", &format!("{begun}&digest={}", Digest::sha256(b"five!")), b"five!");
    let text = refused.expect(403).text();
    assert!(text.contains("adding 5 B of storage resource, which when updated to current usage of 0 B"), "{text}");
    assert_eq!(server.open_uploads(), 1);
    send(&server, ADMIN, "DELETE", &begun, b"").expect(204);
    assert_eq!(server.open_uploads(), 0);
}

#[test]
fn it_answers_head_from_its_database_and_get_from_its_storage() {
    let server = Server::start(three_projects());
    let layer = Digest::sha256(b"layer");
    upload(&server, CI, "base/a", b"layer").expect(201);
    let path = format!("/v2/base/a/blobs/{layer}");
    for row in [Row::Absent, Row::Deleting] {
        server.set_row(&layer, Some(row));
        send(&server, CI, "HEAD", &path, b"").expect(404);
        send(&server, CI, "GET", &path, b"").expect(200);
    }
    assert!(upload(&server, CI, "base/b", b"layer").expect(404).text().contains("the asking blob is in GC"));
    // A mount creates its link whatever it answers.
    server.set_row(&layer, Some(Row::Absent));
    send(&server, CI, "POST", &format!("/v2/base/c/blobs/uploads/?mount={layer}&from=base/a"), b"").expect(404);
    assert!(server.has_blob("base/c", &layer));
}

#[test]
fn only_project_managers_can_read_its_immutable_tag_rules() {
    let server = Server::start(three_projects().with(Project::new("fixed").immutable("v*")));
    let path = "/api/v2.0/projects/fixed/immutabletagrules";
    let rules = send(&server, ADMIN, "GET", path, b"").expect(200).json();
    assert_eq!(rules[0]["tag_selectors"][0]["pattern"], "v*");
    for creds in [CI, ROBOT] {
        send(&server, creds, "GET", path, b"").expect(403);
    }
}
