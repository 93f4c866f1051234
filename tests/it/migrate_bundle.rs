//! `migrate --to-bundle`: the images of a real registry's storage as a bundle, its blobs linked to the storage.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::signed::keys::{Key, Kind, take_all_signatures};
use crate::support;
use crate::support::images::{self, Corpus, Image};
use crate::support::registry::Registry;
use crate::support::storage::{self, elsewhere, layer, pack};
use crate::support::{files_below, gapferry, skopeo, tempdir};

fn migrate(storage: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = gapferry();
    command.arg("migrate").arg(storage).arg("--to-bundle").arg(out).args(more);
    command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap()
}

#[track_caller]
fn migrated(storage: &Path, out: &Path, more: &[&str]) -> String {
    let output = migrate(storage, out, more);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{message}");
    gapferry().arg("verify").arg(out).assert().success();
    message
}

/// Every file of a storage: bytes, mode, owner and mtime. Not ctime, which a link changes.
fn state(storage: &Path) -> Vec<(PathBuf, Vec<u8>, u32, u32, i64)> {
    let of = |(name, bytes): (String, Vec<u8>)| {
        let file = fs::metadata(storage.join(&name)).unwrap();
        (PathBuf::from(name), bytes, file.mode(), file.uid(), file.mtime_nsec())
    };
    files_below(storage).into_iter().map(of).collect()
}

fn data(registry: &Registry, digest: &str) -> PathBuf {
    storage::data(&registry.storage(), digest)
}

fn blob(out: &Path, digest: &str) -> PathBuf {
    out.join("blobs/sha256").join(digest.replace("sha256:", ""))
}

/// The names in a bundle, without `localhost/`.
fn listed(out: &Path) -> Vec<String> {
    let output = gapferry().arg("list").arg(out).arg("--json").output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let images = report["images"].as_array().unwrap().iter();
    let name = |image: &serde_json::Value| image["reference"].as_str().unwrap().replace("localhost/", "");
    let mut names: Vec<String> = images.map(name).collect();
    names.sort();
    names
}

fn names(images: &[&Image]) -> Vec<String> {
    let mut names: Vec<String> = images.iter().map(|image| image.name()).collect();
    names.sort();
    names
}

#[test]
fn every_image_of_a_linked_bundle_arrives_under_its_path_with_its_digest() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let before = state(&registry.storage());
    let directory = tempdir();
    let out = directory.path().join("bundle");
    let message = migrated(&registry.storage(), &out, &["--link", "hard"]);
    assert!(message.contains("0 B copied") && message.contains("no problems"), "{message}");
    let tagged: Vec<&Image> = corpus.images.iter().filter(|image| image.tag.is_some()).collect();
    let (companions, images): (Vec<&Image>, Vec<&Image>) = tagged.iter().partition(|image| image.is_companion());
    assert_eq!(listed(&out), names(&images));
    let target = Registry::start();
    gapferry().arg("import").arg(&out).args(["--to", target.host()]).assert().success();
    for image in companions {
        // Lists of referrers are rewritten; their entries are the same.
        let all = if image.is_referrers_list() { &image.children[..] } else { std::slice::from_ref(image) };
        for companion in all {
            assert_eq!(
                target.digest(&image.repository, &companion.digest()),
                Some(companion.digest()),
                "{}",
                image.name()
            );
        }
        assert!(target.digest(&image.repository, image.tag.as_deref().unwrap()).is_some(), "{}", image.name());
    }
    for image in &images {
        let tag = image.tag.as_deref().unwrap();
        assert_eq!(target.digest(&image.repository, tag), Some(image.digest()), "{}", image.name());
        // skopeo 1.9 finds only OCI types in a layout.
        if image.media_type.starts_with("application/vnd.oci.") {
            let place = format!("oci:{}:localhost/{}", out.display(), image.name());
            assert_eq!(skopeo::digest(&place), image.digest(), "{}", image.name());
        }
    }
    for image in tagged.into_iter().filter(|image| !image.is_referrers_list()) {
        for digest in image.blob_digests().iter().filter(|digest| blob(&out, digest).exists()) {
            let (there, here) = (fs::metadata(data(&registry, digest)).unwrap(), blob(&out, digest));
            assert_eq!(there.ino(), fs::metadata(here).unwrap().ino(), "{digest} takes additional space");
        }
        assert_eq!(fs::metadata(blob(&out, &image.digest())).unwrap().nlink(), 1, "other programs rewrite manifests");
    }
    assert!(state(&registry.storage()) == before, "the storage is only read");
}

#[test]
fn linking_or_copying_between_directories_and_tars_gives_the_same_bundle() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let directory = tempdir();
    let packed = directory.path().join("storage.tar");
    pack(&registry.storage(), &packed);
    let place = |name: &str| directory.path().join(name);
    migrated(&registry.storage(), &place("linked"), &[]);
    migrated(&registry.storage(), &place("copied"), &["--link", "copy"]);
    migrated(&packed, &place("of-tar"), &[]);
    migrated(&registry.storage(), &place("a.tar"), &[]);
    migrated(&packed, &place("b.tar"), &[]);
    let linked = files_below(&place("linked"));
    assert!(files_below(&place("copied")) == linked && files_below(&place("of-tar")) == linked);
    assert!(fs::read(place("a.tar")).unwrap() == fs::read(place("b.tar")).unwrap());
    let place_of = |image: &str| format!("oci-archive:{}:localhost/{image}", place("a.tar").display());
    let nested = corpus
        .images
        .iter()
        .find(|image| {
            image.repository.contains('/')
                && image.tag.is_some()
                && image.media_type.starts_with("application/vnd.oci.")
        })
        .unwrap();
    assert_eq!(skopeo::digest(&place_of(&nested.name())), nested.digest());
    let unpacked = tempdir();
    assert!(
        Command::new("tar").arg("-C").arg(unpacked.path()).arg("-xf").arg(place("a.tar")).status().unwrap().success()
    );
    assert!(files_below(unpacked.path()) == linked);
    for (storage, out) in [(&packed, "hard"), (&registry.storage(), "hard.tar")] {
        let output = migrate(storage, &place(out), &["--link", "hard"]);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!place(out).exists());
    }
}

#[test]
fn later_changes_to_a_linked_bundle_never_change_the_storage() {
    let registry = Registry::start();
    let images: Vec<Image> = ["a", "b"].map(|name| images::oci(name, "1", &["base", name])).to_vec();
    images.iter().for_each(|image| image.push(&registry));
    let before = state(&registry.storage());
    let directory = tempdir();
    let out = directory.path().join("bundle");
    migrated(&registry.storage(), &out, &[]);
    let message = migrated(&registry.storage(), &out, &[]);
    assert!(message.contains("unchanged, 2 images"), "{message}");
    // Another selection, and then an export of something else, over the linked bundle.
    migrated(&registry.storage(), &out, &["--include", "^a:"]);
    assert_eq!(listed(&out), ["a:1"]);
    let reference = format!("{}/b:1", registry.host());
    gapferry().args(["export", &reference, "-o"]).arg(&out).assert().success();
    gapferry().arg("verify").arg(&out).assert().success();
    assert!(state(&registry.storage()) == before);
    // An unfinished bundle with a wrong linked blob, and one whose blob is a manifest in the next run.
    let partial = directory.path().join("again.partial/blobs/sha256");
    fs::create_dir_all(&partial).unwrap();
    let hex = |digest: String| digest.replace("sha256:", "");
    fs::hard_link(data(&registry, &layer(&images[0])), partial.join(hex(layer(&images[1])))).unwrap();
    fs::hard_link(data(&registry, &layer(&images[0])), partial.join(hex(images[1].digest()))).unwrap();
    migrated(&registry.storage(), &directory.path().join("again"), &[]);
    assert!(state(&registry.storage()) == before);
}

#[test]
fn a_damaged_blob_fails_only_its_images_and_is_reported_with_its_path() {
    let registry = Registry::start();
    let images =
        [images::oci("well", "1", &["well"]), images::oci("ill", "1", &["ill"]), images::oci("ill", "2", &["ill"])];
    images.iter().for_each(|image| image.push(&registry));
    let rotten = data(&registry, &layer(&images[1]));
    let mut bytes = fs::read(&rotten).unwrap();
    bytes[10] ^= 1;
    fs::write(&rotten, bytes).unwrap();
    let before = state(&registry.storage());
    let directory = tempdir();
    for name in ["bundle", "bundle.tar"] {
        let out = directory.path().join(name);
        let output = migrate(&registry.storage(), &out, &["--strict"]);
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        for again in ["written, 1 image, 2 failed", "unchanged, 1 image, 2 failed"] {
            let output = migrate(&registry.storage(), &out, &[]);
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{message}");
            for says in ["wrong digest", "affects ill:1, ill:2", again] {
                assert!(message.contains(says), "{says}\n{message}");
            }
            gapferry().arg("verify").arg(&out).assert().success();
            assert_eq!(listed(&out), ["well:1"]);
        }
    }
    assert!(state(&registry.storage()) == before);
    let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["bundle", "bundle.tar"], "no unfinished bundle is left");
    // Without any intact image, no bundle is written.
    let output = migrate(&registry.storage(), &directory.path().join("none"), &["--include", "^ill"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no image is whole"));
    assert!(!directory.path().join("none").exists());
}

#[test]
fn where_links_are_impossible_blobs_are_copied_with_one_notice() {
    let registry = Registry::start();
    for tag in ["1", "2", "3"] {
        images::oci("a", tag, &["base", tag]).push(&registry);
    }
    let Some(elsewhere) = elsewhere(&registry.storage()) else { return };
    let message = migrated(&registry.storage(), &elsewhere.path().join("bundle"), &[]);
    assert_eq!(message.matches("EXDEV").count(), 1, "{message}");
    assert!(message.contains("0 blobs linked"), "{message}");
    let output = migrate(&registry.storage(), &elsewhere.path().join("hard"), &["--link", "hard"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn linking_needs_no_space_where_a_copy_would_not_fit() {
    let Some(disk) = support::disk::Disk::of(9 * 1024) else { return };
    let storage = disk.path().join("storage");
    let registry = Registry::with(support::registry::Options { storage: Some(storage.clone()), ..Default::default() });
    images::oci("a", "1", &[&images::noise(1, 4 << 20)]).push(&registry);
    images::oci("a", "2", &[&images::noise(2, 3 << 20)]).push(&registry);
    let output = migrate(&storage, &disk.path().join("copied"), &["--link", "copy"]);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    migrated(&storage, &disk.path().join("linked"), &[]);
}

/// Harbor 2.15 and later.
#[test]
fn untagged_manifests_travel_by_digest() {
    let registry = Registry::start();
    let image = images::oci_index("a/b", "1", "index");
    image.push(&registry);
    fs::remove_dir_all(registry.storage().join("docker/registry/v2/repositories/a/b/_manifests/tags")).unwrap();
    let directory = tempdir();
    let out = directory.path().join("bundle");
    assert_eq!(migrate(&registry.storage(), &out, &[]).status.code(), Some(2));
    migrated(&registry.storage(), &out, &["--untagged"]);
    assert_eq!(listed(&out), [format!("a/b@{}", image.digest())]);
    let target = Registry::start();
    gapferry().arg("import").arg(&out).args(["--to", target.host()]).assert().success();
    assert_eq!(target.digest("a/b", &image.digest()), Some(image.digest()));
}

#[test]
fn neither_foreign_files_nor_the_storage_are_overwritten() {
    let registry = Registry::start();
    images::oci("a", "1", &["a"]).push(&registry);
    let directory = tempdir();
    fs::write(directory.path().join("letter.txt"), "dear reader").unwrap();
    let inside = registry.storage().join("docker/registry/v2/bundle");
    for out in [directory.path(), &inside] {
        let output = migrate(&registry.storage(), out, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!inside.exists());
    assert_eq!(files_below(directory.path()).len(), 1);
}

/// The medium would cross the gap and be refused there.
#[test]
fn a_bundle_is_reported_as_signed_only_if_it_is() {
    let (registry, directory) = (Registry::start(), tempdir());
    images::oci("team/app", "1", &["first"]).push(&registry);
    let key = Key::new(directory.path(), "key", Kind::Ed25519);
    let (out, sign) = (directory.path().join("b"), ["--sign-key", key.private.to_str().unwrap()]);
    assert!(migrated(&registry.storage(), &out, &sign).contains("signed by"));
    images::oci("team/app", "1", &["second"]).push(&registry);
    let message = migrated(&registry.storage(), &out, &[]);
    assert!(message.contains("the replaced bundle was signed, and this one is not"), "{message}");
    let other = Key::new(directory.path(), "other", Kind::Ed25519);
    gapferry().arg("sign").arg(&out).arg("--key").arg(&other.private).assert().success();
    take_all_signatures(&out);
    let output = migrate(&registry.storage(), &out, &sign);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("SHA256SUMS already has 16 signatures") && !message.contains("signed by"), "{message}");
}
