//! Selecting some platforms of an index: which manifest takes the tag, and what the command reports about the rest.

use serde_json::Value;

use super::{Source, json, stderr, succeed};
use crate::support::{gapferry, images};

/// A signed index with a referrer, and with an attestation of its first platform inside.
fn signed() -> (images::Image, Source) {
    let app = images::oci_index("team/app", "1.0", "signed");
    let sbom = images::referrer(&app, "application/spdx+json", b"sbom");
    let list = images::referrers_tag(&app, std::slice::from_ref(&sbom));
    let source = Source::of(&[app.clone(), images::cosign_signature(&app), list]);
    (app, source)
}

const LEFT: &str = "1 signature and 1 SBOM refer to the whole index and are left behind";

#[test]
fn referrers_of_a_trimmed_index_that_stay_behind_are_counted_everywhere() {
    let (_, source) = signed();
    let reference = format!("{}/team/app:1.0", source.host());
    let out = source.path("b.tar").display().to_string();
    let one = ["--platform", "linux/amd64"];
    for how in [
        &["lock", &reference, "-q"][..],
        &["export", &reference, "-q", "--dry-run", "-o", &out],
        &["export", &reference, "-q", "--index", "trim", "-o", &out],
        &["export", &reference, "-q", "--index", "single", "-o", &out],
    ] {
        let message = stderr(&succeed(&[how, &one].concat()));
        assert!(
            message.contains(LEFT) && message.contains("use --index sparse or all platforms to keep them"),
            "{how:?}: {message}"
        );
    }
    for how in [&["--json", "--dry-run"][..], &["--json"]] {
        let output = succeed(&[&["export", &reference, "-o", &out], how, &one].concat());
        let left = &json(&output)["leftBehind"][0];
        assert_eq!((&left["reference"], &left["attached"]["signature"]), (&Value::from(&*reference), &Value::from(1)));
        assert_eq!(left["insideIndex"], 1, "BuildKit's attestation of the platform, which trim would keep");
    }
    let all = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    for how in [&["--index", "sparse"][..], &["--no-referrers"]] {
        let message = stderr(&succeed(&[&["lock", &reference, "-q"], how, &one].concat()));
        assert_eq!(message, "", "{how:?}");
    }
    assert!(!stderr(&succeed(&[&["lock", &reference, "-q"], &all[..]].concat())).contains("signature of"));
    assert_eq!(stderr(&succeed(&["lock", &reference, "-q"])), "");
}

#[test]
fn a_single_platform_keeps_its_upstream_digest() {
    let (app, source) = signed();
    let reference = format!("{}/team/app:1.0", source.host());
    let lock = |more: &[&str]| json(&succeed(&[&["lock", &*reference], more].concat()))["images"][0].clone();
    let one = lock(&["--platform", "linux/arm64"]);
    assert_eq!((&one["digest"], &one["selection"]["index"]), (&app.children[1].digest().into(), &"single".into()));
    // All platforms are selected, so nothing changes.
    let both = lock(&["--platform", "linux/arm64", "--platform", "linux/amd64"]);
    assert_eq!(both["digest"], app.digest());
    // A manifest named by digest has only this platform, so nothing is removed.
    let alone = format!("{}/team/app@{}", source.host(), app.children[0].digest());
    assert!(json(&succeed(&["lock", &alone, "--platform", "linux/amd64"]))["images"][0]["selection"].is_null());
}

#[test]
fn an_entry_keeps_its_earlier_index_mode_and_that_is_reported_once() {
    let (app, source) = signed();
    let reference = format!("{}/team/app:1.0", source.host());
    let (bundle, lock) = (source.path("b.tar").display().to_string(), source.path("l.lock").display().to_string());
    let one = ["--platform", "linux/amd64"];
    succeed(&[&["export", &reference, "-o", &bundle, "--index", "trim"], &one[..]].concat());
    succeed(&[&["lock", &reference, "-o", &lock, "--index", "trim"], &one[..]].concat());
    for how in [&["export", &reference, "-o", &bundle][..], &["lock", &reference, "-o", &lock]] {
        let message = stderr(&succeed(&[how, &one].concat()));
        assert_eq!(message.matches("keeps the trimmed index of the earlier lock or bundle").count(), 1, "{message}");
        assert!(how[0] == "lock" || message.contains("unchanged"), "{message}");
    }
    let images = |bundle: &str| json(&succeed(&["list", bundle, "--json"]))["images"].clone();
    assert_eq!(images(&bundle)[0]["selection"]["index"], "trim");
    let message = stderr(&succeed(&[&["export", &reference, "-o", &bundle, "--index", "single"], &one[..]].concat()));
    assert!(!message.contains("keeps the trimmed index"), "{message}");
    assert_eq!(images(&bundle)[0]["digest"], app.children[0].digest());
    // An increment keeps the mode too, wherever it is written.
    let next = source.path("next.tar").display().to_string();
    let trimmed = source.path("trimmed.tar").display().to_string();
    succeed(&[&["export", &reference, "-o", &trimmed, "--index", "trim"], &one[..]].concat());
    let message = stderr(&succeed(&[&["export", &reference, "-o", &next, "--since", &trimmed], &one[..]].concat()));
    assert!(message.contains("keeps the trimmed index of the earlier lock or bundle"), "{message}");
    // Another platform is another entry.
    let message = stderr(&succeed(&["lock", &reference, "-o", &lock, "--platform", "linux/arm64"]));
    assert!(!message.contains("keeps the trimmed index"), "{message}");
    gapferry().args(["verify", &bundle]).assert().success();
}

/// Any other mode would change the tag's digest.
#[test]
fn a_sparse_entry_stays_sparse() {
    let (app, source) = signed();
    let reference = format!("{}/team/app:1.0", source.host());
    let lock = source.path("l.lock").display().to_string();
    let read = || serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(&lock).unwrap()).unwrap();
    let how = ["lock", &reference, "-o", &lock, "--platform", "linux/amd64"];
    succeed(&[&how[..], &["--index", "sparse"]].concat());
    for more in [&[][..], &["--immutable-tags", "."]] {
        let message = stderr(&succeed(&[&how[..], more].concat()));
        assert_eq!(message.matches("keeps the sparse index of the earlier lock or bundle").count(), 1, "{message}");
        let image = &read()["images"][0];
        assert_eq!((&image["digest"], &image["selection"]["index"]), (&app.digest().into(), &"sparse".into()));
    }
}
