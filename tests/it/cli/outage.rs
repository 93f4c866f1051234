//! A registry that dies in the middle of a run of many images: what the operator sees, and what is left to do.

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
fn an_import_whose_registry_dies_says_it_once_and_the_same_command_finishes_it() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = push_images(&source);
    let bundle = directory.path().join("bundle.tar").display().to_string();
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    succeed(&[&["export", "-o", &bundle], &references[..]].concat());

    for (prefix, fault) in [("down", Fault::Reset(Stage::Request)), ("gateway", Fault::Status(502))] {
        let proxy = Proxy::before(target.host());
        // The inventory is taken, and some images are there.
        proxy.when("*", "").nth(IMAGES * 7).always().fault(fault.clone());
        let to = format!("{}/{prefix}", proxy.address);
        let import = ["import", &bundle, "--to", &to, "--retry-budget", "1s"];
        let output = run(&import);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{fault:?}: {said}");
        let failed: Vec<&str> = said.lines().filter(|line| line.contains("failed:")).collect();
        // A request that was under way when the first one failed may still have been answered.
        let is_outage = |line: &str| ["has not answered", "has stored nothing"].iter().any(|text| line.contains(text));
        assert!(matches!(&failed[..], [line] if line.contains("images") && is_outage(line)), "{said}");
        assert!(said.lines().count() < 20, "{said}");
        assert!(!target.tags(&format!("{prefix}/team/app0")).is_empty() || said.contains(" pushed"), "{said}");
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
fn a_registry_that_is_down_before_anything_begins_is_reported_once() {
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
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(5), "{status}: {said}");
            assert_eq!(said.lines().filter(|line| line.contains("has not answered")).count(), 1, "{status}: {said}");
            assert!(said.lines().count() < 12, "{status}: {said}");
        }
    }
}

#[test]
fn one_image_that_the_registry_stumbles_over_costs_no_other() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = push_images(&source);
    let bundle = directory.path().join("bundle.tar").display().to_string();
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    succeed(&[&["export", "-o", &bundle][..], &references.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    let proxy = Proxy::before(target.host());
    proxy.when("PUT", "/team/app7/manifests/").always().fault(Fault::Status(500));
    let output = run(&["import", &bundle, "--to", &format!("{}/base", proxy.address), "--retry-budget", "60s"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("does not answer") && said.contains(&format!("{} images pushed", IMAGES - 1)), "{said}");
    assert!(
        said.contains("cannot deliver this object") && !said.contains("--keep-going"),
        "it has no such option: {said}"
    );
}

#[test]
fn an_export_whose_registry_dies_ends_with_one_error_and_continues_later() {
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
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{said}");
        // Also where a look-up of what is attached is the first to meet the end.
        let errors = said.lines().filter(|line| line.contains("has not answered"));
        assert_eq!(errors.count(), 1, "{said}");
        assert!(said.lines().count() < 20, "{said}");
        proxy.heal();
        succeed(&export);
    }
}

#[test]
fn a_referrers_api_that_always_fails_costs_no_image() {
    let (source, directory) = (Registry::start(), tempdir());
    let images = push_images(&source);
    let proxy = Proxy::before(source.host());
    proxy.when("GET", "/referrers/").always().fault(Fault::Status(503));
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", proxy.address, image.name())).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let out = directory.path().join("out.tar").display().to_string();
    let export = [&["export", "-o", &out, "--retries", "1", "--retry-budget", "1s"], &references[..]].concat();
    let said = stderr(&succeed(&export));
    assert_eq!(said.matches("could not be looked up").count(), 1, "{said}");
    assert!(!said.contains("does not answer"), "{said}");
}

#[test]
fn an_object_at_which_the_source_always_fails_is_named_and_is_no_outage() {
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
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{part}: {said}");
        let line = if lost == 1 { "list.txt:8" } else { "list.txt:2" };
        assert!(said.contains(line) && said.contains("--keep-going"), "{part}: {said}");
        assert!(!said.contains("does not answer"), "{part}: {said}");
        // Of those that are tried again, one speaks for all.
        assert!(said.lines().filter(|line| line.starts_with("waiting")).count() <= 1, "{part}: {said}");
        let output = run(&[&export[..], &["--keep-going"]].concat());
        assert_eq!(output.status.code(), Some(1), "{part}: {}", stderr(&output));
        let lock: serde_json::Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
        let missing = lock["missing"].as_array().unwrap();
        assert_eq!(missing.len(), lost, "{part}: {lock}");
        assert!(missing.iter().all(|one| one["reason"] == "unreachable"), "{part}: {lock}");
    }
}
