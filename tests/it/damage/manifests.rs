//! Forged manifests: every sum in the bundle is right, and still they point to content that must not be used.

use serde_json::{Value, json};

use super::bundle::{Fixture, Form};
use super::forged::{refused, with_manifest};
use crate::support::registry::Registry;
use crate::support::tempdir;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The first image's manifest, changed by `edit`.
fn edited(fixture: &Fixture, edit: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut manifest: Value = serde_json::from_slice(&fixture.images[0].manifest).unwrap();
    edit(&mut manifest);
    serde_json::to_vec(&manifest).unwrap()
}

#[track_caller]
fn refused_for(fixture: &Fixture, target: &Registry, case: &str, manifest: &[u8]) {
    let (parts, path) = with_manifest(fixture, manifest);
    for form in [Form::Directory, Form::Tar] {
        let directory = tempdir();
        let report = refused(&parts.write(directory.path(), form), target, case);
        let named = report.problems.iter().any(|problem| problem["path"] == path && problem["code"] == "malformed");
        assert!(named, "{case}: {report:#?}");
    }
}

#[test]
fn an_unusually_formatted_manifest_is_not_damage() {
    let fixture = Fixture::new();
    let (parts, _) = with_manifest(&fixture, &edited(&fixture, |json| json["annotations"] = json!({"a": "b"})));
    let directory = tempdir();
    let report = super::bundle::verify(&parts.write(directory.path(), Form::Tar));
    assert_eq!(report.code, 0, "otherwise the other tests here would prove nothing: {report:#?}");
}

#[test]
fn malformed_digests_never_become_a_path() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let hex = fixture.images[0].digest().replace("sha256:", "");
    for digest in [
        "sha256:../../../../etc/passwd".to_owned(),
        format!("sha256:{}", "../".repeat(21) + "x"),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}/../../x"),
        format!("sha256:{hex} "),
        format!("sha256:{hex}\0"),
        format!("sha256:{}", "０".repeat(64)),
        format!("sha256:{}é", &hex[..62]),
        format!("SHA256:{hex}"),
        format!("../sha256:{hex}"),
        format!("md5:{}", &hex[..32]),
        format!("sha512:{hex}"),
        hex.clone(),
        String::new(),
    ] {
        for place in ["/layers/0/digest", "/config/digest"] {
            let manifest = edited(&fixture, |json| *json.pointer_mut(place).unwrap() = json!(digest));
            refused_for(&fixture, &target, &format!("{place} {digest:?}"), &manifest);
        }
    }
}

#[test]
fn a_manifest_listed_as_a_layer_is_refused() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let other = &fixture.images[1];
    for media_type in ["application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"] {
        let layer = json!({"mediaType": media_type, "digest": other.digest(), "size": other.manifest.len()});
        let manifest = edited(&fixture, |json| json["layers"].as_array_mut().unwrap().push(layer));
        refused_for(&fixture, &target, media_type, &manifest);
    }
}

#[test]
fn impossible_sizes_and_deep_nesting_are_refused() {
    let fixture = Fixture::new();
    let target = Registry::start();
    for size in ["-1", "18446744073709551616", "1e3", "1.5", "\"7\"", "null", "[]"] {
        let manifest = edited(&fixture, |json| json["layers"][0]["size"] = json!("SIZE"));
        let manifest = String::from_utf8(manifest).unwrap().replace("\"SIZE\"", size);
        refused_for(&fixture, &target, &format!("size {size}"), manifest.as_bytes());
    }
    let whole = String::from_utf8(fixture.images[0].manifest.clone()).unwrap();
    let open = whole.trim_end().strip_suffix('}').unwrap();
    for (case, more) in [
        ("deep in an annotation", format!(",\"annotations\":{{\"x\":{}}}", "{\"x\":".repeat(500_000))),
        ("two lists of layers", ",\"layers\":[]}".to_owned()),
        ("something after it", "}{}".to_owned()),
    ] {
        refused_for(&fixture, &target, case, format!("{open}{more}").as_bytes());
    }
}

#[test]
fn deep_nesting_in_an_unknown_field_is_harmless() {
    let fixture = Fixture::new();
    let whole = String::from_utf8(fixture.images[0].manifest.clone()).unwrap();
    let open = whole.trim_end().strip_suffix('}').unwrap();
    let deep = format!("{open},\"x\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let (parts, _) = with_manifest(&fixture, deep.as_bytes());
    let directory = tempdir();
    let report = super::bundle::verify(&parts.write(directory.path(), Form::Tar));
    assert_eq!(report.code, 0, "{report:#?}");
}

#[test]
fn a_wrong_size_is_refused_wherever_it_appears() {
    let fixture = Fixture::new();
    let target = Registry::start();
    for (place, size) in [("/layers/0/size", 1_u64 << 62), ("/layers/0/size", 0), ("/config/size", 1)] {
        let manifest = edited(&fixture, |json| *json.pointer_mut(place).unwrap() = json!(size));
        let (parts, _) = with_manifest(&fixture, &manifest);
        let directory = tempdir();
        let report = refused(&parts.write(directory.path(), Form::Tar), &target, place);
        assert!(report.problems.iter().any(|problem| problem["code"] == "wrong-size"), "{place}: {report:#?}");
    }
}

#[test]
fn an_absent_layer_counts_as_missing_even_if_it_is_declared_empty() {
    let fixture = Fixture::new();
    let target = Registry::start();
    let layer = json!({"mediaType": LAYER, "digest": crate::support::sha256(b""), "size": 0});
    let manifest = edited(&fixture, |json| json["layers"].as_array_mut().unwrap().push(layer));
    let (parts, _) = with_manifest(&fixture, &manifest);
    let directory = tempdir();
    let report = refused(&parts.write(directory.path(), Form::Directory), &target, "an empty layer");
    assert!(report.problems.iter().any(|problem| problem["code"] == "missing"), "{report:#?}");
}
