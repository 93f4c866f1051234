//! The embedded registry, as skopeo and plain HTTP see it.

mod support;

use std::path::Path;

use gapferry::oci::Digest;
use gapferry::progress::Event;
use serde_json::json;
use support::embedded::Embedded;
use support::images::{self, Corpus, Image, push_blob};
use support::registry::Registry;
use support::{files_below, sha256, skopeo, tempdir};

/// A layout with these images, made by pushing them into an empty directory.
fn layout_of(directory: &Path, pushed: &[Image]) {
    let server = Embedded::writable(directory);
    pushed.iter().for_each(|image| image.push(&server));
}

fn docker(server: &Embedded, reference: &str) -> String {
    format!("docker://{}/{reference}", server.host())
}

fn code(answer: &support::http::Answer) -> String {
    answer.json()["errors"][0]["code"].as_str().expect("a code").to_owned()
}

#[test]
fn skopeo_reads_every_kind_of_image_with_its_digest_from_a_directory_and_from_a_tar() {
    let work = tempdir();
    let (directory, tar) = (work.path().join("layout"), work.path().join("layout.tar"));
    let corpus = Corpus::everything();
    layout_of(&directory, &corpus.images);
    let mut archive = tar::Builder::new(std::fs::File::create(&tar).unwrap());
    for (name, bytes) in files_below(&directory) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap();
    for served in [&directory, &tar] {
        let server = Embedded::serve(served);
        for image in corpus.images.iter().filter(|image| image.tag.is_some()) {
            assert_eq!(skopeo::digest(&docker(&server, &image.name())), image.digest(), "{}", image.name());
        }
        let copy = tempdir();
        for reference in ["library/index:1.0", "docker.io/library/list:1.0", "a/b/c/d:x"] {
            let target = copy.path().join(reference.replace(['/', ':'], "-"));
            skopeo::copy(&docker(&server, reference), &format!("dir:{}", target.display()));
        }
        assert_eq!(skopeo::list_tags(&docker(&server, "library/oci")), ["1.0", "same"]);
        skopeo::run(&["inspect", "--tls-verify=false", &docker(&server, "library/docker:1.0")]);
        assert_eq!(server.events(), []);
        assert!(server.references().contains(&"team/odd-sizes:1".to_owned()));
    }
}

#[test]
fn what_skopeo_pushes_into_a_directory_can_be_read_back_as_registry_and_as_layout() {
    let (registry, work) = (Registry::start(), tempdir());
    let (index, schema2) = (images::oci_index("x/index", "1", "i"), images::docker("x/docker", "1", &["d"]));
    index.push(&registry);
    schema2.push(&registry);
    let server = Embedded::writable(work.path());
    for image in [&index, &schema2] {
        skopeo::copy(&format!("docker://{}/{}", registry.host(), image.name()), &docker(&server, &image.name()));
        assert_eq!(skopeo::digest(&docker(&server, &image.name())), image.digest());
    }
    // Debian's skopeo 1.9 finds only OCI types in a layout.
    let layout = format!("oci:{}:docker.io/{}", work.path().display(), index.name());
    assert_eq!(skopeo::digest(&layout), index.digest());
    drop(server);
    let index_json = std::fs::read_to_string(work.path().join("index.json")).unwrap();
    assert_eq!(index_json.matches("\"digest\"").count(), 2, "children are not listed: {index_json}");
    assert!(!work.path().join(".uploads").exists());
    // Back into a real registry, from the read-only server.
    let server = Embedded::serve(work.path());
    skopeo::copy(&docker(&server, "x/index:1"), &format!("docker://{}/back:1", registry.host()));
    assert_eq!(registry.digest("back", "1"), Some(index.digest()));
}

#[test]
fn an_image_is_found_under_its_full_name_and_as_docker_shortens_it() {
    let work = tempdir();
    let (hub, quay) = (images::oci("x", "1", &["hub"]), images::oci("x", "1", &["quay"]));
    layout_of(work.path(), &[hub.named("library/nginx", "1"), quay.named("quay.io/library/nginx", "1")]);
    let server = Embedded::serve(work.path());
    for (name, image) in
        [("nginx", &hub), ("library/nginx", &hub), ("docker.io/library/nginx", &hub), ("quay.io/library/nginx", &quay)]
    {
        assert_eq!(skopeo::digest(&docker(&server, &format!("{name}:1"))), image.digest(), "{name}");
    }
    assert_eq!(server.references(), ["library/nginx:1", "quay.io/library/nginx:1"]);
}

#[test]
fn a_layout_of_skopeo_with_bare_tags_is_served_under_its_own_name() {
    let (registry, work) = (Registry::start(), tempdir());
    let image = images::oci("x", "1", &["x"]);
    image.push(&registry);
    let layout = work.path().join("My-App");
    let source = format!("docker://{}/x:1", registry.host());
    skopeo::copy(&source, &format!("oci:{}:v7", layout.display()));
    let server = Embedded::serve(&layout);
    assert_eq!(skopeo::digest(&docker(&server, "my-app:v7")), image.digest());
}

#[test]
fn heads_say_what_gets_give_without_a_body() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    let server = Embedded::serve(work.path());
    for path in [
        "/v2/".to_owned(),
        "/v2/team/app/manifests/1".to_owned(),
        format!("/v2/team/app/manifests/{}", image.digest()),
        format!("/v2/team/app/blobs/{}", sha256(&image.blobs[1])),
        "/v2/team/app/tags/list".to_owned(),
        "/v2/team/app/manifests/none".to_owned(),
    ] {
        let (got, head) = (server.get(&path), server.request("HEAD", &path).send());
        assert_eq!(head.status, got.status, "{path}");
        assert!(head.body.is_empty());
        for name in ["content-type", "content-length", "docker-content-digest", "docker-distribution-api-version"] {
            assert_eq!(head.header(name), got.header(name), "{name} of {path}");
        }
        assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()), "{path}");
    }
    let manifest = server.get("/v2/team/app/manifests/1");
    assert_eq!(manifest.header("content-type"), Some(image.media_type.as_str()));
    assert_eq!(manifest.header("docker-content-digest"), Some(image.digest().as_str()));
    assert_eq!(manifest.body, image.manifest);
}

#[test]
fn a_download_that_broke_off_continues_where_it_was() {
    let work = tempdir();
    let blob: Vec<u8> = (0..2_000_000_u32).flat_map(|i| i.to_le_bytes()).collect();
    let image = images::oci_raw("a", "1", b"{}", &[("application/vnd.example.large", blob.clone())]);
    layout_of(work.path(), &[image]);
    let server = Embedded::serve(work.path());
    let path = format!("/v2/a/blobs/{}", sha256(&blob));
    assert_eq!(server.get(&path).expect(200).body, blob);
    let ask = |range: &str| server.request("GET", &path).header("Range", range).send();
    let part = ask("bytes=7000000-").expect(206);
    assert_eq!(part.header("content-range"), Some("bytes 7000000-7999999/8000000"));
    assert_eq!(part.body, blob[7_000_000..]);
    assert_eq!(ask("bytes=5-8").expect(206).body, blob[5..9]);
    assert_eq!(ask("bytes=-3").expect(206).body, blob[7_999_997..]);
    let behind = ask("bytes=8000000-").expect(416);
    assert_eq!(behind.header("content-range"), Some("bytes */8000000"));
}

#[test]
fn long_lists_come_in_pages_that_miss_and_repeat_nothing() {
    let work = tempdir();
    let image = images::oci("a", "1", &["x"]);
    let named: Vec<Image> = (0..7).map(|i| image.named("team/app", &format!("v{i}"))).collect();
    let others: Vec<Image> = (0..4).map(|i| image.named(&format!("repo{i}/x"), "1")).collect();
    layout_of(work.path(), &[named, others].concat());
    let server = Embedded::serve(work.path());
    let pages = |first: &str, key: &str| {
        let (mut next, mut all, mut count) = (Some(first.to_owned()), Vec::new(), 0);
        while let Some(path) = next {
            let answer = server.get(&path).expect(200);
            let items = answer.json()[key].as_array().unwrap().clone();
            all.extend(items.iter().map(|item| item.as_str().unwrap().to_owned()));
            let link = answer.header("link").map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
            (next, count) = (link, count + 1);
        }
        (all, count)
    };
    let (tags, count) = pages("/v2/team/app/tags/list?n=3", "tags");
    assert_eq!((tags.len(), count), (7, 3));
    assert_eq!(tags, ["v0", "v1", "v2", "v3", "v4", "v5", "v6"]);
    let (repositories, count) = pages("/v2/_catalog?n=2", "repositories");
    assert_eq!(repositories, ["repo0/x", "repo1/x", "repo2/x", "repo3/x", "team/app"]);
    assert_eq!(count, 3);
    assert_eq!(server.get("/v2/team/app/tags/list").json()["tags"].as_array().unwrap().len(), 7);
    assert_eq!(server.get("/v2/team/app/tags/list?n=0").json()["tags"], json!([]));
    assert_eq!(code(&server.get("/v2/team/app/tags/list?n=x").expect(400)), "PAGINATION_NUMBER_INVALID");
    assert_eq!(code(&server.get("/v2/none/tags/list").expect(404)), "NAME_UNKNOWN");
}

#[test]
fn referrers_are_listed_and_filtered() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    let sbom = images::referrer(&image, "application/spdx+json", b"sbom");
    let signature = images::referrer(&image, "application/vnd.example.signature", b"signature");
    let about_sbom = images::referrer(&sbom, "application/vnd.example.signature", b"signature of the sbom");
    let server = Embedded::writable(work.path());
    // A referrer may come before its subject.
    let path = format!("/v2/team/app/manifests/{}", sbom.digest());
    sbom.blobs.iter().for_each(|blob| push_blob(&server, "team/app", blob));
    let put = server.request("PUT", &path).header("Content-Type", &sbom.media_type).body(sbom.manifest.clone());
    assert_eq!(put.send().expect(201).header("oci-subject"), Some(image.digest().as_str()));
    [&image, &signature, &about_sbom].into_iter().for_each(|image| image.push(&server));
    let check = |server: &Embedded| {
        let list = |query: &str| server.get(&format!("/v2/team/app/referrers/{}{query}", image.digest())).expect(200);
        let all = list("");
        assert_eq!(all.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
        assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
        let filtered = list("?artifactType=application/spdx%2Bjson");
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
        assert_eq!(filtered.json()["manifests"].as_array().unwrap().len(), 1);
        let entry = filtered.json()["manifests"][0].clone();
        assert_eq!(entry["digest"], sbom.digest());
        assert_eq!(entry["artifactType"], "application/spdx+json");
        assert_eq!(entry["annotations"]["org.example.of"], image.name());
        let none = server.get(&format!("/v2/team/app/referrers/{}", sha256(b"nobody"))).expect(200);
        assert_eq!(none.json()["manifests"], json!([]));
        assert_eq!(code(&server.get("/v2/team/app/referrers/sha256:12").expect(400)), "DIGEST_INVALID");
    };
    check(&server);
    drop(server);
    check(&Embedded::serve(work.path()));
}

#[test]
fn nothing_can_be_written_unless_it_was_asked_for() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    let before = files_below(work.path());
    let server = Embedded::serve(work.path());
    let digest = image.digest();
    for (method, path) in [
        ("POST", "/v2/team/app/blobs/uploads/".to_owned()),
        ("PATCH", "/v2/team/app/blobs/uploads/1".to_owned()),
        ("PUT", format!("/v2/team/app/manifests/{digest}")),
        ("DELETE", "/v2/team/app/manifests/1".to_owned()),
        ("DELETE", format!("/v2/team/app/blobs/{digest}")),
    ] {
        let answer = server.request(method, &path).body("x").send().expect(405);
        assert_eq!(code(&answer), "UNSUPPORTED", "{method}");
        assert!(answer.text().contains("--writable"), "{}", answer.text());
    }
    let copy = ["copy", "--dest-tls-verify=false", &docker(&server, "team/app:1"), &docker(&server, "team/app:2")];
    assert!(!skopeo::try_run(&copy).status.success());
    drop(server);
    assert_eq!(files_below(work.path()), before);
    let tar = work.path().join("x.tar");
    std::fs::write(&tar, vec![0; 10240]).unwrap();
    assert!(Embedded::try_serve(&tar, true).err().unwrap().to_string().contains("only a directory"));
}

#[test]
fn an_upload_in_pieces_keeps_its_order_and_can_be_resumed() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let blob: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let start = || {
        let answer = server.request("POST", "/v2/team/app/blobs/uploads/").send().expect(202);
        answer.header("location").unwrap().to_owned()
    };
    let place = start();
    let patch =
        |range: &str, body: &[u8]| server.request("PATCH", &place).header("Content-Range", range).body(body).send();
    assert_eq!(patch("0-999999", &blob[..1_000_000]).expect(202).header("range"), Some("0-999999"));
    let early = patch("2000000-2999999", &blob[2_000_000..]).expect(416);
    assert_eq!(early.header("range"), Some("0-999999"));
    assert_eq!(code(&patch("1000000-1999999", &blob[1_000_000..1_500_000]).expect(400)), "SIZE_INVALID");
    let status = server.get(&place).expect(204);
    assert_eq!((status.header("range"), status.header("location")), (Some("0-999999"), Some(place.as_str())));
    patch("1000000-1999999", &blob[1_000_000..2_000_000]).expect(202);
    let put = format!("{place}?digest={}", sha256(&blob));
    let done = server.request("PUT", &put).body(&blob[2_000_000..]).send().expect(201);
    assert_eq!(done.header("docker-content-digest"), Some(sha256(&blob).as_str()));
    assert_eq!(server.get(done.header("location").unwrap()).expect(200).body, blob);
    server.get(&place).expect(404);
    let cancelled = start();
    server.request("DELETE", &cancelled).send().expect(204);
    assert_eq!(code(&server.request("PATCH", &cancelled).body("x").send().expect(404)), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(files_below(&work.path().join(".uploads")), []);
}

#[test]
fn what_arrived_before_a_connection_broke_is_kept() {
    use std::io::{Read, Write};
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let answer = server.request("POST", "/v2/a/blobs/uploads/").send().expect(202);
    let place = answer.header("location").unwrap().to_owned();
    let mut connection = std::net::TcpStream::connect(server.host()).unwrap();
    write!(connection, "PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst").unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    // Until the server has closed its side, too: then it is done with this request.
    let _ = connection.read_to_end(&mut Vec::new());
    assert_eq!(server.get(&place).expect(204).header("range"), Some("0-4"));
    let rest = format!("{place}?digest={}", sha256(b"firstlater"));
    server.request("PUT", &rest).header("Content-Range", "5-9").body("later").send().expect(201);
}

#[test]
fn what_a_killed_server_left_unfinished_is_removed() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    std::fs::create_dir(work.path().join(".uploads")).unwrap();
    std::fs::write(work.path().join(".uploads/1234"), "half a blob").unwrap();
    let server = Embedded::writable(work.path());
    assert!(!work.path().join(".uploads").exists());
    assert_eq!(server.get("/v2/team/app/manifests/1").expect(200).body, image.manifest);
}

#[test]
fn bytes_that_are_not_what_was_promised_get_no_name() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let digest = sha256(b"promised");
    let post = |name: &str, digest: &str, body: &str| {
        server.request("POST", &format!("/v2/{name}/blobs/uploads/?digest={digest}")).body(body).send()
    };
    assert_eq!(code(&post("a", &digest, "other").expect(400)), "DIGEST_INVALID");
    assert_eq!(code(&post("a", "sha256:..", "other").expect(400)), "DIGEST_INVALID");
    server.get(&format!("/v2/a/blobs/{digest}")).expect(404);
    post("a", &digest, "promised").expect(201);
    post("a", &sha256(b""), "").expect(201);
    let sha512 = Digest::of(gapferry::oci::Algorithm::Sha512, b"long").to_string();
    post("a", &sha512, "long").expect(201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{sha512}")).expect(200).body, b"long");
    assert_eq!(code(&post("a/_b", &digest, "promised").expect(400)), "NAME_INVALID");
    let mount = format!("/v2/other/blobs/uploads/?mount={digest}&from=a");
    assert_eq!(server.request("POST", &mount).send().expect(201).header("docker-content-digest"), Some(&*digest));
    let absent = format!("/v2/other/blobs/uploads/?mount={}&from=a", sha256(b"absent"));
    server.request("POST", &absent).send().expect(202);
}

#[test]
fn a_manifest_is_taken_only_when_it_can_be_pulled() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let (image, index) = (images::oci("a", "1", &["x"]), images::oci_index("a", "2", "x"));
    let put = |target: &str, media_type: &str, body: &[u8]| {
        let request = server.request("PUT", &format!("/v2/a/manifests/{target}"));
        request.header("Content-Type", media_type).body(body).send()
    };
    assert_eq!(code(&put("1", &image.media_type, &image.manifest).expect(400)), "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(code(&put("2", &index.media_type, &index.manifest).expect(400)), "MANIFEST_BLOB_UNKNOWN");
    image.push(&server);
    assert_eq!(code(&put(&sha256(b"x"), &image.media_type, &image.manifest).expect(400)), "DIGEST_INVALID");
    assert_eq!(code(&put("1", &index.media_type, &image.manifest).expect(400)), "MANIFEST_INVALID");
    assert_eq!(code(&put("1", &image.media_type, b"<html>").expect(400)), "MANIFEST_INVALID");
    assert_eq!(code(&put(".x", &image.media_type, &image.manifest).expect(400)), "TAG_INVALID");
    let huge = vec![b' '; 4 * 1024 * 1024 + 1];
    assert_eq!(put("1", &image.media_type, &huge).expect(413).status, 413);
    server.get("/v2/a/manifests/2").expect(404);
    assert_eq!(server.get("/v2/a/manifests/1").expect(200).body, image.manifest);
    assert_eq!(
        code(&server.get(&format!("/v2/a/manifests/{}", sha256(&image.blobs[0]))).expect(404)),
        "MANIFEST_UNKNOWN"
    );
}

#[test]
fn deleting_one_image_takes_nothing_from_another() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let index = images::oci_index("a", "1", "x");
    let (one, other) = (images::oci("a", "one", &["shared base", "1"]), images::oci("b", "other", &["shared base"]));
    [&index, &one, &other].into_iter().for_each(|image| image.push(&server));
    let delete = |path: String| server.request("DELETE", &path).send();
    let (shared, own) = (sha256(&one.blobs[1]), sha256(&one.blobs[2]));
    assert_eq!(code(&delete(format!("/v2/a/blobs/{own}")).expect(403)), "DENIED");
    delete("/v2/a/manifests/one".to_owned()).expect(202);
    server.get("/v2/a/manifests/one").expect(404);
    server.get(&format!("/v2/a/manifests/{}", one.digest())).expect(200);
    delete(format!("/v2/a/manifests/{}", one.digest())).expect(202);
    server.get(&format!("/v2/a/manifests/{}", one.digest())).expect(404);
    delete(format!("/v2/a/blobs/{own}")).expect(202);
    delete(format!("/v2/a/blobs/{own}")).expect(404);
    delete(format!("/v2/a/blobs/{shared}")).expect(403);
    assert_eq!(code(&delete(format!("/v2/a/manifests/{}", index.children[0].digest())).expect(403)), "DENIED");
    skopeo::copy(&docker(&server, "b:other"), &format!("dir:{}", work.path().join("copy").display()));
    assert_eq!(skopeo::digest(&docker(&server, "a:1")), index.digest());
}

#[test]
fn many_clients_may_push_at_once() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let pushed: Vec<Image> =
        (0..8).map(|i| images::oci(&format!("team/app{}", i % 3), &format!("v{i}"), &["base"])).collect();
    std::thread::scope(|scope| {
        for image in &pushed {
            let server = &server;
            scope.spawn(move || image.push(server));
        }
    });
    drop(server);
    let server = Embedded::serve(work.path());
    for image in &pushed {
        assert_eq!(skopeo::digest(&docker(&server, &image.name())), image.digest(), "{}", image.name());
    }
}

#[test]
fn a_bundle_that_is_pushed_to_no_longer_claims_to_be_sealed() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    let seals = ["bundle.json", "SHA256SUMS", "manifest.json"].map(|name| work.path().join(name));
    seals.iter().for_each(|path| std::fs::write(path, "{}").unwrap());
    let server = Embedded::writable(work.path());
    skopeo::digest(&docker(&server, "team/app:1"));
    assert!(seals.iter().all(|path| path.exists()), "reading changes nothing");
    images::oci("team/app", "2", &["y"]).push(&server);
    assert!(seals.iter().all(|path| !path.exists()));
    let warned = |event: &Event| matches!(event, Event::Warning(text) if text.contains("sealed"));
    assert_eq!(server.events().iter().filter(|event| warned(event)).count(), 1);
}

#[test]
fn a_directory_has_one_writing_server_and_must_be_a_layout() {
    let work = tempdir();
    let first = Embedded::writable(work.path());
    assert!(Embedded::try_serve(work.path(), true).err().unwrap().to_string().contains("another process"));
    drop(first);
    drop(Embedded::writable(work.path()));
    let other = tempdir();
    std::fs::write(other.path().join("notes.txt"), "mine").unwrap();
    for writable in [true, false] {
        let error = Embedded::try_serve(other.path(), writable).err().unwrap();
        assert!(error.to_string().contains("not an OCI image layout"), "{error}");
    }
    assert_eq!(files_below(other.path()).len(), 1);
}

#[test]
fn a_damaged_manifest_is_not_handed_out() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    let path = work.path().join("blobs/sha256").join(image.digest().trim_start_matches("sha256:"));
    let damaged = String::from_utf8(image.manifest.clone()).unwrap().replace("\"size\"", "\"sizE\"");
    std::fs::write(&path, damaged).unwrap();
    let server = Embedded::serve(work.path());
    assert!(server.get("/v2/team/app/manifests/1").expect(500).text().contains("wrong digest"));
    assert!(matches!(&server.events()[..], [Event::Warning(text)] if text.contains("wrong digest")));
}

#[test]
fn the_command_says_where_it_listens_and_ends_cleanly_when_asked() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let work = tempdir();
    let layout = work.path().join("new");
    let serve = |arguments: &[&str]| {
        let mut command = support::gapferry_process();
        command.arg("serve").arg(&layout).args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        (process, address.trim().to_owned())
    };
    let stop = |process: std::process::Child| {
        let id = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let (process, address) = serve(&["--writable"]);
    let blob = format!("http://{address}/v2/a/blobs/uploads/?digest={}", sha256(b"x"));
    support::http::request("POST", blob).body("x").send().expect(201);
    assert!(stop(process).contains("pull and push"));
    let (process, address) = serve(&[]);
    assert_eq!(support::http::get(format!("http://{address}/v2/a/blobs/{}", sha256(b"x"))).expect(200).body, b"x");
    assert!(stop(process).contains("read-only"));
    let help = String::from_utf8(support::gapferry().args(["serve", "--help"]).output().unwrap().stdout).unwrap();
    assert!(help.contains("no authentication"), "{help}");
    let tar = work.path().join("x.tar");
    std::fs::write(&tar, "").unwrap();
    support::gapferry().arg("serve").arg(&tar).arg("--writable").assert().code(2);
}
