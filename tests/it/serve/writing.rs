//! Pushes and deletions: a layout stays consistent, whatever is interrupted.

use gapferry::base::progress::Event;
use gapferry::oci::Digest;

use super::{code, docker, layout_of};
use crate::support::embedded::Embedded;
use crate::support::images::{self, Image};
use crate::support::{files_below, sha256, skopeo, tempdir};

#[test]
fn serve_is_read_only_by_default() {
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
fn a_chunked_upload_keeps_its_order_and_can_be_resumed() {
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
fn bytes_received_before_a_broken_connection_are_kept() {
    use std::io::{Read, Write};
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let answer = server.request("POST", "/v2/a/blobs/uploads/").send().expect(202);
    let place = answer.header("location").unwrap().to_owned();
    let mut connection = std::net::TcpStream::connect(server.host()).unwrap();
    write!(connection, "PATCH {place} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nfirst").unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    // Waits until the server has closed its side and finished with this request.
    let _ = connection.read_to_end(&mut Vec::new());
    assert_eq!(server.get(&place).expect(204).header("range"), Some("0-4"));
    let rest = format!("{place}?digest={}", sha256(b"firstlater"));
    server.request("PUT", &rest).header("Content-Range", "5-9").body("later").send().expect(201);
}

#[test]
fn leftovers_of_a_killed_server_are_removed() {
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
fn bytes_with_a_wrong_digest_are_not_stored() {
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
fn a_manifest_is_accepted_only_if_its_content_is_present() {
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
fn deleting_one_image_removes_nothing_of_another() {
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
    skopeo::copy(&docker(&server, "b:other"), &format!("dir:{}", work.path().join("copy").display()));
    assert_eq!(skopeo::digest(&docker(&server, "a:1")), index.digest());
}

#[test]
fn many_clients_can_push_at_once() {
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
fn a_bundle_that_takes_a_push_is_no_longer_sealed() {
    let work = tempdir();
    let image = images::oci("team/app", "1", &["x"]);
    layout_of(work.path(), std::slice::from_ref(&image));
    let seals = ["bundle.json", "SHA256SUMS", "manifest.json"].map(|name| work.path().join(name));
    seals.iter().for_each(|path| std::fs::write(path, "{}").unwrap());
    std::fs::write(work.path().join("index.journal"), "somebody put it there\n").unwrap();
    let server = Embedded::writable(work.path());
    skopeo::digest(&docker(&server, "team/app:1"));
    assert!(seals.iter().all(|path| path.exists()), "reading changes nothing");
    images::oci("team/app", "2", &["y"]).push(&server);
    assert!(seals.iter().all(|path| !path.exists()));
    let warned = |event: &Event| matches!(event, Event::Warning(text) if text.contains("sealed"));
    assert_eq!(server.events().iter().filter(|event| warned(event)).count(), 1);
    drop(server);
    skopeo::digest(&docker(&Embedded::serve(work.path()), "team/app:2"));
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
