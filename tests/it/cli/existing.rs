//! Existing tags at the target, the records of an import, and how much is verified before it starts.

use serde_json::{Value, json};

use super::{Source, ends_with, everything, json, names, read, run, stderr, stdout, succeed};
use crate::support::registry::Registry;
use crate::support::{images, sha256};

#[test]
fn on_existing_overwrites_skips_or_fails_a_tag_of_another_image() {
    let new = images::oci("team/app", "1", &["new"]);
    let other = images::oci("team/other", "1", &["other"]);
    let old = images::oci("team/app", "1", &["old"]);
    let source = Source::of(&[new.clone(), other.clone()]);
    let bundle = source.bundle("b.tar");
    for (option, code, expected) in
        [("skip", 0, old.digest()), ("fail", 1, old.digest()), ("overwrite", 0, new.digest())]
    {
        let target = Registry::start();
        old.push(&target);
        let arguments = ["import", &bundle, "--to", target.host(), "--on-existing", option];
        let plan = succeed(&[&arguments[..], &["--dry-run"]].concat());
        let row = stdout(&plan).lines().find(|line| line.contains("team/app:1")).unwrap_or_default().to_owned();
        assert!(row.contains(option), "the plan shows it: {}", stdout(&plan));
        let is_counted = stdout(&plan).contains("; 1 tag to replace\n");
        assert_eq!(is_counted, option == "overwrite", "{}", stdout(&plan));
        let output = ends_with(code, &arguments);
        assert_eq!(target.digest("team/app", "1").as_deref(), Some(expected.as_str()), "{option}: {}", stderr(&output));
        assert_eq!(target.digest("team/other", "1"), Some(other.digest()), "the other images arrive: {option}");
    }
    // By default the tag is overwritten, and the message names its old digest.
    let target = Registry::start();
    old.push(&target);
    let output = succeed(&["import", &bundle, "--to", target.host(), "--json"]);
    assert_eq!(target.digest("team/app", "1"), Some(new.digest()));
    assert!(stderr(&output).contains(&old.digest()), "{}", stderr(&output));
    assert!(stderr(&output).contains("2 images pushed, 1 tag replaced; "), "{}", stderr(&output));
    let found = |name: &str, receipt: &Value| {
        let images = receipt["images"].as_array().unwrap().clone();
        images.into_iter().find(|image| image["reference"].as_str().unwrap().contains(name)).unwrap()["found"].clone()
    };
    let receipt = json(&output);
    assert_eq!((found("team/app", &receipt), found("team/other", &receipt)), (json!(old.digest()), json!(null)));
    let again = succeed(&["import", &bundle, "--to", target.host(), "--json"]);
    assert!(!stderr(&again).contains("replaced") && found("team/app", &json(&again)).is_null(), "{}", stderr(&again));
}

#[test]
fn the_receipt_gives_each_images_outcome_and_current_digest() {
    let good = images::oci("good", "1", &["x"]);
    let index = images::oci_index("sparse", "1", "multi");
    let source = Source::of(&[good.clone(), index]);
    let (out, receipt, digests) = (source.path("b.tar"), source.path("receipt.json"), source.path("digests"));
    let bundle = out.to_str().unwrap();
    let sparse = ["--index", "sparse", "--platform", "linux/amd64"];
    let references: Vec<&str> = source.references.iter().map(String::as_str).collect();
    succeed(&[&["export", "-o", bundle], &references[..], &sparse].concat());
    let identity = json(&succeed(&["list", bundle, "--json"]))["identity"].clone();
    let target = Registry::start();
    let to = format!("{}/mirror", target.host());
    let arguments = ["import", bundle, "--to", &to, "--receipt", receipt.to_str().unwrap(), "--json"];
    for outcome in ["pushed", "present"] {
        let output = ends_with(1, &[&arguments[..], &["--digestfile", digests.to_str().unwrap()]].concat());
        let value: Value = serde_json::from_str(&read(&receipt)).unwrap();
        let mut printed = json(&output);
        assert_eq!(printed.as_object_mut().unwrap().remove("ok"), Some(json!(false)), "one image failed");
        let failures = printed.as_object_mut().unwrap().remove("failures").unwrap_or_default();
        assert!(!failures[0]["error"]["code"].as_str().unwrap_or_default().is_empty(), "{failures:#}");
        assert_eq!(value, printed, "the same on standard output");
        assert_eq!((&value["bundle"], &value["target"]), (&identity, &json!(to)));
        let images = value["images"].as_array().unwrap();
        let good_one = images.iter().find(|image| image["digest"] == json!(good.digest())).unwrap();
        assert_eq!(good_one["reference"], json!(format!("{to}/good:1")));
        assert_eq!(good_one["source"], json!(source.references[0]));
        assert_eq!(good_one["outcome"], outcome);
        let failed = images.iter().find(|image| image["outcome"] == "failed").expect("the sparse one fails");
        assert!(!failed["error"].as_str().unwrap().is_empty());
        let confirmed: Vec<&str> = value["confirmed"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let there = good.blob_digests().into_iter().chain([good.digest()]);
        assert!(there.into_iter().all(|digest| confirmed.contains(&digest.as_str())), "{value:#}");
        // As skopeo writes it: only images that arrived.
        assert_eq!(read(&digests), format!("{} docker://{to}/good:1\n", good.digest()));
    }
}

#[test]
fn verify_first_pushes_nothing_from_a_damaged_bundle_otherwise_intact_images_arrive() {
    let (good, bad) = (images::oci("good", "1", &["x"]), images::oci("bad", "1", &["y"]));
    let source = Source::of(&[good.clone(), bad.clone()]);
    let bundle = source.bundle("b");
    let layer = source.path("b").join("blobs").join(sha256(&bad.blobs[1]).replace(':', "/"));
    let mut bytes = std::fs::read(&layer).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&layer, bytes).unwrap();
    let target = Registry::start();
    let output = ends_with(3, &["import", &bundle, "--to", target.host(), "--verify-first"]);
    assert!(stderr(&output).contains(&sha256(&bad.blobs[1])["sha256:".len()..]), "{}", stderr(&output));
    assert_eq!(target.requests(), []);
    let output = ends_with(3, &["import", &bundle, "--to", target.host()]);
    assert!(stderr(&output).contains("bad:1"), "{}", stderr(&output));
    assert_eq!(everything(&target), [("good:1".to_owned(), good.digest())]);
}

#[test]
fn fail_fast_stops_at_the_first_failure() {
    let source = Source::of(&[images::oci_index("sparse", "1", "multi"), images::oci("team/good", "1", &["x"])]);
    let out = source.path("b.tar");
    let bundle = out.to_str().unwrap();
    let references: Vec<&str> = source.references.iter().map(String::as_str).collect();
    let sparse = ["--index", "sparse", "--platform", "linux/amd64"];
    succeed(&[&["export", "-o", bundle], &references[..], &sparse].concat());
    let target = Registry::start();
    let output = run(&["import", bundle, "--to", target.host(), "--fail-fast", "-j", "1"]);
    assert!(matches!(output.status.code(), Some(1 | 4)), "{}", stderr(&output));
    assert!(stderr(&output).contains("sparse:1"), "{}", stderr(&output));
    assert_eq!(names(&target), [""; 0], "the image after it is not pushed");
}

#[test]
fn dry_run_counts_new_mounted_and_present_bytes_and_pushes_nothing() {
    let shared = "the layer that all share";
    let pushed = [images::oci("one", "1", &[shared, "one"]), images::oci("two", "1", &[shared, "two"])];
    let source = Source::of(&pushed);
    let bundle = source.bundle("b.tar");
    let target = Registry::start();
    let plan = || json(&succeed(&["import", &bundle, "--to", target.host(), "--dry-run", "--json"]));
    let sizes = |image: &images::Image| image.blobs.iter().map(|blob| blob.len() as u64).sum::<u64>();
    let layer = pushed[0].blobs[1].len() as u64;
    let all = sizes(&pushed[0]) + sizes(&pushed[1]);
    let before = plan();
    assert_eq!((&before["newBytes"], &before["mountedBytes"]), (&json!(all - layer), &json!(layer)), "{before:#}");
    assert_eq!(names(&target), [""; 0]);
    succeed(&["import", &bundle, "--to", target.host()]);
    let after = plan();
    assert_eq!((&after["newBytes"], &after["presentBytes"]), (&json!(0), &json!(all - layer)), "{after:#}");
}
