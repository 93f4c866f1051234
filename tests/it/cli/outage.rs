//! A registry that fails in the middle of a run of many images: what the operator sees and has left to do.

use super::{run, stderr, succeed};
use crate::support::faulty::{Fault, Proxy, Stage};
use crate::support::images::{self, Image};
use crate::support::registry::Registry;
use crate::support::tempdir;

const IMAGES: usize = 40;

fn push_images(source: &Registry) -> Vec<Image> {
    let image = |n| images::oci(&format!("team/app{n}"), "1", &[&images::noise(n as u64, 2000)]);
    let images: Vec<Image> = (0..IMAGES).map(image).collect();
    images.iter().for_each(|image| image.push(source));
    images
}

#[test]
fn an_outage_during_an_import_is_reported_once_and_a_rerun_finishes() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = push_images(&source);
    let bundle = directory.path().join("bundle.tar").display().to_string();
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    succeed(&[&["export", "-o", &bundle], &references[..]].concat());

    for (prefix, fault) in [("down", Fault::Reset(Stage::Request)), ("gateway", Fault::Status(502))] {
        let proxy = Proxy::before(target.host());
        // The fault starts after the target was examined and some images arrived.
        proxy.when("*", "").nth(IMAGES * 7).always().fault(fault.clone());
        let to = format!("{}/{prefix}", proxy.address);
        let import = ["import", &bundle, "--to", &to, "--retry-budget", "1s"];
        let output = run(&import);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{fault:?}: {message}");
        let failed: Vec<&str> = message.lines().filter(|line| line.contains("failed:")).collect();
        // A request in flight when the first one failed may still have been answered.
        let is_outage = |line: &str| ["has not answered", "has stored nothing"].iter().any(|text| line.contains(text));
        assert!(matches!(&failed[..], [line] if line.contains("images") && is_outage(line)), "{message}");
        assert!(message.lines().count() < 20, "{message}");
        assert!(!target.tags(&format!("{prefix}/team/app0")).is_empty() || message.contains(" pushed"), "{message}");
        proxy.heal();
        succeed(&import);
        assert!(
            images
                .iter()
                .all(|image| { target.digest(&format!("{prefix}/{}", image.repository), "1") == Some(image.digest()) })
        );
    }
}

#[test]
fn a_registry_that_is_down_from_the_start_is_reported_once() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = push_images(&source);
    let references =
        |host: &str| -> Vec<String> { images.iter().map(|image| format!("{host}/{}", image.name())).collect() };
    let bundle = directory.path().join("bundle.tar").display().to_string();
    let good = references(source.host());
    succeed(&[&["export", "-o", &bundle][..], &good.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    for status in [502, 500] {
        let proxy = Proxy::before(target.host());
        proxy.when("*", "").always().fault(Fault::Status(status));
        let (out, behind) = (directory.path().join("out.tar").display().to_string(), references(&proxy.address));
        let to = format!("{}/down", proxy.address);
        let export = [&["export", "-o", &out][..], &behind.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        for command in [&["import", &bundle, "--to", &to][..], &export] {
            let output = run(&[command, &["--retry-budget", "1s"]].concat());
            let message = stderr(&output);
            assert_eq!(output.status.code(), Some(5), "{status}: {message}");
            assert_eq!(
                message.lines().filter(|line| line.contains("has not answered")).count(),
                1,
                "{status}: {message}"
            );
            assert!(message.lines().count() < 12, "{status}: {message}");
        }
    }
}

#[test]
fn a_registry_error_for_one_image_fails_no_other_image() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = push_images(&source);
    let bundle = directory.path().join("bundle.tar").display().to_string();
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    succeed(&[&["export", "-o", &bundle][..], &references.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    let proxy = Proxy::before(target.host());
    proxy.when("PUT", "/team/app7/manifests/").always().fault(Fault::Status(500));
    let output = run(&["import", &bundle, "--to", &format!("{}/base", proxy.address), "--retry-budget", "60s"]);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        !message.contains("does not answer") && message.contains(&format!("{} images pushed", IMAGES - 1)),
        "{message}"
    );
    assert!(
        message.contains("cannot deliver this object") && !message.contains("--keep-going"),
        "the command has no such option: {message}"
    );
}

#[test]
fn an_outage_during_an_export_is_one_error_and_a_rerun_resumes() {
    let (source, directory) = (Registry::start(), tempdir());
    let images = push_images(&source);
    let proxy = Proxy::before(source.host());
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", proxy.address, image.name())).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    for nth in [20, IMAGES * 4] {
        let out = directory.path().join(format!("out{nth}.tar")).display().to_string();
        proxy.when("*", "").nth(nth).always().fault(Fault::Reset(Stage::Request));
        let export = [&["export", "-o", &out, "--retry-budget", "1s"], &references[..]].concat();
        let output = run(&export);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{message}");
        // Even if a referrers lookup is the first to fail.
        let errors = message.lines().filter(|line| line.contains("has not answered"));
        assert_eq!(errors.count(), 1, "{message}");
        assert!(message.lines().count() < 20, "{message}");
        proxy.heal();
        succeed(&export);
    }
}

#[test]
fn a_failing_referrers_api_loses_no_image() {
    let (source, directory) = (Registry::start(), tempdir());
    let images = push_images(&source);
    let proxy = Proxy::before(source.host());
    proxy.when("GET", "/referrers/").always().fault(Fault::Status(503));
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", proxy.address, image.name())).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let out = directory.path().join("out.tar").display().to_string();
    let export = [&["export", "-o", &out, "--retries", "1", "--retry-budget", "1s"], &references[..]].concat();
    let message = stderr(&succeed(&export));
    assert_eq!(message.matches("could not be looked up").count(), 1, "{message}");
    assert!(!message.contains("does not answer"), "{message}");
}

#[test]
fn an_object_the_source_cannot_serve_is_named_and_not_taken_for_an_outage() {
    let (source, directory) = (Registry::start(), tempdir());
    let images = push_images(&source);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let layer = format!("/blobs/{}", images[7].blob_digests().pop().unwrap());
    // A layer, a manifest, and the manifests of eleven images: app1, app10 and so on.
    let parts = [(&*layer, 1), ("/team/app7/manifests/", 1), ("/team/app1", 11)];
    for (n, (part, lost)) in parts.into_iter().enumerate() {
        let proxy = Proxy::before(source.host());
        proxy.when("GET", part).always().fault(Fault::Status(500));
        let lines = images.iter().map(|image| format!("{}/{}\n", proxy.address, image.name()));
        std::fs::write(path("list.txt"), lines.collect::<String>()).unwrap();
        let (list, out, lock) = (path("list.txt"), path(&format!("out{n}.tar")), path("lock"));
        let export = ["export", "-f", &list, "-o", &out, "--lock", &lock, "--retries", "1"];
        let output = run(&export);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{part}: {message}");
        let line = if lost == 1 { "list.txt:8" } else { "list.txt:2" };
        assert!(message.contains(line) && message.contains("--keep-going"), "{part}: {message}");
        assert!(!message.contains("does not answer"), "{part}: {message}");
        // One message speaks for all retried requests.
        assert!(message.lines().filter(|line| line.starts_with("waiting")).count() <= 1, "{part}: {message}");
        let output = run(&[&export[..], &["--keep-going"]].concat());
        assert_eq!(output.status.code(), Some(1), "{part}: {}", stderr(&output));
        let lock: serde_json::Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
        let missing = lock["missing"].as_array().unwrap();
        assert_eq!(missing.len(), lost, "{part}: {lock}");
        assert!(missing.iter().all(|one| one["reason"] == "unreachable"), "{part}: {lock}");
    }
}
