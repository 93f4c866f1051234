//! The files other programs load a bundle by: `index.json` and `manifest.json`.

use std::path::Path;

use serde_json::{Value, json};

use super::{Source, ends_with, json, read, stderr, succeed};
use crate::support::embedded::Embedded;
use crate::support::images::{self, Image};
use crate::support::sha256;

const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

fn parsed(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

/// The descriptors of `index.json`, as digest, name and subject.
fn listed(bundle: &Path) -> Vec<(String, Option<String>, Option<String>)> {
    let index = parsed(&bundle.join("index.json"));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let one = |descriptor: &Value| {
        let annotations = &descriptor["annotations"];
        assert_eq!(annotations[NAMES[0]], annotations[NAMES[1]]);
        let subject = text(&annotations["io.containerd.manifest.subject"]);
        (text(&descriptor["digest"]).unwrap(), text(&annotations[NAMES[0]]), subject)
    };
    index["manifests"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn index_json_lists_images_first_artifacts_last_and_companions_unnamed() {
    let (chart, app) = (images::artifact("a/chart", "1", b"chart"), images::oci_index("b/app", "1", "signed"));
    let (signature, sbom) = (images::cosign_signature(&app), images::referrer(&app, "application/spdx+json", b"sbom"));
    let list = images::referrers_tag(&app, std::slice::from_ref(&sbom));
    let last = images::oci("c/last", "1", &["last"]);
    let source = Source::of(&[chart.clone(), app.clone(), signature.clone(), list, last.clone()]);
    let name = |image: &Image| format!("{}/{}", source.host(), image.name());
    let out = source.path("b");
    let arguments = [&name(&chart), &name(&app), &name(&last), "-o", out.to_str().unwrap()];
    let message = stderr(&succeed(&[&["export"], &arguments[..]].concat()));
    assert!(!message.contains("docker load"), "every image has the platform that it loads: {message}");
    succeed(&["verify", out.to_str().unwrap()]);
    let named = |image: &Image| (image.digest(), Some(name(image)), None);
    let attached = |companion: &Image| (companion.digest(), None, Some(app.digest()));
    assert_eq!(listed(&out), [named(&app), named(&last), attached(&signature), attached(&sbom), named(&chart)]);
    // A registry serving the bundle knows the tags of companions from the lock.
    let server = Embedded::serve(&out);
    let of_tag = format!("/v2/b/app/manifests/{}", signature.tag.as_deref().unwrap());
    assert_eq!(sha256(&server.get(&of_tag).expect(200).body), signature.digest());
    assert_eq!(server.get("/v2/b/app/tags/list").json()["tags"].as_array().map(Vec::len), Some(2));
    drop(server);
    // A push turns the bundle into a plain layout, where companions have their tags as names.
    for _ in 0..2 {
        let server = Embedded::writable(&out);
        images::oci("d/pushed", "1", &["pushed"]).push(&server);
        assert_eq!(sha256(&server.get(&of_tag).expect(200).body), signature.digest());
        assert!(!out.join("bundle.json").exists());
    }
}

#[test]
fn docker_load_gets_one_platform_of_every_image() {
    let (app, arm) = (images::oci_index("b/app", "1", "both"), images::oci_for("arm64", "c/arm", "1", &["arm"]));
    let chart = images::artifact("a/chart", "1", b"chart");
    let source = Source::of(&[app.clone(), arm.clone(), chart.clone()]);
    let config = |image: &Image| {
        let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
        format!("blobs/sha256/{}", manifest["config"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let loads = |out: &Path| -> Vec<(Value, String)> {
        let entries = parsed(&out.join("manifest.json"));
        let entries = entries.as_array().unwrap().iter();
        entries.map(|entry| (entry["RepoTags"].clone(), entry["Config"].as_str().unwrap().to_owned())).collect()
    };
    let tags = |image: &Image| json!([format!("{}/{}", source.host(), image.name())]);
    let (one, other) = (source.path("one"), source.path("other"));
    let lock = source.path("l.lock").display().to_string();
    let export = |out: &Path, more: &[&str]| {
        let all = source.references.iter().map(String::as_str);
        let arguments = ["export", "-o", out.to_str().unwrap()].into_iter().chain(more.iter().copied()).chain(all);
        succeed(&arguments.collect::<Vec<_>>())
    };
    export(&one, &[]);
    assert_eq!(loads(&one), [(tags(&app), config(&app.children[0])), (tags(&arm), config(&arm))]);
    let message = stderr(&export(&other, &["--load-platform", "linux/arm64", "--lock", &lock]));
    assert!(!message.contains("docker load"), "{message}");
    assert_eq!(loads(&other), [(tags(&app), config(&app.children[1])), (tags(&arm), config(&arm))]);
    for out in [&one, &other] {
        succeed(&["verify", out.to_str().unwrap()]);
    }
    // A user who has the bundle but not its lock can write the same bytes again, too.
    let from_bundle = source.path("from-bundle");
    succeed(&["export", "--locked", other.to_str().unwrap(), "-o", from_bundle.to_str().unwrap()]);
    assert_eq!(read(&from_bundle.join("bundle.json")), read(&other.join("bundle.json")));
    let refused = ends_with(2, &["export", "--locked", source.path("").to_str().unwrap(), "-o", "x"]);
    assert!(stderr(&refused).contains("bundle"), "{refused:?}");
    // The lock records the platform, so it gives the same bytes again.
    let again = source.path("again");
    succeed(&["export", "--locked", &lock, "-o", again.to_str().unwrap()]);
    assert_eq!(read(&again.join("bundle.json")), read(&other.join("bundle.json")));
    assert_eq!(parsed(Path::new(&lock))["loadPlatform"], json!({"os": "linux", "architecture": "arm64"}));
    let message = stderr(&export(&source.path("none"), &["--load-platform", "linux/s390x"]));
    assert!(message.contains("1 image for several platforms without linux/s390x"), "{message}");
    let lock = json(&succeed(&["lock", &source.references[0]]));
    assert!(lock["loadPlatform"].is_null());
}
