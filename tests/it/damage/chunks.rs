//! Locating the damaged mebibytes of a blob.

use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::bundle::{Form, Parts, blob_path, in_tar_order, verify};
use crate::support::images::{self, Image, noise};
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, sha256, tempdir};

const MIB: usize = 1 << 20;

/// An image with a layer of several mebibytes, and one with small layers.
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
fn damage_in_a_large_blob_is_located_to_the_mebibyte_and_nothing_else_is_blamed() {
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
    let message = String::from_utf8(output.stdout).unwrap();
    assert!(message.contains(&format!("damage within bytes 0-1048575 of {size}")), "{message}");
}

/// The offset in `chunks.b3` of the BLAKE3 of these bytes; the values of their mebibytes follow it.
fn root_in(chunks: &[u8], bytes: &[u8]) -> usize {
    let root = blake3::hash(bytes);
    chunks.windows(32).position(|window| window == root.as_bytes()).unwrap()
}

/// `chunks.b3` is derived data, so no error in it keeps an image from its target.
#[test]
fn a_wrong_chunks_b3_loses_no_image_and_is_rewritten() {
    let large = Large::new();
    let layer = large.image.blobs.last().unwrap();
    let whole = large.parts.clone().bytes("chunks.b3").clone();
    let root = root_in(&whole, layer);
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(&str, Damage<'_>); 5] = [
        ("the BLAKE3 of a blob", &|bytes| bytes[root] ^= 1),
        ("the value of a mebibyte", &|bytes| bytes[root + 3 * 32] ^= 1),
        ("its first line", &|bytes| bytes[0] ^= 1),
        ("its identity", &|bytes| bytes[40] ^= 1),
        ("its end", &|bytes| bytes.truncate(bytes.len() - 1)),
    ];
    let target = Registry::start();
    for (at, (case, damage)) in cases.iter().enumerate() {
        let mut parts = large.parts.clone();
        damage(parts.bytes("chunks.b3"));
        let bundle = parts.write(&large.directory.path().join(format!("wrong-{at}")), Form::Directory);
        let report = verify(&bundle);
        assert_eq!((report.code, report.paths()), (3, ["chunks.b3".to_owned()].into()), "{case}: {report:#?}");
        assert!(report.images().is_empty(), "{case}: {report:#?}");
        let full = gapferry().args(["verify", "--full"]).arg(&bundle).output().unwrap();
        assert_eq!(full.status.code(), Some(3), "{case}");
        let missing = bundle.with_extension("missing.json");
        gapferry().arg("verify").arg(&bundle).arg("--missing").arg(&missing).output().unwrap();
        let asked: Value = serde_json::from_slice(&std::fs::read(&missing).unwrap()).unwrap();
        assert_eq!((&asked["metadata"], &asked["blobs"]), (&json!(["chunks.b3"]), &json!([])), "{case}");
        let to = format!("{}/case{at}", target.host());
        for more in [&["--verify-first"][..], &[]] {
            gapferry().arg("import").arg(&bundle).args(["--to", &to]).args(more).assert().success();
        }
        // Any other copy works; it need not have a chunks.b3.
        let mut copy = large.parts.clone();
        copy.remove("chunks.b3");
        let copy = copy.write(&large.directory.path().join(format!("copy-{at}")), Form::Directory);
        gapferry().arg("repair").arg(&bundle).arg(&copy).assert().success();
        assert!(std::fs::read(bundle.join("chunks.b3")).unwrap() == whole, "{case}");
    }
}

#[test]
fn a_damaged_blob_is_found_without_its_chunk_values() {
    let large = Large::new();
    let (mut parts, layer) = (large.parts.clone(), large.layer());
    let root = root_in(parts.bytes("chunks.b3"), large.image.blobs.last().unwrap());
    parts.bytes("chunks.b3")[root + 2 * 32] ^= 1;
    parts.bytes(&layer)[2 * MIB] ^= 1;
    let both = verify(&parts.write(large.directory.path(), Form::Tar));
    assert_eq!((both.code, both.paths()), (3, [layer.clone()].into()), "{both:#?}");
    let problem = both.problems.iter().find(|problem| problem["path"] == json!(layer)).unwrap();
    assert!(problem["found"].as_str().unwrap().contains("so the place is unknown"), "{problem}");
    // The same without chunks.b3, whose absence is not a problem by itself.
    parts.remove("chunks.b3");
    let without = verify(&parts.write(&large.directory.path().join("without"), Form::Directory));
    assert_eq!((without.code, without.paths()), (3, [layer].into()), "{without:#?}");
}

#[test]
fn a_report_says_how_the_blobs_were_verified_and_why() {
    let large = Large::new();
    let bundle = large.parts.write(large.directory.path(), Form::Tar);
    let message = |more: &[&str]| -> (Value, Value) {
        let output = gapferry().arg("verify").arg(&bundle).arg("--json").args(more).output().unwrap();
        let mut json: Value = serde_json::from_slice(&output.stdout).unwrap();
        (json["proof"].take(), json["proofReason"].take())
    };
    assert_eq!(message(&[]), (json!("blake3"), Value::Null));
    assert_eq!(message(&["--full"]), (json!("digest"), Value::Null));
    let text = gapferry().arg("verify").arg(&bundle).output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("blobs verified by BLAKE3 (chunks.b3), which detects accidents only"), "{text}");
    let mut parts = large.parts.clone();
    parts.remove("chunks.b3");
    let bundle = parts.write(&large.directory.path().join("without"), Form::Directory);
    let output = gapferry().arg("verify").arg(&bundle).arg("--json").output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["proof"], &json["proofReason"]), (&json!("digest"), &json!("there is no chunks.b3")));
}

/// BLAKE3 shows only that a blob is what the writer wrote. Only the digest in the blob's name betrays a forger.
#[test]
fn a_blob_forged_together_with_its_chunks_is_found_by_full_and_never_pushed() {
    let large = Large::new();
    let (mut parts, layer) = (large.parts.clone(), blob_path(&sha256(&large.image.blobs[1])));
    let was = parts.bytes(&layer).clone();
    let forged = vec![b'x'; was.len()];
    let root = root_in(parts.bytes("chunks.b3"), &was);
    parts.bytes("chunks.b3")[root..root + 32].copy_from_slice(blake3::hash(&forged).as_bytes());
    *parts.bytes(&layer) = forged;
    let bundle = parts.write(large.directory.path(), Form::Tar);
    assert_eq!(verify(&bundle).code, 0, "chunks.b3 guards only against accidental damage");
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
fn a_bundle_with_more_blobs_than_the_open_file_limit_is_verified() {
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
