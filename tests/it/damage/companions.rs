//! Companions travel with the image they refer to. A lock that declared anything else a companion could give any
//! manifest any tag.

use serde_json::{Value, json};

use super::bundle::{Fixture, Form, in_tar_order};
use super::forged::{canonical, forge, refused, resum, with_index};
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, images, tempdir};

/// The third image declared as a companion of the first: its subject, its tag, and the expected objection.
fn cases(fixture: &Fixture) -> Vec<(Value, Value, &'static str)> {
    let [one, two, three, multi] = &fixture.images[..] else { panic!("four images") };
    let beside = |digest: &str, suffix: &str| json!(format!("{}{suffix}", digest.replace(':', "-")));
    let (one, two, three) = (one.digest(), two.digest(), three.digest());
    let child = multi.children[0].digest();
    vec![
        (json!(one), json!("latest"), "which cannot be the tag of a companion"),
        (json!(one), json!("1"), "which cannot be the tag of a companion"),
        (json!(one), beside(&one, ".cosign"), "which cannot be the tag of a companion"),
        (json!(one), beside(&two, ".sig"), "which cannot be the tag of a companion"),
        (json!(two), beside(&two, ".sig"), "which is not a manifest of this image"),
        (json!(child), beside(&child, ".sig"), "which is not a manifest of this image"),
        (json!(three), beside(&three, ".sig"), "which is not a manifest of this image"),
        (json!(one), Value::Null, "names no subject"),
    ]
}

fn attached(fixture: &Fixture, subject: &Value, tag: &Value) -> Value {
    let mut descriptor = fixture.images[2].descriptor();
    descriptor["subject"] = subject.clone();
    if !tag.is_null() {
        descriptor["tag"] = tag.clone();
    }
    json!([descriptor])
}

#[test]
fn a_companion_must_refer_to_its_image_and_carry_the_tag_derived_from_it() {
    let fixture = Fixture::new();
    let target = Registry::start();
    for (subject, tag, says) in cases(&fixture) {
        let case = format!("{tag} of {subject}");
        let companion = attached(&fixture, &subject, &tag);
        let parts = forge(&fixture, |json| json["lock"]["images"][0]["attached"] = companion);
        let directory = tempdir();
        let report = refused(&parts.write(directory.path(), Form::Tar), &target, &case);
        let is_named = |problem: &Value| {
            problem["path"] == "bundle.json" && problem["found"].as_str().is_some_and(|found| found.contains(says))
        };
        assert!(report.problems.iter().any(is_named), "{case}: {says}: {report:#?}");
    }
}

/// Wherever it is pushed, the registry would list it among the referrers of its subject, an image outside this bundle's
/// request.
#[test]
fn a_child_manifest_with_another_image_as_subject_is_refused() {
    let source = Registry::start();
    let app = images::oci("team/app", "", &["app"]);
    let sbom = images::referrer(&app, "application/spdx+json", b"sbom");
    let inner = images::index_of("team/app", "", &[(&sbom, None)], None);
    let outer = images::index_of("team/app", "1", &[(&app, Some("amd64")), (&sbom, None), (&inner, None)], None);
    let foreign = images::index_of("team/app", "foreign", &[(&sbom, None)], None);
    [&outer, &foreign].iter().for_each(|image| image.push(&source));
    let directory = tempdir();
    let export = |name: &str| {
        let out = directory.path().join(name);
        let reference = format!("{}/team/app:{name}", source.host());
        let mut command = gapferry();
        (command.args(["export", &reference, "--no-referrers", "-o"]).arg(&out).output().unwrap(), out)
    };
    // An export refuses what an import would refuse.
    let (refusal, _) = export("foreign");
    let stderr = String::from_utf8_lossy(&refusal.stderr);
    assert!(!refusal.status.success() && stderr.contains("has the subject"), "{stderr}");
    let (output, out) = export("1");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The same bundle claims one more image: the inner index, which lacks the subject.
    let mut parts = in_tar_order(files_below(&out));
    let mut json: Value = serde_json::from_slice(parts.bytes("bundle.json")).unwrap();
    let mut forged = json["lock"]["images"][0].clone();
    (forged["digest"], forged["size"], forged["platforms"]) =
        (json!(inner.digest()), json!(inner.manifest.len()), json!([]));
    forged["reference"] = json!(format!("{}/team/app:0", source.host()));
    json["lock"]["images"].as_array_mut().unwrap().insert(0, forged);
    *parts.bytes("bundle.json") = canonical(&json);
    resum(&mut parts);
    let report = refused(&parts.write(directory.path(), Form::Tar), &Registry::start(), "a foreign subject");
    let says = format!("its manifest {} has the subject {}", sbom.digest(), app.digest());
    let is_named = |problem: &Value| problem["found"].as_str().is_some_and(|found| found.contains(&says));
    assert_eq!(report.problems.iter().filter(|problem| is_named(problem)).count(), 1, "{report:#?}");
}

/// containerd stores the companion with the subject named here, and loses it with that image.
#[test]
fn an_index_json_that_assigns_a_companion_to_another_subject_is_refused() {
    let fixture = Fixture::new();
    let [one, two, ..] = &fixture.images[..] else { panic!("four images") };
    let parts = with_index(&fixture, |index| {
        let listed = index["manifests"].as_array_mut().unwrap().iter_mut().find(|item| item["digest"] == one.digest());
        listed.unwrap()["annotations"]["io.containerd.manifest.subject"] = json!(two.digest());
    });
    let directory = tempdir();
    let report = refused(&parts.write(directory.path(), Form::Tar), &Registry::start(), "a subject of the index's own");
    let is_named = |problem: &Value| {
        problem["path"] == "index.json"
            && problem["found"].as_str().is_some_and(|found| found.contains("has the subject"))
    };
    assert!(report.problems.iter().any(is_named), "{report:#?}");
}

#[test]
fn a_lock_that_gives_companions_the_tags_of_other_images_is_not_exported() {
    let fixture = Fixture::new();
    let json: Value = serde_json::from_slice(fixture.parts.clone().bytes("bundle.json")).unwrap();
    let directory = tempdir();
    for (subject, tag, says) in cases(&fixture).into_iter().filter(|(.., says)| says.contains("cannot be the tag")) {
        let mut lock = json["lock"].clone();
        lock["images"][0]["attached"] = attached(&fixture, &subject, &tag);
        let path = directory.path().join("lock.json");
        std::fs::write(&path, lock.to_string()).unwrap();
        let output = gapferry().arg("export").arg("--locked").arg(&path).args(["-o", "x.tar"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("team/one:1") && stderr.contains(says), "{stderr}");
    }
}
