//! The stand-in itself: it takes what Harbor takes and refuses what Harbor refuses.

use gapferry::oci::{Digest, media_type};
use serde_json::{Value, json};

use super::support::harbor::{Harbor as Server, Project, Setup};
use super::support::http::Answer;
use super::{ADMIN, CI, Creds, NOBODY, three_projects};

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
fn it_takes_an_image_and_gives_it_back() {
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
        ("ci:wrong", "base/a", 401),
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
fn it_notices_wrong_accounting_and_a_lost_offset() {
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
