//! The list of what a damaged bundle lacks, written for the side that can fetch it.

use std::path::{Path, PathBuf};

use gapferry::bundle::{MAX_MISSING, Missing};
use serde_json::{Value, json};

use super::bundle::{Form, Parts, blob_path, in_tar_order};
use crate::support::images::{self, Image, noise};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, sha256, tempdir};

const MIB: usize = 1 << 20;

/// An exported image with a layer of several mebibytes and a small one.
struct Fixture {
    image: Image,
    parts: Parts,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let source = Registry::start();
        let image = images::oci("team/app", "1", &["small", &noise(1, 5 * MIB + MIB / 2)]);
        image.push(&source);
        let directory = tempdir();
        let out = directory.path().join("exported");
        let reference = format!("{}/{}", source.host(), image.name());
        gapferry().arg("export").arg(reference).arg("-o").arg(&out).assert().success();
        Fixture { image, parts: in_tar_order(files_below(&out)), directory }
    }

    fn layer(&self) -> String {
        sha256(&self.image.blobs[2])
    }

    fn small(&self) -> String {
        sha256(&self.image.blobs[1])
    }

    fn identity(&self) -> String {
        let json = self.parts.0.iter().find(|(path, _)| path == "bundle.json");
        sha256(&json.unwrap().1)
    }

    /// A damaged copy of the bundle under its own name.
    fn damaged(&self, form: Form, name: &str, damage: impl Fn(&mut Parts)) -> PathBuf {
        let mut parts = self.parts.clone();
        damage(&mut parts);
        let directory = self.directory.path().join(format!("{form:?}-{name}"));
        std::fs::create_dir(&directory).unwrap();
        parts.write(&directory, form)
    }
}

/// The written list, parsed as another program would.
#[track_caller]
fn missing(bundle: &Path, code: i32) -> Value {
    let file = bundle.with_extension("missing.json");
    Ran::of(gapferry().arg("verify").arg(bundle).arg("--missing").arg(&file)).ended(code);
    let bytes = std::fs::read(&file).unwrap();
    Missing::parse(&bytes, "it").unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn only_the_bad_mebibytes_of_a_large_blob_are_requested_each_with_its_proof() {
    let fixture = Fixture::new();
    let layer = &fixture.image.blobs[2];
    let value = |chunk: usize| {
        let bytes = &layer[chunk * MIB..layer.len().min((chunk + 1) * MIB)];
        let mut hasher = blake3::Hasher::new();
        blake3::hazmat::HasherExt::set_input_offset(&mut hasher, (chunk * MIB) as u64);
        let value = blake3::hazmat::HasherExt::finalize_non_root(hasher.update(bytes));
        json!(blake3::Hash::from_bytes(value).to_hex().to_string())
    };
    let last = layer.len() - 1;
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.damaged(form, "flips", |parts| {
            let bytes = parts.bytes(&blob_path(&fixture.layer()));
            [5, MIB, last].iter().for_each(|at| bytes[*at] ^= 1);
        });
        let missing = missing(&bundle, 3);
        assert_eq!((&missing["identity"], &missing["metadata"]), (&json!(fixture.identity()), &json!([])));
        let ranges = json!([
            {"first": 0, "last": 2 * MIB - 1, "values": [value(0), value(1)]},
            {"first": last / MIB * MIB, "last": last, "values": [value(last / MIB)]},
        ]);
        let blob = json!({"digest": fixture.layer(), "size": layer.len(), "ranges": ranges});
        assert_eq!(missing["blobs"], json!([blob]));
    }
}

#[test]
fn lost_files_are_requested_whole_and_metadata_by_name() {
    let fixture = Fixture::new();
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.damaged(form, "gone", |parts| {
            parts.bytes(&blob_path(&fixture.small()))[0] ^= 1;
            parts.bytes(&blob_path(&fixture.layer())).truncate(MIB);
            parts.remove(&blob_path(&fixture.image.digest()));
            parts.bytes("index.json")[5] ^= 1;
            parts.bytes("chunks.b3")[5] ^= 1;
            parts.remove("oci-layout");
            parts.add("blobs/sha256/undeclared", b"of no use");
        });
        let missing = missing(&bundle, 3);
        assert_eq!(missing["metadata"], json!(["oci-layout", "index.json", "chunks.b3"]));
        let mut wanted = vec![
            json!({"digest": fixture.small(), "size": fixture.image.blobs[1].len()}),
            json!({"digest": fixture.layer(), "size": fixture.image.blobs[2].len()}),
            json!({"digest": fixture.image.digest(), "size": fixture.image.manifest.len()}),
        ];
        wanted.sort_by_key(|blob| blob["digest"].to_string());
        assert_eq!(missing["blobs"], json!(wanted));
    }
}

#[test]
fn the_missing_list_names_the_original_bundle_even_if_its_file_list_is_damaged() {
    let fixture = Fixture::new();
    let flipped = |path: &'static str, at: usize| {
        move |parts: &mut Parts| {
            parts.bytes(path)[at] ^= 1;
        }
    };
    let json = fixture.damaged(Form::Tar, "json", flipped("bundle.json", 3));
    let sums = fixture.damaged(Form::Tar, "sums", |parts| parts.remove("SHA256SUMS"));
    let line = fixture.damaged(Form::Tar, "line", |parts| {
        let sums = parts.bytes("SHA256SUMS");
        let second = sums.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        sums[second] = if sums[second] == b'0' { b'1' } else { b'0' };
    });
    for (bundle, metadata) in [(json, "bundle.json"), (sums, "SHA256SUMS"), (line, "SHA256SUMS")] {
        let missing = missing(&bundle, 3);
        assert_eq!(missing["identity"], json!(fixture.identity()), "{metadata}");
        assert_eq!((&missing["metadata"], &missing["blobs"]), (&json!([metadata]), &json!([])));
    }
    let both = fixture.damaged(Form::Directory, "both", |parts| {
        parts.bytes("bundle.json").truncate(9);
        parts.bytes("SHA256SUMS").truncate(9);
    });
    let file = both.with_extension("missing.json");
    let ran = Ran::of(gapferry().arg("verify").arg(&both).arg("--missing").arg(&file)).ended(3);
    ran.reported(&["neither bundle.json nor SHA256SUMS shows which bundle this was"]);
    assert!(!file.exists());
}

#[test]
fn for_an_intact_bundle_the_missing_list_is_empty_and_replaces_an_older_one() {
    let fixture = Fixture::new();
    let bundle = fixture.damaged(Form::Directory, "whole", |_| ());
    std::fs::write(bundle.with_extension("missing.json"), "older").unwrap();
    let missing = missing(&bundle, 0);
    assert_eq!((&missing["blobs"], &missing["metadata"]), (&json!([]), &json!([])));
    assert_eq!(missing["identity"], json!(fixture.identity()));
    let nowhere = fixture.directory.path().join("nowhere/missing.json");
    Ran::of(gapferry().arg("verify").arg(&bundle).arg("--missing").arg(nowhere)).ended(2).reported(&["nowhere"]);
}

#[test]
fn a_missing_list_above_the_size_limit_is_not_read() {
    let bytes = vec![b' '; usize::try_from(MAX_MISSING).unwrap() + 1];
    assert!(Missing::parse(&bytes, "it").unwrap_err().to_string().contains("has at most 67108864 bytes"));
}
