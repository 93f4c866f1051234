//! `migrate --json`: the outcome of each image, wherever it was written.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support;
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::storage::{data, layer};
use crate::support::{gapferry, tempdir};

const WAYS: [&str; 3] = ["--to-dir", "--to-bundle", "--to-storage"];

/// The JSON report and the messages.
#[track_caller]
fn report(storage: &Path, way: &str, to: &Path, code: i32) -> (Value, String) {
    let mut command = gapferry();
    let ran = Ran::of(command.arg("migrate").arg(storage).arg(way).arg(to).arg("--json")).ended(code);
    (serde_json::from_str(&ran.stdout).unwrap(), ran.stderr)
}

fn image<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut named = report["images"].as_array().unwrap().iter().filter(|image| image["name"] == name);
    let image = named.next().unwrap_or_else(|| panic!("{name} is not in {report:#}"));
    assert!(named.next().is_none(), "{name} is twice in {report:#}");
    image
}

/// Names and states.
fn states(report: &Value) -> Vec<(&str, &str)> {
    let images = report["images"].as_array().unwrap().iter();
    images.map(|image| (image["name"].as_str().unwrap(), image["state"].as_str().unwrap())).collect()
}

fn sums(report: &Value) -> [u64; 3] {
    ["written", "present", "failedCount"].map(|state| report[state].as_u64().unwrap())
}

#[test]
fn every_destination_reports_each_image_as_written_present_or_failed_with_reasons() {
    let registry = Registry::start();
    let names = ["cut", "lost", "well", "whole"];
    let corpus: Vec<Image> = names.iter().map(|name| images::oci(name, "1", &["base", name])).collect();
    corpus.iter().for_each(|image| image.push(&registry));
    let root = registry.storage();
    fs::write(data(&root, &layer(&corpus[0])), "x").unwrap();
    let config = support::sha256(&corpus[0].blobs[0]);
    fs::remove_file(data(&root, &config)).unwrap();
    let link = root.join("docker/registry/v2/repositories/lost/_manifests/tags/1/current/link");
    fs::write(&link, "").unwrap();
    let directory = tempdir();
    for way in WAYS {
        let to = directory.path().join(way);
        let (first, message) = report(&root, way, &to, 1);
        let expected = [("well:1", "written"), ("whole:1", "written"), ("cut:1", "failed"), ("lost:1", "failed")];
        assert_eq!(states(&first), expected, "{way}");
        assert_eq!(sums(&first), [2, 0, 2], "{way}");
        assert!(
            message.contains("failed: ") && message.contains("2 failed"),
            "the messages are the same as without --json: {message}"
        );
        let well = image(&first, "well:1");
        assert_eq!((&well["digest"], &well["tag"]), (&json!(corpus[2].digest()), &json!("1")));
        let blobs: usize = corpus[2].blobs.iter().map(Vec::len).sum();
        assert_eq!(well["size"], blobs + corpus[2].manifest.len());
        let reasons: Vec<&str> = image(&first, "cut:1")["reasons"]
            .as_array()
            .unwrap()
            .iter()
            .map(|reason| reason.as_str().unwrap())
            .collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(reasons.iter().any(|reason| reason.contains("wrong size") && reason.contains(&layer(&corpus[0])[7..])));
        assert!(reasons.iter().any(|reason| reason.contains(": missing: ") && reason.contains(&config[7..])));
        assert!(image(&first, "lost:1")["reasons"][0].as_str().unwrap().contains("the link is empty"));
        assert_eq!(first["problems"].as_array().unwrap().len(), 3);
        assert_eq!(first["problems"][0]["images"].as_array().unwrap().len(), 1);
        assert_eq!(first["counts"], json!({"bad-link": 1, "missing": 1, "wrong-size": 1}));
        assert_eq!((&first["storage"], &first["output"]), (&json!(root), &json!(to)));
        assert!(first["seconds"].as_f64().unwrap() > 0.0);
        let (again, _) = report(&root, way, &to, 1);
        assert_eq!(sums(&again), [0, 2, 2], "{way}: present images are not written again");
        assert_eq!(image(&again, "well:1")["state"], "present");
    }
}

#[test]
fn the_report_gives_linked_and_copied_bytes_and_the_bundles_identity() {
    let registry = Registry::start();
    let image = images::oci_index("a/b", "1", "index");
    image.push(&registry);
    let directory = tempdir();
    let blobs = image.blob_digests().into_iter().collect::<std::collections::HashSet<String>>().len();
    for way in WAYS {
        let to = directory.path().join(way);
        let (linked, _) = report(&registry.storage(), way, &to, 0);
        assert_eq!((&linked["blobsLinked"], &linked["bytesCopied"]), (&json!(blobs), &json!(0)), "{way}");
        assert_eq!((&linked["problems"], &linked["counts"]), (&json!([]), &json!({})));
        assert_eq!(linked["identity"].is_string(), way == "--to-bundle", "only bundles have an identity");
    }
    let to = directory.path().join("images.tar");
    let (written, _) = report(&registry.storage(), "--to-bundle", &to, 0);
    let listed = gapferry().arg("list").arg(&to).arg("--json").output().unwrap().stdout;
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(written["identity"], listed["identity"]);
    assert_eq!((&written["unchanged"], &written["bytes"]), (&json!(false), &json!(fs::metadata(&to).unwrap().len())));
    let (again, _) = report(&registry.storage(), "--to-bundle", &to, 0);
    assert_eq!((&again["unchanged"], &again["identity"]), (&json!(true), &listed["identity"]));
}

#[test]
fn an_obstacle_to_writing_an_image_is_its_reason() {
    let registry = Registry::start();
    let corpus = ["a", "b"].map(|name| images::oci(name, "1", &[name]));
    corpus.iter().for_each(|image| image.push(&registry));
    let directory = tempdir();
    let [dir, storage] = ["dir", "storage"].map(|name| directory.path().join(name));
    fs::create_dir_all(dir.join("a:1")).unwrap();
    fs::write(dir.join("a:1/letter.txt"), "dear reader").unwrap();
    report(&registry.storage(), "--to-storage", &storage, 0);
    images::oci("a", "1", &["another"]).push(&registry);
    for (way, to, sum) in [("--to-dir", &dir, [1, 0, 1]), ("--to-storage", &storage, [0, 1, 1])] {
        let (parsed, message) = report(&registry.storage(), way, to, 1);
        assert_eq!(sums(&parsed), sum, "{way}");
        let reason = image(&parsed, "a:1")["reasons"][0].as_str().unwrap();
        assert!(reason.contains("image a:1: ") && message.contains(reason), "{reason}\n{message}");
        assert_eq!(parsed["problems"], json!([]), "nothing is wrong with the storage");
    }
}

#[test]
fn without_any_intact_image_each_is_reported_failed_and_strict_says_why() {
    let registry = Registry::start();
    let image = images::oci("a", "1", &["a"]);
    image.push(&registry);
    fs::write(data(&registry.storage(), &layer(&image)), "x").unwrap();
    let directory = tempdir();
    for way in WAYS {
        let to = directory.path().join(way);
        let (parsed, _) = report(&registry.storage(), way, &to, 1);
        assert_eq!(states(&parsed), [("a:1", "failed")], "{way}");
        assert!(parsed["identity"].is_null());
        let mut command = gapferry();
        let strict = command.arg("migrate").arg(registry.storage()).arg(way).arg(&to).args(["--json", "--strict"]);
        let refused: Value = serde_json::from_str(&Ran::of(strict).ended(3).stdout).unwrap();
        assert_eq!((&refused["ok"], &refused["error"]["code"]), (&json!(false), &json!("damaged")), "{way}");
        assert_eq!((&refused["counts"], &refused["images"]), (&json!({"wrong-size": 1}), &Value::Null), "{way}");
    }
}
