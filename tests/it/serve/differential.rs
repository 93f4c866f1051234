//! The same requests to a real `docker-registry` (distribution 2.8) and to `serve --writable`: repositories whose paths
//! overlap with each other and with the words of the API, and every kind of client request.
//!
//! Where the two differ on purpose, the row has both statuses and the reason.

use crate::support::embedded::Embedded;
use crate::support::http::Answer;
use crate::support::images::{self, Host, Image};
use crate::support::registry::Registry;
use crate::support::{sha256, tempdir};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const NO_JSON: &str = "distribution answers paths it does not know by plain text; the spec's codes say more";
const ANYWHERE: &str = "a layout does not know which repository a blob belongs to, and nobody is kept from anything";

/// One request and the expected answers.
struct Row {
    method: &'static str,
    /// Placeholders: `$D`, `$B`, `$Z`, `$X` are the digests of the manifest of a/b, of its layer, of no content, of
    /// `x`; `$U` is an upload just started in a/b.
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: &'static str,
    /// The statuses of docker-registry and of gapferry, and why they differ.
    differs: Option<(u16, u16, &'static str)>,
}

fn same(request: &'static str) -> Row {
    let (method, path) = request.split_once(' ').unwrap();
    Row { method, path, headers: vec![("Accept", MANIFEST)], body: "", differs: None }
}

fn differs(request: &'static str, docker: u16, ours: u16, why: &'static str) -> Row {
    Row { differs: Some((docker, ours, why)), ..same(request) }
}

impl Row {
    fn with(mut self, name: &'static str, value: &'static str) -> Row {
        self.headers.retain(|(own, _)| *own != name);
        self.headers.push((name, value));
        self
    }

    /// `manifest` means the manifest of a/b.
    fn body(self, body: &'static str) -> Row {
        let media_type = if body == "manifest" { MANIFEST } else { "application/octet-stream" };
        Row { body, ..self }.with("Content-Type", media_type)
    }
}

fn reading() -> Vec<Row> {
    vec![
        same("GET /v2/"),
        same("HEAD /v2/"),
        differs("GET /v2", 301, 200, "a redirect helps nobody"),
        differs("GET /", 200, 404, "only what is below /v2/ is a registry's"),
        same("GET /v2/_catalog"),
        same("GET /v2/_catalog?n=2"),
        same("GET /v2/_catalog?n=2&last=a/b/c"),
        same("GET /v2/_catalog?n=0"),
        differs("GET /v2/_catalog?n=x", 200, 400, "a number is a number"),
        same("POST /v2/_catalog"),
        differs("GET /v2/a/b/tags/other", 404, 404, NO_JSON),
        same("GET /v2/a/b/c/tags/list"),
        same("GET /v2/none/x/tags/list"),
        same("GET /v2/a/tags/list"),
        same("DELETE /v2/a/b/tags/list"),
        // Repositories named like parts of the API.
        same("GET /v2/a/b/manifests/tags/list"),
        same("GET /v2/a/b/blobs/tags/list"),
        same("GET /v2/a/b/blobs/uploads/tags/list"),
        same("GET /v2/a/b/tags/tags/list"),
        same("GET /v2/a/b/tags/manifests/1"),
        same("GET /v2/a/b/manifests/manifests/1"),
        same("GET /v2/a/b/blobs/manifests/1"),
        same("GET /v2/a/b/blobs/uploads/manifests/1"),
        same("GET /v2/a/b/c/manifests/1"),
        same("GET /v2/a/b/manifests/list"),
        same("GET /v2/a/b/tags/manifests/list"),
        // Manifests.
        same("GET /v2/a/b/manifests/1"),
        same("HEAD /v2/a/b/manifests/1"),
        same("GET /v2/a/b/manifests/$D"),
        same("HEAD /v2/a/b/manifests/$D"),
        same("GET /v2/a/b/manifests/1").with("If-None-Match", "\"$D\""),
        same("GET /v2/a/b/manifests/1").with("If-None-Match", "$D"),
        same("GET /v2/a/b/manifests/1").with("If-None-Match", "\"$Z\""),
        same("GET /v2/a/b/manifests/none"),
        same("HEAD /v2/a/b/manifests/none"),
        same("GET /v2/a/b/manifests/$Z"),
        same("GET /v2/none/x/manifests/1"),
        same("GET /v2/a/manifests/1"),
        differs("GET /v2/a/b/c/manifests/$D", 404, 200, ANYWHERE),
        differs("GET /v2/a/b/manifests/$B", 500, 404, "a layer is no manifest, which is no fault of the server"),
        differs("GET /v2/a/b/manifests/sha256:12", 500, 400, "a digest that is none is the client's fault"),
        differs("GET /v2/a/b/manifests/.x", 404, 400, NO_JSON),
        differs("GET /v2/a/b/manifests/1", 404, 200, "what is there is given; there is no other form of it")
            .with("Accept", "text/html"),
        same("POST /v2/a/b/manifests/1"),
        same("PATCH /v2/a/b/manifests/1"),
        differs("GET /v2/a//b/manifests/1", 301, 400, "a path is not corrected"),
        differs("GET /v2/_a/b/manifests/1", 404, 400, NO_JSON),
        // Blobs.
        same("GET /v2/a/b/blobs/$B"),
        same("HEAD /v2/a/b/blobs/$B"),
        same("GET /v2/a/b/blobs/$Z"),
        same("HEAD /v2/a/b/blobs/$Z"),
        same("GET /v2/a/b/blobs/sha256:12"),
        same("GET /v2/a/b/blobs/md5:d41d8cd98f00b204e9800998ecf8427e"),
        differs("GET /v2/a/b/blobs/x", 404, 400, NO_JSON),
        differs("GET /v2/a/b/c/blobs/$B", 404, 200, ANYWHERE),
        differs("GET /v2/a/b/blobs/$D", 404, 200, ANYWHERE),
        same("GET /v2/a/b/blobs/$B").with("Range", "bytes=1-"),
        same("GET /v2/a/b/blobs/$B").with("Range", "bytes=0-0"),
        same("GET /v2/a/b/blobs/$B").with("Range", "bytes=-1"),
        same("GET /v2/a/b/blobs/$B").with("Range", "bytes=0-99999"),
        differs("GET /v2/a/b/blobs/$B", 206, 200, "RFC 9110 14.2: several ranges may be ignored")
            .with("Range", "bytes=0-0,2-2"),
        differs("HEAD /v2/a/b/blobs/$B", 206, 200, "RFC 9110 14.2: only GET has ranges").with("Range", "bytes=0-0"),
        same("GET /v2/a/b/blobs/$B").with("If-None-Match", "\"$B\""),
        same("PUT /v2/a/b/blobs/$B"),
        same("POST /v2/a/b/blobs/$B"),
        differs("GET /v2/a/b/referrers/$D", 404, 200, "distribution-spec 1.1, Listing Referrers"),
    ]
}

fn writing() -> Vec<Row> {
    let any = "distribution 2.8 does not look at Content-Range; the spec has 416";
    vec![
        same("POST /v2/a/b/blobs/uploads/"),
        differs("POST /v2/a/b/blobs/uploads", 301, 202, "a redirect would lose the body"),
        differs("GET /v2/a/b/blobs/uploads/", 404, 405, "there is no list of uploads to be found"),
        same("POST /v2/a/b/c/blobs/uploads/?mount=$B&from=a/b"),
        same("POST /v2/a/b/c/blobs/uploads/?mount=$Z&from=a/b"),
        same("POST /v2/a/b/c/blobs/uploads/?mount=bad&from=a/b"),
        differs("POST /v2/a/b/c/blobs/uploads/?mount=$B&from=none/x", 202, 201, ANYWHERE),
        differs("POST /v2/a/b/c/blobs/uploads/?mount=$B", 202, 201, "distribution-spec 1.1: `from` may be left out"),
        same("GET $U"),
        same("HEAD $U"),
        same("PATCH $U").body("x"),
        same("PATCH $U").body("x").with("Content-Range", "0-0"),
        differs("PATCH $U", 202, 416, any).body("x").with("Content-Range", "5-5"),
        differs("PATCH $U", 202, 400, any).body("x").with("Content-Range", "x"),
        same("DELETE $U"),
        same("PUT $U").body("x"),
        same("PUT $U&digest=bad").body("x"),
        same("PUT $U&digest=$Z").body("x"),
        same("PUT $U&digest=$X").body("x"),
        same("GET /v2/a/b/blobs/$X"),
        differs("GET /v2/a/b/blobs/uploads/none", 404, 404, "ours is BLOB_UPLOAD_UNKNOWN: nobody begun it"),
        same("PUT /v2/a/b/manifests/9").body("manifest"),
        same("PUT /v2/a/b/manifests/$D").body("manifest"),
        same("PUT /v2/a/b/manifests/$Z").body("manifest"),
        same("PUT /v2/a/b/manifests/9")
            .body("manifest")
            .with("Content-Type", "application/vnd.oci.image.index.v1+json"),
        same("PUT /v2/a/b/manifests/9").body("not a manifest").with("Content-Type", MANIFEST),
        differs("PUT /v2/new/repo/manifests/9", 400, 201, ANYWHERE).body("manifest"),
        same("GET /v2/a/b/manifests/9"),
        differs("DELETE /v2/a/b/manifests/9", 400, 202, "distribution-spec 1.1, Deleting tags"),
        same("DELETE /v2/a/b/manifests/$Z"),
        same("DELETE /v2/a/b/blobs/$Z"),
        differs("DELETE /v2/a/b/blobs/$B", 202, 403, "an image that has a name can be pulled"),
        same("DELETE /v2/a/b/manifests/$D"),
        same("DELETE /v2/a/b/manifests/$D"),
        same("GET /v2/a/b/manifests/$D"),
        same("GET /v2/a/b/manifests/1"),
        // Neighbouring repositories are not affected.
        same("GET /v2/a/b/c/manifests/1"),
        same("GET /v2/a/b/manifests/manifests/1"),
    ]
}

fn seed(registry: &impl Host) -> Image {
    let image = |repository: &str| images::oci(repository, "1", &[repository]);
    for repository in ["a/b/c", "a/b/blobs", "a/b/manifests", "a/b/tags", "a/b/blobs/uploads"] {
        image(repository).push(registry);
    }
    image("a/b").push(registry);
    image("a/b").named("a/b", "list").push(registry);
    image("a/b")
}

fn ask(registry: &impl Host, row: &Row, image: &Image) -> Answer {
    let fill = |text: &str| {
        let zeros = format!("sha256:{}", "0".repeat(64));
        let digests = [("$D", image.digest()), ("$B", sha256(&image.blobs[1])), ("$Z", zeros), ("$X", sha256(b"x"))];
        digests.iter().fold(text.to_owned(), |text, (name, digest)| text.replace(name, digest))
    };
    let mut path = fill(row.path);
    if path.contains("$U") {
        let begun = registry.request("POST", "/v2/a/b/blobs/uploads/").send().expect(202);
        let location = begun.header("location").unwrap();
        path = path.replace("$U", &location[location.find("/v2/").unwrap()..]);
        if !path.contains('?') {
            path = path.replacen('&', "?", 1);
        }
    }
    let body = if row.body == "manifest" { image.manifest.clone() } else { row.body.into() };
    let mut request = registry.request(row.method, &path).body(body);
    for (name, value) in &row.headers {
        request = request.header(name, fill(value));
    }
    request.send()
}

/// The parts of an answer that are the same at every registry.
fn gist(row: &Row, answer: &Answer) -> Vec<(&'static str, String)> {
    let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
    let mut gist = vec![("status", answer.status.to_string())];
    if answer.status != 304 {
        // RFC 9110 15.4.5 requires it there as well; distribution omits it.
        gist.push(("etag", header("etag")));
    }
    for name in ["docker-content-digest", "content-range", "docker-distribution-api-version", "allow"] {
        let value = header(name);
        // distribution refuses HEAD of lists; RFC 9110 does not allow that.
        gist.push((name, if value == "GET" { "GET, HEAD".to_owned() } else { value }));
    }
    gist.push(("range", if answer.status == 416 { String::new() } else { header("range") }));
    gist.push(("uuid", (!header("docker-upload-uuid").is_empty()).to_string()));
    let location = header("location");
    let location = location.find("/v2/").map_or("", |at| &location[at..]);
    let place = location.find("/uploads/").map_or(location, |at| &location[..at + 9]);
    gist.push(("location", place.to_owned()));
    gist.push(("more", header("link").contains("rel=\"next\"").to_string()));
    if answer.status < 300 {
        let media_type = header("content-type");
        gist.push(("content-type", media_type.split(';').next().unwrap_or_default().to_owned()));
        let list = media_type.starts_with("application/json");
        gist.push(("body", if list && row.method != "HEAD" { answer.json().to_string() } else { answer.text() }));
        // axum gives a HEAD of empty content a length of 0.
        if !list && answer.status != 204 {
            gist.push(("content-length", header("content-length")));
        }
    } else if answer.status != 405 && row.method != "HEAD" && !answer.body.is_empty() {
        gist.push(("code", answer.json()["errors"][0]["code"].to_string()));
    }
    gist
}

#[test]
fn serve_answers_like_distribution_except_where_the_spec_requires_more() {
    let work = tempdir();
    let (docker, ours) = (Registry::start(), Embedded::writable(work.path()));
    let image = seed(&docker);
    seed(&ours);
    let mut wrong = Vec::new();
    for row in reading().into_iter().chain(writing()) {
        let (theirs, own) = (ask(&docker, &row, &image), ask(&ours, &row, &image));
        let shown = format!("{} {} {:?}", row.method, row.path, row.headers);
        match row.differs {
            Some((docker, ours, why)) if (theirs.status, own.status) != (docker, ours) => {
                wrong.push(format!("{shown}: {} and {}, not {docker} and {ours} ({why})", theirs.status, own.status));
            }
            Some(_) => {}
            None => {
                let pairs = gist(&row, &theirs).into_iter().zip(gist(&row, &own));
                wrong.extend(pairs.filter(|(a, b)| a != b).map(|(a, b)| format!("{shown}: {a:?}, ours {b:?}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
