//! Manifests that gapferry does not carry, in other programs' layouts: they are still present.

use std::path::Path;

use gapferry::oci::media_type;
use serde_json::{Value, json};

use super::code;
use crate::support::embedded::Embedded;
use crate::support::images::{self, Image};
use crate::support::{sha256, tempdir};

/// Adds a manifest to a layout and lists it with these annotations.
fn list(layout: &Path, manifest: &[u8], media_type: &str, annotations: Value) -> String {
    let digest = sha256(manifest);
    std::fs::write(layout.join("blobs").join(digest.replacen(':', "/", 1)), manifest).unwrap();
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let entry = json!({"mediaType": media_type, "digest": digest, "size": manifest.len(), "annotations": annotations});
    index["manifests"].as_array_mut().unwrap().push(entry);
    std::fs::write(path, index.to_string()).unwrap();
    digest
}

/// A layout in which `docker.io/team/strange:TAG` names an image's child in several forms that gapferry refuses.
fn layout(root: &Path) -> (Image, Vec<(&'static str, Vec<u8>)>) {
    let image = images::oci("team/app", "1", &["x"]);
    super::layout_of(root, std::slice::from_ref(&image));
    let child = image.descriptor();
    let far = json!({"mediaType": media_type::OCI_MANIFEST, "digest": sha256(b"far"), "size": 3});
    let mut many = vec![child.clone()];
    many.resize(20_001, far);
    let mut long = child.clone();
    long["artifactType"] = "x".repeat(256).into();
    let index =
        |manifests: &Value| json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests});
    let mut both = index(&json!([child]));
    both["layers"] = json!([]);
    let manifests = vec![
        ("many", index(&many.into()).to_string().into_bytes()),
        ("long", index(&json!([long])).to_string().into_bytes()),
        ("both", both.to_string().into_bytes()),
        ("case", both.to_string().replace("manifests", "Manifests").into_bytes()),
        ("none", b"not a manifest".to_vec()),
        ("huge", [index(&json!([child])).to_string().as_bytes(), &vec![b' '; 4 << 20]].concat()),
    ];
    for (tag, manifest) in &manifests {
        let name = format!("docker.io/team/strange:{tag}");
        list(root, manifest, media_type::OCI_INDEX, json!({"org.opencontainers.image.ref.name": name}));
    }
    (image, manifests)
}

#[test]
fn every_listed_manifest_is_served_whatever_its_content() {
    let work = tempdir();
    let (_, manifests) = layout(work.path());
    let server = Embedded::serve(work.path());
    for (tag, manifest) in &manifests {
        for target in [(*tag).to_owned(), sha256(manifest)] {
            let path = format!("/v2/team/strange/manifests/{target}");
            let answer = server.get(&path).expect(200);
            assert!(answer.body == *manifest, "{path}");
            assert_eq!(answer.header("content-type"), Some(media_type::OCI_INDEX), "{path}");
            assert_eq!(answer.header("docker-content-digest"), Some(sha256(manifest).as_str()));
            let head = server.request("HEAD", &path).send().expect(200);
            assert_eq!(head.header("content-length"), Some(manifest.len().to_string().as_str()));
        }
    }
    server.get(&format!("/v2/team/strange/manifests/{}", sha256(b"far"))).expect(404);
}

#[test]
fn blobs_an_unreadable_manifest_may_need_stay_and_the_manifest_can_be_deleted() {
    for only in ["many", "long", "both", "case", "huge"] {
        let work = tempdir();
        let (image, manifests) = layout(work.path());
        let server = Embedded::writable(work.path());
        for (tag, manifest) in manifests.iter().filter(|(tag, _)| *tag != only) {
            let path = format!("/v2/team/strange/manifests/{}", sha256(manifest));
            server.request("DELETE", &path).send().expect(202);
            server.get(&format!("/v2/team/strange/manifests/{tag}")).expect(404);
        }
        let path = format!("/v2/team/app/manifests/{}", image.digest());
        server.request("DELETE", &path).send().expect(202);
        server.get(&path).expect(404);
        server.get(&format!("/v2/team/strange/manifests/{}", image.digest())).expect(200);
        let blob = server.request("DELETE", &format!("/v2/team/app/blobs/{}", sha256(&image.blobs[0]))).send();
        assert_eq!(code(&blob.expect(403)), "DENIED", "{only}");
    }
}

#[test]
fn a_referrer_of_any_size_is_listed() {
    let work = tempdir();
    let (image, _) = layout(work.path());
    let layer = json!({"mediaType": "x/y", "digest": sha256(&image.blobs[0]), "size": image.blobs[0].len()});
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.example.large",
        "config": layer,
        "layers": vec![layer.clone(); 20_001],
        "subject": image.descriptor(),
        "annotations": {"a": "b"},
    });
    let digest = list(work.path(), referrer.to_string().as_bytes(), media_type::OCI_MANIFEST, json!({}));
    let server = Embedded::serve(work.path());
    let listed = server.get(&format!("/v2/team/app/referrers/{}", image.digest())).expect(200).json();
    let expected = json!([{"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": referrer.to_string().len(),
        "artifactType": "application/vnd.example.large", "annotations": {}}]);
    assert_eq!(listed["manifests"][0]["digest"], expected[0]["digest"]);
    assert_eq!(listed["manifests"][0]["artifactType"], expected[0]["artifactType"]);
}

/// The server does not know the subject before the request, and a request must not be what records it.
#[test]
fn referrers_of_a_sha512_subject_are_found() {
    let work = tempdir();
    let (image, _) = layout(work.path());
    let config = json!({"mediaType": "x/y", "digest": sha256(&image.blobs[0]), "size": image.blobs[0].len()});
    let subject = format!("sha512:{}", "5a".repeat(64));
    let referrer = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": [],
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 2},
    });
    let digest = list(work.path(), referrer.to_string().as_bytes(), media_type::OCI_MANIFEST, json!({}));
    let server = Embedded::serve(work.path());
    let listed = |subject: &str| {
        let path = format!("/v2/team/app/referrers/{subject}");
        server.get(&path).expect(200).json()["manifests"].as_array().unwrap().clone()
    };
    let unknown = format!("sha512:{}", "5b".repeat(64));
    assert!(listed(&unknown).is_empty());
    assert_eq!(listed(&subject)[0]["digest"], digest);
    assert_eq!(gapferry::oci::Digest::known(&unknown), Ok(None));
}
