//! Deletion as in distribution-spec 1.1: deleted content is unknown from then on, and content that others need stays.

use super::code;
use crate::support::embedded::Embedded;
use crate::support::images;
use crate::support::{sha256, tempdir};

#[test]
fn an_index_its_manifests_and_their_blobs_can_be_deleted_in_turn() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let index = images::oci_index("a", "1", "x");
    index.push(&server);
    let delete = |path: String| {
        server.request("DELETE", &path).send().expect(202);
        server.get(&path).expect(404);
    };
    delete("/v2/a/manifests/1".to_owned());
    delete(format!("/v2/a/manifests/{}", index.digest()));
    for child in &index.children {
        delete(format!("/v2/a/manifests/{}", child.digest()));
    }
    for child in &index.children {
        for blob in &child.blobs {
            let path = format!("/v2/a/blobs/{}", sha256(blob));
            let answer = server.request("DELETE", &path).send();
            // Children may share a blob.
            assert!([202, 404].contains(&answer.status), "{}", answer.text());
            server.get(&path).expect(404);
        }
    }
}

#[test]
fn nothing_is_deleted_in_a_repository_that_does_not_exist() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let image = images::oci("a", "1", &["x"]);
    image.push(&server);
    for target in ["1".to_owned(), image.digest()] {
        let answer = server.request("DELETE", &format!("/v2/nowhere/manifests/{target}")).send().expect(404);
        assert_eq!(code(&answer), "NAME_UNKNOWN");
        server.get(&format!("/v2/a/manifests/{target}")).expect(200);
    }
}

#[test]
fn a_referrer_of_a_missing_subject_can_be_deleted_with_its_blobs() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let subject = images::oci("a", "1", &["never pushed"]);
    let referrer = images::referrer(&subject, "application/vnd.example.signature", b"signature");
    referrer.push(&server);
    let path = format!("/v2/a/manifests/{}", referrer.digest());
    server.request("DELETE", &path).send().expect(202);
    server.get(&path).expect(404);
    for blob in &referrer.blobs {
        server.request("DELETE", &format!("/v2/a/blobs/{}", sha256(blob))).send().expect(202);
    }
}

#[test]
fn referrers_of_another_repository_are_not_listed() {
    let work = tempdir();
    let server = Embedded::writable(work.path());
    let image = images::oci("a", "1", &["x"]);
    let referrer = images::referrer(&image, "application/vnd.example.signature", b"signature");
    image.push(&server);
    image.named("b", "1").push(&server);
    referrer.named("b", "signature").push(&server);
    let count = |name: &str| {
        let answer = server.get(&format!("/v2/{name}/referrers/{}", image.digest())).expect(200);
        answer.json()["manifests"].as_array().unwrap().len()
    };
    assert_eq!((count("a"), count("b")), (0, 1));
}
