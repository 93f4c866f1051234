//! The output of an export and what was there before: the export never reports success for a bundle that is not
//! finished.

use std::path::Path;
use std::sync::Arc;

use assert_cmd::assert::Assert;
use gapferry::base::error::Kind;
use gapferry::base::progress::{Events, Silent};
use serde_json::Value;

use crate::bundle::fixture::two_images;
use crate::support::images;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

fn export(registry: &Registry, names: &[&str], directory: &Path, out: &str) -> Assert {
    let references = names.iter().map(|name| format!("{}/{name}", registry.host()));
    gapferry().current_dir(directory).arg("export").args(references).args(["-o", out]).assert()
}

fn one_image() -> Registry {
    let registry = Registry::start();
    images::oci("team/app", "1", &["content of the only layer"]).push(&registry);
    registry
}

#[test]
fn an_unchanged_export_writes_the_lock_of_the_existing_bundle() {
    let registry = one_image();
    let directory = tempdir();
    let export = |epoch: Option<&str>| {
        let mut command = gapferry();
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        command.current_dir(directory.path()).arg("export").arg(format!("{}/team/app:1", registry.host()));
        command.args(["-o", "b.tar", "--lock", "b.lock"]).assert().success();
    };
    export(Some("1000000000"));
    let first = std::fs::read(directory.path().join("b.lock")).unwrap();
    export(None);
    assert_eq!(std::fs::read(directory.path().join("b.lock")).unwrap(), first);
}

/// People keep notes and scripts beside the images they carry. An export that replaces the bundle must not remove them.
#[test]
fn an_export_over_a_bundle_removes_no_foreign_file() {
    let registry = one_image();
    let directory = tempdir();
    let path = |name: &str| directory.path().join(name);
    export(&registry, &["team/app:1"], directory.path(), "b").success();
    std::fs::create_dir(path("b/notes")).unwrap();
    std::fs::write(path("b/notes/who.txt"), "who carries it").unwrap();
    images::oci("team/other", "1", &["another"]).push(&registry);
    for names in [&["team/app:1"][..], &["team/app:1", "team/other:1"]] {
        let before = std::fs::read(path("b/bundle.json")).unwrap();
        let refused = export(&registry, names, directory.path(), "b").code(2);
        let text = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(text.contains("notes/who.txt does not belong to the existing bundle"), "{text}");
        assert_eq!(std::fs::read(path("b/notes/who.txt")).unwrap(), b"who carries it");
        assert_eq!(std::fs::read(path("b/bundle.json")).unwrap(), before);
    }
    std::fs::rename(path("b/notes"), path("notes")).unwrap();
    // Leftovers of a killed repair belong to the program.
    std::fs::write(path("b/index.json.partial"), "half").unwrap();
    export(&registry, &["team/app:1", "team/other:1"], directory.path(), "b").success();
    assert!(!path("b/index.json.partial").exists());
    // The same in a tar, where anyone can append files.
    export(&registry, &["team/app:1"], directory.path(), "b.tar").success();
    let add = ["-rf", "b.tar", "notes/who.txt"];
    assert!(std::process::Command::new("tar").current_dir(directory.path()).args(add).status().unwrap().success());
    export(&registry, &["team/app:1", "team/other:1"], directory.path(), "b.tar").code(2);
}

#[test]
fn an_unchanged_export_reports_the_same_size_as_the_original() {
    let registry = one_image();
    let directory = tempdir();
    for out in ["b", "b.tar"] {
        let report = || {
            let mut command = gapferry();
            let reference = format!("{}/team/app:1", registry.host());
            command.current_dir(directory.path()).args(["export", &reference, "--json", "-o", out]);
            let report: Value = serde_json::from_slice(&command.assert().success().get_output().stdout).unwrap();
            (report["unchanged"].as_bool().unwrap(), report["bytes"].as_u64().unwrap())
        };
        let written = report();
        assert!(!written.0 && written.1 > 0);
        assert_eq!(report(), (true, written.1), "{out}");
    }
}

/// A run killed after the final rename leaves its lock file; these must not pile up in a directory of bundles.
#[test]
fn leftovers_of_a_killed_run_beside_a_complete_bundle_are_removed() {
    let registry = one_image();
    let directory = tempdir();
    for (out, more) in [("b", &[][..]), ("b.tar", &[]), ("v.tar", &["--volume-size", "1MB"])] {
        let report = || {
            let mut command = gapferry();
            let reference = format!("{}/team/app:1", registry.host());
            command.current_dir(directory.path()).args(["export", &reference, "--json", "-o", out]).args(more);
            serde_json::from_slice::<Value>(&command.assert().success().get_output().stdout).unwrap()
        };
        report();
        let lock = directory.path().join(format!("{out}.partial.lock"));
        std::fs::write(&lock, "").unwrap();
        assert_eq!(report()["unchanged"], Value::Bool(true), "{out}");
        assert!(!lock.exists(), "{out}");
    }
}

/// Pushes a copy of `image` under another tag with a wrong size for its last layer. docker-registry does not check
/// sizes.
fn push_with_wrong_size(image: &images::Image, registry: &Registry) {
    let mut forged = image.named("team/liar", "1");
    let mut manifest: Value = serde_json::from_slice(&forged.manifest).unwrap();
    let size = manifest["layers"][0]["size"].as_u64().unwrap();
    manifest["layers"][0]["size"] = (size + 1).into();
    forged.manifest = serde_json::to_vec(&manifest).unwrap();
    forged.push(registry);
}

#[test]
fn a_digest_with_two_sizes_fails_at_export_and_not_only_at_verify() {
    let registry = Registry::start();
    let image = images::oci("team/app", "1", &["content"]);
    image.push(&registry);
    push_with_wrong_size(&image, &registry);
    let directory = tempdir();
    let failed = export(&registry, &["team/app:1", "team/liar:1"], directory.path(), "bundle").code(3);
    let stderr = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
    assert!(stderr.contains("another one gives it"), "{stderr}");
}

#[test]
fn an_output_name_reserved_for_unfinished_bundles_is_refused() {
    let registry = one_image();
    let directory = tempdir();
    let refused = export(&registry, &["team/app:1"], directory.path(), "b.partial").code(2);
    let stderr = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(stderr.contains("use another name"), "{stderr}");
}

/// The expected bytes follow from the bundle's identity, not from what the medium returns.
#[test]
fn a_bundle_that_reads_back_wrong_loses_its_name() {
    let directory = tempdir();
    let events: Events = Arc::new(Silent);
    let at = |name: &str| directory.path().join(name);
    let bad = |name: &str, file: &str, bytes: &[u8]| {
        let bundle = two_images().write(&at(name)).unwrap();
        std::fs::write(at(name).join(file), bytes).unwrap();
        let error = gapferry::bundle::read_back(&at(name), bundle.identity, &events).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{file}");
        assert!(!at(name).exists(), "{file}: {}", error.chain());
    };
    for (name, file) in [("a", "chunks.b3"), ("b", "SHA256SUMS"), ("c", "bundle.json"), ("d", "index.json")] {
        bad(name, file, b"other");
    }
    let identity = two_images().write(&at("whole")).unwrap().identity;
    gapferry::bundle::read_back(&at("whole"), identity, &events).unwrap();
    let convert = |out: &str| {
        gapferry().arg("convert").arg(at("whole")).arg("-o").arg(at(out)).assert().success();
        at(out)
    };
    for place in [5, usize::MAX] {
        let compressed = convert("z.tar.zst");
        let mut bytes = std::fs::read(&compressed).unwrap();
        let place = place.min(bytes.len() - 1);
        bytes[place] ^= 1;
        std::fs::write(&compressed, bytes).unwrap();
        let error = gapferry::bundle::read_back(&compressed, identity, &events).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{}", error.chain());
        assert!(!compressed.exists(), "{}", error.chain());
    }
}

#[test]
fn read_back_confirms_every_form_and_refuses_a_pipe() {
    let registry = one_image();
    let directory = tempdir();
    let run = |args: &[&str]| {
        let mut command = gapferry();
        command.current_dir(directory.path()).args(args).arg("--read-back").assert()
    };
    let message = |assert: Assert| String::from_utf8(assert.success().get_output().stderr.clone()).unwrap();
    let reference = format!("{}/team/app:1", registry.host());
    for out in ["b", "b.tar", "b.tar.zst"] {
        for _ in 0..2 {
            // An unchanged bundle is not verified either until it is read.
            let text = message(run(&["export", &reference, "-o", out]));
            assert!(text.contains(&format!("{out}: read back")), "{text}");
        }
    }
    let text = message(run(&["export", &reference, "-o", "v", "--volume-size", "64KiB"]));
    assert!(text.contains("v.001.tar: read back"), "{text}");
    let text = message(run(&["split", "b.tar", "-o", "s", "--volume-size", "64KiB"]));
    assert!(text.contains("s.001.tar: read back"), "{text}");
    let text = message(run(&["join", "s.001.tar", "-o", "j"]));
    assert!(text.contains("j: read back"), "{text}");
    let refused = run(&["export", &reference, "-o", "-"]).code(2);
    let text = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(text.contains("verify it where it arrives") && refused.get_output().stdout.is_empty(), "{text}");
}
