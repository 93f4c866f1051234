//! Content that a target refuses, and pushes that rely on nothing at the target.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn reupload_sends_everything_whatever_the_target_has() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (one, two) = (images::oci("team/app", "1", &["one"]), images::oci_index("team/app", "2", "index"));
    let bundle = export(&source, &[&one, &two], directory.path());
    assert_eq!(import(&bundle, target.host(), &[]).0, Some(0));
    let (uploads, before) = (target.uploads(), target.requests().len());
    assert_eq!(import(&bundle, target.host(), &["--reupload"]).0, Some(0));
    assert_eq!(target.uploads(), 2 * uploads);
    let again = target.requests().split_off(before);
    assert!(!again.iter().any(|r| r.method == "HEAD" && r.path.contains("/blobs/")), "no request is sent");
    for manifest in [one.digest(), two.digest()].into_iter().chain(two.children.iter().map(Image::digest)) {
        let put = again.iter().filter(|r| r.method == "PUT" && r.path.ends_with(&manifest)).count();
        assert_eq!(put, 1, "{manifest}: {again:?}");
    }
}

#[test]
fn reupload_is_refused_for_a_bundle_imported_in_several_runs() {
    let (code, stderr) = import(Path::new("no.tar"), "127.0.0.1:1", &["--reupload", "--state", "no-state"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--reupload needs the whole bundle"), "{stderr}");
}

#[tokio::test]
async fn a_repository_that_must_be_created_first_is_reported_as_such() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (new, old) = (images::oci("team/new", "1", &["new"]), images::oci("team/old", "1", &["old"]));
    let bundle = export(&source, &[&new, &old], directory.path());
    let host = target.host().to_owned();
    let server = Server::start(move |request, _| match request.target.starts_with("/v2/team/new/") {
        true => Answer::new(404).body(
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'team/new' does not exist"}]}"#,
        ),
        false => exchange(&host, request).unwrap(),
    });
    let server = server.await;
    let (code, stderr) = import(&bundle, &server.address, &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("'team/new' does not exist") && stderr.contains("create the repository there"), "{stderr}");
    assert_eq!(target.digest("team/old", "1"), Some(old.digest()), "the other image is pushed");
}

#[test]
fn a_refusal_of_foreign_layers_is_requested_once_and_the_setting_named() {
    let (source, directory) = (Registry::start(), tempdir());
    let image = images::with_foreign_layer("team/windows", "1");
    let bundle = export(&source, &[&image], directory.path());
    let target = Registry::with(Options { no_foreign_layers: true, ..Options::default() });
    let (code, stderr) = import(&bundle, target.host(), &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("refuses layer") && stderr.contains("validation.manifests.urls.allow"), "{stderr}");
    let puts = target.requests().iter().filter(|r| r.method == "PUT" && r.path.contains("/manifests/")).count();
    assert_eq!(puts, 1);
}

#[test]
fn a_registry_in_maintenance_is_reported_once_for_all_images() {
    let (source, directory) = (Registry::start(), tempdir());
    let target = Registry::with(Options { read_only: true, ..Options::default() });
    let images = ["team/one", "team/two", "team/three"].map(|name| images::oci(name, "1", &[name]));
    let bundle = export(&source, &images.each_ref(), directory.path());
    let (code, stderr) = import(&bundle, target.host(), &[]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("accepts no uploads") && stderr.contains("storage.maintenance.readonly"), "{stderr}");
    assert_eq!(stderr.matches("405 Method Not Allowed").count(), 1, "{stderr}");
}

/// Otherwise each run would name one repository, and each right would be requested separately.
#[test]
fn all_repositories_that_deny_access_are_named_at_once() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images = ["team/a", "team/closed", "team/z", "team/zclosed"].map(|name| images::oci(name, "1", &[name]));
    let bundle = export(&source, &images.each_ref(), directory.path());
    let proxy = Proxy::before(target.host());
    proxy.when("*", "closed/").always().fault(Fault::Status(403));
    let (code, stderr) = import(&bundle, &proxy.address, &["-j", "1"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("team/closed") && stderr.contains("team/zclosed"), "{stderr}");
}

/// A user who forgot to log in would read a line for each of a thousand images, and wait for each of their blobs.
#[test]
fn a_registry_that_denies_every_push_is_reported_once_after_one_try_per_repository() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images: Vec<Image> = (0..30).map(|nth| images::oci(&format!("team/{nth}"), "1", &[&nth.to_string()])).collect();
    let bundle = export(&source, &images.iter().collect::<Vec<_>>(), directory.path());
    for status in [401, 403] {
        let proxy = Proxy::before(target.host());
        proxy.when("POST", "/blobs/uploads/").always().fault(Fault::Status(status));
        let (code, stderr) = import(&bundle, &proxy.address, &["-j", "1"]);
        assert_eq!(code, Some(4), "{stderr}");
        assert!(stderr.contains(&format!("30 images: {}/team denies uploads", proxy.address)), "{stderr}");
        assert!(stderr.matches(&format!(": {status} ")).count() == 1 && stderr.contains("auth check"), "{stderr}");
        assert!(proxy.count("POST", "/v2/team/") <= 30, "{}", proxy.count("POST", "/v2/team/"));
    }
    assert_eq!(target.uploads(), 0);
}

/// Where rights are granted per repository, a denial says nothing about other repositories.
#[test]
fn a_repository_that_denies_pushes_fails_only_its_own_images() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let (shared, own) = ("a layer of both", ["one", "two"]);
    let [one, two] = own.map(|name| images::oci(&format!("team/{name}"), "1", &[shared, name]));
    let other = images::oci("team/one", "2", &["more"]);
    let bundle = export(&source, &[&one, &two, &other], directory.path());
    let proxy = Proxy::before(target.host());
    proxy.when("POST", "/v2/team/one/blobs/uploads/").always().fault(Fault::Status(403));
    let (code, stderr) = import(&bundle, &proxy.address, &["-j", "1"]);
    assert_eq!(code, Some(1), "{stderr}");
    for failed in ["team/one:1: ", "team/one:2: "] {
        assert!(stderr.contains(failed), "{stderr}");
    }
    assert_eq!(target.digest("team/two", "1"), Some(two.digest()));
    // One request for the first blob, or a mount and its follow-up.
    assert!(proxy.count("POST", "/v2/team/one/blobs/uploads/") <= 3, "the refusal is not repeated for every blob");
}

#[test]
fn a_full_quota_of_gapferry_serve_is_reported_once_for_all_images() {
    let (source, directory) = (Registry::start(), tempdir());
    let small = images::oci("team/small", "1", &["small"]);
    let large: Vec<Image> =
        (0..3).map(|nth| images::oci(&format!("team{nth}/large"), "1", &[&images::noise(nth, 50_000)])).collect();
    let all: Vec<&Image> = [&small].into_iter().chain(&large).collect();
    let bundle = export(&source, &all, directory.path());
    let target = Embedded::with_quota(&directory.path().join("served"), 30_000);
    let (code, stderr) = import(&bundle, target.host(), &["-j", "1"]);
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains(&format!("3 images: {} has no space left", target.host())), "{stderr}");
    assert_eq!(stderr.matches("quota of this registry").count(), 1, "{stderr}");
    assert_eq!(target.get("/v2/team/small/manifests/1").status, 200, "images that fit are pushed");
}

#[test]
fn a_refusal_of_docker_media_types_is_reported_with_the_setting() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let bundle = export(&source, &[&images::oci("team/app", "1", &["one"])], directory.path());
    let proxy = Proxy::before(target.host());
    proxy.when("PUT", "/manifests/").always().fault(Fault::Status(415));
    let (code, stderr) = import(&bundle, &proxy.address, &[]);
    assert!(code == Some(1) && stderr.contains("compat") && stderr.contains("docker2s2"), "{stderr}");
}

/// A registry without referrers support, or a gateway that rejects one, would otherwise cost every image of a bundle
/// its tag.
#[tokio::test]
async fn a_companion_refused_by_the_target_does_not_cost_an_image_its_tag() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let apps = ["one", "two"].map(|name| images::oci(&format!("team/{name}"), "1", &[name]));
    for app in &apps {
        let sbom = images::referrer(app, "application/spdx+json", app.repository.as_bytes());
        sbom.push(&source);
        // A referrer of a refused artifact has no subject.
        let (of_sbom, list) = (
            images::referrer(&sbom, "application/example", app.repository.as_bytes()),
            images::referrers_tag(app, std::slice::from_ref(&sbom)),
        );
        of_sbom.push(&source);
        images::referrers_tag(&sbom, std::slice::from_ref(&of_sbom)).push(&source);
        list.push(&source);
    }
    let bundle = export(&source, &[&apps[0], &apps[1]], directory.path());
    let host = target.host().to_owned();
    let refuses = Arc::new(AtomicBool::new(true));
    let refusing = refuses.clone();
    let server = Server::start(move |request, _| {
        let is_referrer = request.method == "PUT" && request.body.windows(9).any(|part| part == b"\"subject\"");
        if is_referrer && refusing.load(Ordering::Relaxed) {
            let text = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest schema version not supported"}]}"#;
            return Answer::new(400).body(text);
        }
        exchange(&host, request).unwrap()
    });
    let server = server.await;
    let receipt = directory.path().join("r.json");
    let (code, stderr) = import(&bundle, &server.address, &["--receipt", receipt.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    for app in &apps {
        assert_eq!(target.digest(&app.repository, "1"), Some(app.digest()), "{stderr}");
    }
    let message: Vec<&str> = stderr.lines().filter(|line| line.contains("the target refuses it")).collect();
    assert!(
        message.len() == 1 && message[0].contains("4 companions") && message[0].contains("schema version"),
        "{stderr}"
    );
    let receipt: serde_json::Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    let outcomes =
        receipt["images"].as_array().unwrap().iter().flat_map(|image| image["companions"].as_array().unwrap());
    assert!(outcomes.clone().count() == 4 && outcomes.clone().all(|one| one["outcome"] == "failed"), "{receipt}");
    let confirmed = receipt["confirmed"].as_array().unwrap();
    assert!(
        !confirmed.iter().any(|blob| *blob == sha256(b"team/one")),
        "a garbage collection would remove it: {receipt}"
    );
    // Once the target accepts them, the same command brings them.
    refuses.store(false, Ordering::Relaxed);
    assert_eq!(import(&bundle, &server.address, &[]).0, Some(0));
}
