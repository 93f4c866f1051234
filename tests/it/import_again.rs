//! Imports that run again or end early: missing content is found and reported.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::images;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

fn export(source: &Registry, names: &[&str], directory: &Path) -> PathBuf {
    let out = directory.join("bundle.tar");
    let references = names.iter().map(|name| format!("{}/{name}", source.host()));
    gapferry().arg("export").args(references).arg("-o").arg(&out).assert().success();
    out
}

#[test]
fn a_stored_but_unlisted_referrer_is_listed_by_the_next_run() {
    let source = Registry::start();
    let image = images::oci("team/app", "1", &["content"]);
    let sbom = images::referrer(&image, "application/spdx+json", b"an SBOM");
    let list = images::referrers_tag(&image, std::slice::from_ref(&sbom));
    for pushed in [&image, &sbom, &list] {
        pushed.push(&source);
    }
    let directory = tempdir();
    let bundle = export(&source, &["team/app:1"], directory.path());
    // The state after a run was killed between storing the SBOM and the list of referrers.
    let target = Registry::start();
    image.push(&target);
    sbom.push(&target);
    let again = || gapferry().arg("import").arg(&bundle).args(["--to", target.host()]).assert().success();
    again();
    let index = target.manifest("team/app", list.tag.as_deref().unwrap()).expect(200).json();
    assert_eq!(index["manifests"][0]["digest"], sbom.digest().as_str(), "{index}");
    let before = target.requests().len();
    again();
    let pushes = target.requests().split_off(before).into_iter().filter(|r| !matches!(&*r.method, "GET" | "HEAD"));
    assert_eq!(pushes.count(), 0, "a third run finds everything present");
}

#[test]
fn a_fail_fast_import_still_reports_every_images_outcome() {
    let source = Registry::start();
    let names = ["team/one", "team/two", "team/three"];
    let images = names.map(|name| images::oci(name, "1", &["shared", name]));
    images.iter().for_each(|image| image.push(&source));
    let directory = tempdir();
    let bundle =
        export(&source, &names.map(|name| format!("{name}:1")).each_ref().map(String::as_str), directory.path());
    let target = Registry::start();
    images[0].push(&target);
    images::oci("team/two", "1", &["something else"]).push(&target);
    let receipt = directory.path().join("receipt.json");
    let ended = gapferry()
        .arg("import")
        .arg(&bundle)
        .args(["--to", target.host(), "--on-existing", "fail", "--fail-fast", "-j", "1", "--receipt"])
        .arg(&receipt)
        .assert()
        .code(1);
    let stderr = String::from_utf8_lossy(&ended.get_output().stderr).into_owned();
    assert!(
        stderr.contains("0 images pushed, 1 present, 2 failed") && stderr.contains("another failure ended the run"),
        "{stderr}"
    );
    let receipt: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    let outcomes: Vec<&str> =
        receipt["images"].as_array().unwrap().iter().map(|image| image["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["present", "failed", "failed"]);
    assert_eq!(target.digest("team/three", "1"), None);
}

#[test]
fn a_plan_does_not_count_blobs_of_skipped_images_as_present() {
    let source = Registry::start();
    images::oci("team/app", "1", &["content"]).push(&source);
    let directory = tempdir();
    let bundle = export(&source, &["team/app:1"], directory.path());
    let target = Registry::start();
    images::oci("team/app", "1", &["something else"]).push(&target);
    let plan = gapferry()
        .arg("import")
        .arg(&bundle)
        .args(["--to", target.host(), "--on-existing", "skip", "--dry-run", "--json"])
        .output()
        .unwrap();
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!((&plan["newBytes"], &plan["presentBytes"]), (&0.into(), &0.into()), "{plan}");
}

#[test]
fn blobs_of_an_import_that_never_set_a_tag_are_not_sent_again() {
    let source = Registry::start();
    let image = images::oci("team/app", "1", &["not even the largest is worth a question", "a small layer"]);
    image.push(&source);
    let directory = tempdir();
    let bundle = export(&source, &["team/app:1"], directory.path());
    let target = Registry::start();
    image.blobs.iter().for_each(|blob| images::push_blob(&target, &image.repository, blob));
    let before = target.requests().len();
    gapferry().arg("import").arg(&bundle).args(["--to", target.host()]).assert().success();
    let uploads = target.requests().split_off(before).into_iter().filter(|r| r.path.contains("/blobs/uploads/"));
    assert_eq!(uploads.count(), 0, "the blobs were present");
    assert_eq!(target.digest("team/app", "1").as_deref(), Some(image.digest().as_str()));
}

#[test]
fn a_new_registry_gets_only_requests_that_could_save_an_upload() {
    let source = Registry::start();
    let images = ["team/one:1", "team/one:2", "team/two:1"].map(|name| {
        let (repository, tag) = name.split_once(':').unwrap();
        let image = images::oci(repository, tag, &[&images::noise(1, 400_000), name]);
        image.push(&source);
        name
    });
    let directory = tempdir();
    let bundle = export(&source, &images, directory.path());
    let target = Registry::start();
    gapferry().arg("import").arg(&bundle).args(["--to", target.host()]).assert().success();
    let requests = target.requests();
    let first = requests.iter().position(|r| r.method == "POST").unwrap();
    let about = |part: &str| requests[..first].iter().filter(|r| r.path.contains(part)).count();
    // GET confirms a HEAD answer of “not there”: once per registry for blobs, and for each manifest until HEAD has
    // found one.
    assert_eq!((about("/blobs/"), about("/manifests/"), about("/tags/list")), (3, 4, 2), "{requests:?}");
}
