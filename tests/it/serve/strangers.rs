//! Requests not meant for this server or not from its users: browsers, clients of other registries, refused writes.

use gapferry::oci::media_type;

use super::{code, layout_of};
use crate::support::embedded::Embedded;
use crate::support::images::{self, Image};
use crate::support::{gapferry, sha256, tempdir};

/// A bundle directory of two images that have the same path at two registries.
fn bundle(directory: &std::path::Path) -> (std::path::PathBuf, [Image; 2]) {
    let names = ["quay.io/org/same", "ghcr.io/org/same"];
    let images = names.map(|name| images::oci(name, "1", &[name]));
    let (layout, out) = (directory.join("layout"), directory.join("bundle"));
    std::fs::create_dir(&layout).unwrap();
    layout_of(&layout, &images);
    let source = Embedded::serve(&layout);
    let references = images.each_ref().map(|image| format!("{}/{}", source.host(), image.name()));
    gapferry().arg("export").args(references).arg("-o").arg(&out).assert().success();
    (out, images)
}

fn seals(bundle: &std::path::Path) -> usize {
    ["bundle.json", "SHA256SUMS", "manifest.json"].iter().filter(|name| bundle.join(name).exists()).count()
}

#[test]
fn a_web_page_can_neither_read_nor_write() {
    let work = tempdir();
    let (out, _) = bundle(work.path());
    let server = Embedded::writable(&out);
    let rebound = [("Host", "evil.example"), ("Origin", "http://evil.example")];
    let foreign = [("Host", "localhost"), ("Origin", "https://evil.example")];
    for headers in [rebound, foreign] {
        for (method, path) in [
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/"),
            ("POST", "/v2/x/blobs/uploads/"),
            ("PUT", "/v2/x/manifests/1"),
            ("DELETE", "/v2/org/same/manifests/1"),
        ] {
            let mut request = server.request(method, path);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            assert_eq!(code(&request.send().expect(403)), "DENIED", "{method} {path} {headers:?}");
        }
    }
    assert_eq!(seals(&out), 3);
}

#[test]
fn a_refused_write_leaves_the_bundle_sealed() {
    let work = tempdir();
    let (out, _) = bundle(work.path());
    let server = Embedded::writable(&out);
    let nothing = sha256(b"nothing");
    let dangling = format!(
        r#"{{"schemaVersion":2,"mediaType":"{0}","config":{{"mediaType":"x","digest":"{nothing}","size":7}},"layers":[]}}"#,
        media_type::OCI_MANIFEST
    );
    for (method, path, body) in [
        ("DELETE", format!("/v2/x/blobs/{nothing}"), ""),
        ("DELETE", "/v2/nowhere/manifests/1".to_owned(), ""),
        ("DELETE", "/v2/org/same/manifests/nowhere".to_owned(), ""),
        ("PUT", "/v2/x/manifests/1".to_owned(), dangling.as_str()),
        ("PUT", "/v2/x/manifests/1".to_owned(), "not a manifest"),
        ("POST", format!("/v2/x/blobs/uploads/?digest={nothing}"), "something else"),
    ] {
        let answer = server.request(method, &path).header("Content-Type", media_type::OCI_MANIFEST).body(body).send();
        assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.status);
    }
    let begun = server.request("POST", "/v2/x/blobs/uploads/").send().expect(202);
    server.request("PATCH", begun.header("location").unwrap()).body("half").send().expect(202);
    assert_eq!(seals(&out), 3, "an upload that was only started");
    server.request("POST", &format!("/v2/x/blobs/uploads/?digest={nothing}")).body("nothing").send().expect(201);
    assert_eq!(seals(&out), 0);
}

#[test]
fn a_mirror_serves_only_images_of_the_requested_registry() {
    let work = tempdir();
    let layout = work.path().join("layout");
    std::fs::create_dir(&layout).unwrap();
    let named = |name: &str| images::oci(name, "1", &[name]);
    let (quay, ghcr) = (named("quay.io/org/same"), named("ghcr.io/org/same"));
    layout_of(&layout, &[quay, ghcr, named("quay.io/org/only")]);
    let server = Embedded::serve(&layout);
    let digest = |path: &str| server.get(path).expect(200).header("docker-content-digest").unwrap().to_owned();
    let own = |host: &str| digest(&format!("/v2/{host}/org/same/manifests/1"));
    for host in ["quay.io", "ghcr.io"] {
        assert_eq!(digest(&format!("/v2/org/same/manifests/1?ns={host}")), own(host));
        assert_eq!(digest(&format!("/v2/{host}/org/same/manifests/1?ns={host}")), own(host));
    }
    assert_ne!(own("quay.io"), own("ghcr.io"));
    // On 404, containerd tries the next mirror.
    for path in [
        "/v2/org/only/manifests/1?ns=ghcr.io",
        "/v2/org/only/manifests/1?ns=docker.io",
        "/v2/org/only/tags/list?ns=ghcr.io",
    ] {
        server.get(path).expect(404);
    }
    server.get("/v2/org/only/tags/list?ns=quay.io").expect(200);
    // Content named by digest is the same everywhere.
    server.get(&format!("/v2/org/same/manifests/{}?ns=docker.io", own("quay.io"))).expect(200);
}

#[test]
fn a_deleted_manifest_is_gone_even_if_an_index_names_it() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let index = images::oci_index("team/app", "1", "x");
    index.push(&server);
    let child = index.children[0].digest();
    let path = |repository: &str| format!("/v2/{repository}/manifests/{child}");
    server.get(&path("team/app")).expect(200);
    server.request("DELETE", &path("team/app")).send().expect(202);
    server.get(&path("team/app")).expect(404);
    server.request("DELETE", &path("team/app")).send().expect(404);
}

#[test]
fn a_deletion_keeps_content_of_other_repositories() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let image = images::oci("team/one", "1", &["x"]);
    image.push(&server);
    image.named("team/two", "1").push(&server);
    let digest = image.digest();
    server.request("DELETE", &format!("/v2/team/one/manifests/{digest}")).send().expect(202);
    server.get(&format!("/v2/team/one/manifests/{digest}")).expect(404);
    server.get(&format!("/v2/team/two/manifests/{digest}")).expect(200);
    server.get("/v2/team/two/manifests/1").expect(200);
    // A restart does not change this.
    drop(server);
    for server in [Embedded::serve(work.path()), Embedded::writable(work.path())] {
        server.get(&format!("/v2/team/one/manifests/{digest}")).expect(404);
        server.get(&format!("/v2/team/two/manifests/{digest}")).expect(200);
    }
    let server = Embedded::writable(work.path());
    image.push(&server);
    server.get(&format!("/v2/team/one/manifests/{digest}")).expect(200);
}

/// Content without a name in the index belongs to every repository, so no repository's deletion may break it.
#[test]
fn an_unnamed_image_keeps_its_content_after_any_repositorys_deletion() {
    let work = tempdir();
    let index = images::oci_index("team/app", "1", "x");
    layout_of(work.path(), std::slice::from_ref(&index));
    let path = work.path().join("index.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    json["manifests"][0].as_object_mut().unwrap().remove("annotations");
    std::fs::write(&path, json.to_string()).unwrap();
    let server = Embedded::writable(work.path());
    let child = index.children[0].digest();
    images::oci("strange/app", "1", &["y"]).push(&server);
    let status = server.request("DELETE", &format!("/v2/strange/app/manifests/{child}")).send().status;
    assert!(matches!(status, 202 | 404), "{status}");
    assert!(work.path().join("blobs").join(child.replacen(':', "/", 1)).exists());
}

#[test]
fn a_quota_limits_how_much_clients_can_store() {
    let work = tempdir();
    let server = Embedded::with_quota(work.path(), 1000);
    let post = |bytes: &[u8]| {
        server.request("POST", &format!("/v2/a/blobs/uploads/?digest={}", sha256(bytes))).body(bytes).send()
    };
    post(&[1; 600]).expect(201);
    let refused = post(&[2; 600]).expect(403);
    assert_eq!(code(&refused), "DENIED");
    assert!(refused.text().contains("quota"), "{}", refused.text());
    // Repeated content takes no space, and deletion frees space.
    post(&[1; 300]).expect(201);
    server.request("DELETE", &format!("/v2/a/blobs/{}", sha256(&[1; 600]))).send().expect(202);
    post(&[2; 600]).expect(201);
    drop(server);
    let server = Embedded::with_quota(work.path(), 1000);
    let begun = server.request("POST", "/v2/a/blobs/uploads/").send().expect(202);
    let patch = || server.request("PATCH", begun.header("location").unwrap());
    patch().body(&[3; 200][..]).send().expect(403);
    // Content that was received and not kept takes no space.
    server.request("DELETE", &format!("/v2/a/blobs/{}", sha256(&[2; 600]))).send().expect(202);
    for _ in 0..3 {
        patch().header("Content-Range", "0-9").body(&[3; 500][..]).send().expect(400);
    }
    let digest = sha256(&[4; 600]);
    let post = server.request("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"));
    post.body(&[4; 600][..]).send().expect(201);
}
