//! Where a blob is damaged: by its mebibytes.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::bundle::{Form, Parts, blob_path, in_tar_order, verify};
use super::forged::resum_file;
use crate::support::images::{self, Image, noise};
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, sha256, tempdir};

const MIB: usize = 1 << 20;

/// An image with a layer of several mebibytes, and one with small ones.
struct Large {
    image: Image,
    parts: Parts,
    directory: TempDir,
}

impl Large {
    fn new() -> Large {
        let source = Registry::start();
        let image = images::oci("team/large", "1", &["small", &noise(1, 5 * MIB + MIB / 2)]);
        image.push(&source);
        images::oci("team/other", "1", &[&noise(2, 2 * MIB)]).push(&source);
        let directory = tempdir();
        let out = directory.path().join("exported");
        let references = ["large", "other"].map(|name| format!("{}/team/{name}:1", source.host()));
        gapferry().arg("export").args(references).arg("-o").arg(&out).assert().success();
        Large { image, parts: in_tar_order(files_below(&out)), directory }
    }

    fn layer(&self) -> String {
        blob_path(&sha256(self.image.blobs.last().unwrap()))
    }

    fn damaged(&self, form: Form, places: &[usize]) -> PathBuf {
        let mut parts = self.parts.clone();
        let layer = parts.bytes(&self.layer());
        places.iter().for_each(|at| layer[*at] ^= 1);
        let directory = self.directory.path().join(format!("{form:?}{places:?}"));
        std::fs::create_dir(&directory).unwrap();
        parts.write(&directory, form)
    }
}

fn range(first: usize, last: usize) -> Value {
    json!({"first": first, "last": last})
}

#[test]
fn damage_in_a_large_blob_is_told_by_its_mebibytes_and_nothing_else_is_blamed() {
    let large = Large::new();
    let size = large.image.blobs.last().unwrap().len();
    assert!(size > 4 * MIB && !size.is_multiple_of(MIB));
    let cases: &[(&[usize], Value)] = &[
        (&[0], json!([range(0, MIB - 1)])),
        (&[3 * MIB - 1], json!([range(2 * MIB, 3 * MIB - 1)])),
        (&[size - 1], json!([range((size - 1) / MIB * MIB, size - 1)])),
        (&[0, MIB + 5, 3 * MIB], json!([range(0, 2 * MIB - 1), range(3 * MIB, 4 * MIB - 1)])),
    ];
    for form in [Form::Directory, Form::Tar] {
        for (places, ranges) in cases {
            let report = verify(&large.damaged(form, places));
            assert_eq!((report.code, report.problems.len()), (3, 1), "{report:#?}");
            let problem = &report.problems[0];
            assert_eq!((&problem["ranges"], &problem["path"]), (ranges, &json!(large.layer())));
            assert!(report.images().iter().all(|image| image.ends_with("team/large:1")), "{report:#?}");
        }
    }
    let output = gapferry().arg("verify").arg(large.damaged(Form::Tar, &[7, 9])).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(&format!("bytes 0-1048575 of {size} are wrong")), "{said}");
}

#[test]
fn without_its_chunks_a_damaged_blob_is_found_all_the_same() {
    let large = Large::new();
    let (mut parts, layer) = (large.parts.clone(), large.layer());
    parts.bytes("chunks.b3")[40] ^= 1;
    let only_chunks = verify(&parts.write(&large.directory.path().join("chunks"), Form::Directory));
    assert_eq!(
        (only_chunks.code, only_chunks.paths().into_iter().collect::<Vec<_>>()),
        (3, vec!["chunks.b3".to_owned()])
    );
    parts.bytes(&layer)[2 * MIB] ^= 1;
    let both = verify(&parts.write(large.directory.path(), Form::Tar));
    assert_eq!((both.code, both.paths().len()), (3, 2), "{both:#?}");
    let problem = both.problems.iter().find(|problem| problem["path"] == json!(layer)).unwrap();
    assert!(problem["found"].as_str().unwrap().contains("where cannot be said"), "{problem}");
}

/// BLAKE3 shows that it is what was written. What a forger has written, only the digest in its name betrays.
#[test]
fn a_blob_forged_with_its_chunks_is_found_by_full_and_never_reaches_a_registry() {
    let large = Large::new();
    let (mut parts, layer) = (large.parts.clone(), blob_path(&sha256(&large.image.blobs[1])));
    let forged = vec![b'x'; parts.bytes(&layer).len()];
    let root = blake3::hash(&forged).to_hex().to_string();
    *parts.bytes(&layer) = forged;
    let mut json: Value = serde_json::from_slice(parts.bytes("bundle.json")).unwrap();
    let files = json["files"].as_array_mut().unwrap();
    files.iter_mut().find(|file| file["path"] == json!(layer)).unwrap()["blake3"] = json!(root);
    let json = serde_json::to_vec_pretty(&json).unwrap();
    parts.bytes("bundle.json").clone_from(&json);
    resum_file(&mut parts, "bundle.json", &json);
    let bundle = parts.write(large.directory.path(), Form::Tar);
    let output = gapferry().arg("verify").arg(&bundle).arg("--full").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let target = Registry::start();
    for more in [&["--verify-first"][..], &[]] {
        let output = gapferry().arg("import").arg(&bundle).args(["--to", target.host()]).args(more).output().unwrap();
        assert_ne!(output.status.code(), Some(0));
        assert_eq!(target.tags("team/large"), [""; 0]);
    }
}

#[test]
fn what_is_no_blake3_is_told_and_the_sha256_counts() {
    let large = Large::new();
    let mut parts = large.parts.clone();
    let mut json: Value = serde_json::from_slice(parts.bytes("bundle.json")).unwrap();
    for file in json["files"].as_array_mut().unwrap() {
        if file["path"] == json!(large.layer()) {
            file["blake3"] = json!("short");
        }
    }
    let json = serde_json::to_vec_pretty(&json).unwrap();
    parts.bytes("bundle.json").clone_from(&json);
    resum_file(&mut parts, "bundle.json", &json);
    parts.bytes(&large.layer())[5] ^= 1;
    let report = verify(&parts.write(large.directory.path(), Form::Directory));
    assert_eq!(report.paths().into_iter().collect::<Vec<_>>(), [large.layer(), "bundle.json".to_owned()]);
}

#[test]
fn a_bundle_of_more_blobs_than_a_process_may_open_at_once_is_verified() {
    let source = Registry::start();
    let layers: Vec<String> = (0..60).map(|n| format!("layer {n}")).collect();
    let image = images::oci("team/many", "1", &layers.iter().map(String::as_str).collect::<Vec<_>>());
    image.push(&source);
    let directory = tempdir();
    let out = directory.path().join("bundle");
    gapferry().arg("export").arg(format!("{}/team/many:1", source.host())).arg("-o").arg(&out).assert().success();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" verify \"$1\"", env!("CARGO_BIN_EXE_gapferry")]).arg(&out);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}
