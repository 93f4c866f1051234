//! `list` and `inspect`: the contents of a bundle, and one image, local or at a registry, byte for byte.

use serde_json::json;

use super::{Source, ends_with, json, stderr, stdout, succeed};
use crate::support::{images, sha256, sha256_file};

#[test]
fn list_shows_the_bundles_identity_and_every_images_platforms_and_digest() {
    let pushed = [images::docker("library/old", "1", &["x"]), images::oci_index("team/multi", "2", "y")];
    let source = Source::of(&pushed);
    for name in ["b", "b.tar"] {
        let bundle = source.bundle(name);
        let text = stdout(&succeed(&["list", &bundle]));
        for (reference, image) in source.references.iter().zip(&pushed) {
            let row = text.lines().find(|line| line.starts_with(reference.as_str())).expect("a row");
            assert!(row.contains(&image.digest()["sha256:".len()..][..12]), "{row}");
        }
        assert!(text.contains("linux/amd64,linux/arm64"), "{text}");
        let value = json(&succeed(&["list", &bundle, "--json"]));
        let digests: Vec<&str> =
            value["images"].as_array().unwrap().iter().filter_map(|image| image["digest"].as_str()).collect();
        assert_eq!(digests, [pushed[0].digest(), pushed[1].digest()]);
        if name == "b" {
            assert_eq!(value["identity"], json!(sha256_file(&source.path("b").join("bundle.json"))));
        }
        assert!(text.contains(value["identity"].as_str().unwrap()), "{text}");
    }
}

#[test]
fn inspect_raw_prints_the_registrys_exact_bytes_for_every_kind_from_both_forms() {
    let pushed = [
        images::docker("library/docker", "1", &["x"]),
        images::oci("library/oci", "1", &["y"]),
        images::oci_index("library/index", "1", "z"),
        images::docker_list("library/list", "1", "u"),
        images::artifact("library/artifact", "1", b"v"),
    ];
    let source = Source::of(&pushed);
    let bundles = ["b", "b.tar"].map(|name| source.bundle(name));
    for (reference, image) in source.references.iter().zip(&pushed) {
        let places = [reference.clone(), format!("{}#{reference}", bundles[0]), format!("{}#{reference}", bundles[1])];
        for place in &places {
            assert_eq!(succeed(&["inspect", place, "--raw"]).stdout, image.manifest, "{place}");
            let value = json(&succeed(&["inspect", place, "--json"]));
            assert_eq!((&value["digest"], &value["mediaType"]), (&json!(image.digest()), &json!(image.media_type)));
            let text = stdout(&succeed(&["inspect", place]));
            assert!(text.contains(&image.digest()) && text.contains(&image.media_type), "{text}");
        }
    }
}

#[test]
fn inspect_config_prints_the_configs_bytes_and_platform_selects_one_image() {
    let index = images::oci_index("team/multi", "1", "y");
    let source = Source::of(&[index.clone(), images::oci("team/app", "1", &["x"])]);
    let bundle = source.bundle("b.tar");
    let reference = &source.references[0];
    for place in [reference.clone(), format!("{bundle}#{reference}")] {
        for (child, platform) in index.children.iter().zip(["linux/amd64", "linux/arm64"]) {
            let at = ["inspect", &place, "--platform", platform];
            assert_eq!(succeed(&[&at[..], &["--raw"]].concat()).stdout, child.manifest);
            assert_eq!(succeed(&[&at[..], &["--config"]].concat()).stdout, child.blobs[0]);
        }
        // An index has no config, and for a missing platform the message lists those that exist.
        let output = ends_with(2, &["inspect", &place, "--config"]);
        assert!(stderr(&output).contains("--platform"), "{}", stderr(&output));
        let output = ends_with(2, &["inspect", &place, "--platform", "linux/s390x"]);
        assert!(stderr(&output).contains("linux/amd64, linux/arm64"), "{}", stderr(&output));
    }
}

/// A typo in a file name would otherwise be looked up on Docker Hub, which takes minutes without internet.
#[test]
fn inspect_of_a_missing_file_is_an_error_about_the_file() {
    for name in ["images.tar", "images.tar.zst", "./images", "/nowhere/images"] {
        let message = stderr(&ends_with(2, &["inspect", name]));
        assert!(message.contains(&format!("opening {name}: No such file")), "{message}");
    }
}

#[test]
fn inspect_by_digest_shows_an_untagged_child() {
    let index = images::oci_index("team/multi", "1", "y");
    let source = Source::of(std::slice::from_ref(&index));
    let child = &index.children[0];
    let reference = format!("{}/team/multi@{}", source.host(), child.digest());
    assert_eq!(sha256(&succeed(&["inspect", &reference, "--raw"]).stdout), child.digest());
}

#[test]
fn inspect_shows_one_image_even_if_the_file_name_contains_a_hash_sign() {
    let source = Source::of(&[images::oci("a", "1", &["x"]), images::oci("b", "1", &["y"])]);
    let bundle = source.bundle("b.tar");
    let [one, other] = [0, 1].map(|at| format!("{bundle}#{}", source.references[at]));
    let output = ends_with(2, &["inspect", &one, &other]);
    assert!(stderr(&output).contains("inspect one at a time"), "{}", stderr(&output));
    let with_hash = bundle.replace("b.tar", "b#1.tar");
    std::fs::rename(&bundle, &with_hash).unwrap();
    succeed(&["inspect", &format!("{with_hash}#{}", source.references[0])]);
}

#[test]
fn asking_for_a_missing_image_lists_the_images_of_the_bundle() {
    let source = Source::of(&[images::oci("a", "1", &["x"]), images::oci("b", "1", &["y"])]);
    let bundle = source.bundle("b.tar");
    for place in [bundle.clone(), format!("{bundle}#nginx:1")] {
        let output = ends_with(2, &["inspect", &place]);
        assert!(source.references.iter().all(|reference| stderr(&output).contains(reference)), "{}", stderr(&output));
    }
}
