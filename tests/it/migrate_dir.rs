//! `migrate --to-dir`: images in skopeo's directory form, linked to a real registry's storage.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support;
use crate::support::images::{self, Corpus, Image};
use crate::support::registry::Registry;
use crate::support::storage::{self, data, elsewhere, layer, pack};
use crate::support::{files_below, skopeo, tempdir};

fn migrate(storage: &Path, to: &Path, more: &[&str]) -> Output {
    storage::migrate(storage, "--to-dir", to, more)
}

#[track_caller]
fn migrated(storage: &Path, to: &Path, more: &[&str]) -> String {
    storage::migrated(storage, "--to-dir", to, more)
}

/// The image directories, by their paths below `to`.
fn found(to: &Path) -> Vec<String> {
    let files = files_below(to).into_iter();
    let mut names: Vec<String> =
        files.filter_map(|(path, _)| path.strip_suffix("/version").map(str::to_owned)).collect();
    names.sort();
    names
}

fn blob(to: &Path, image: &Image) -> PathBuf {
    let digest = support::sha256(image.blobs.last().unwrap());
    to.join(image.name()).join(digest.strip_prefix("sha256:").unwrap())
}

fn tagged(corpus: &Corpus) -> Vec<&Image> {
    corpus.images.iter().filter(|image| image.tag.is_some()).collect()
}

#[test]
fn skopeo_reads_every_image_with_the_digest_the_registry_had() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let directory = tempdir();
    let to = directory.path().join("images");
    let message = migrated(&registry.storage(), &to, &[]);
    let mut names: Vec<String> = tagged(&corpus).iter().map(|image| image.name()).collect();
    names.sort();
    assert_eq!(found(&to), names);
    assert!(message.contains(&format!("{} images written", names.len())) && !message.contains("copied"), "{message}");
    let target = Registry::start();
    for image in tagged(&corpus) {
        let place = format!("dir:{}", to.join(image.name()).display());
        assert_eq!(skopeo::digest(&place), image.digest(), "{}", image.name());
        // skopeo 1.9 tries to convert an index of referrers, whatever the destination.
        if image.tag.as_deref().is_some_and(|tag| tag.starts_with("sha256-")) {
            continue;
        }
        skopeo::copy(&place, &format!("docker://{}/{}", target.host(), image.name()));
        let tag = image.tag.as_deref().unwrap();
        assert_eq!(target.digest(&image.repository, tag), Some(image.digest()), "{}", image.name());
    }
}

#[test]
fn blobs_are_linked_to_the_storage_and_manifests_are_copied() {
    let registry = Registry::start();
    let image = images::oci_index("a/b/c", "1.0", "index");
    image.push(&registry);
    let before = files_below(&registry.storage());
    let directory = tempdir();
    migrated(&registry.storage(), directory.path(), &["--link", "hard"]);
    let place = directory.path().join("a/b/c:1.0");
    for entry in fs::read_dir(&place).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_own = name == "version" || name.ends_with("manifest.json");
        assert_eq!(entry.metadata().unwrap().nlink() == 1, is_own, "{name}");
    }
    assert_eq!(fs::read_to_string(place.join("version")).unwrap(), "Directory Transport Version: 1.1\n");
    assert!(files_below(&registry.storage()) == before, "the storage is only read");
}

#[test]
fn a_second_run_redoes_unfinished_images_without_writing_into_links() {
    let registry = Registry::start();
    let images = ["kept", "no-version", "no-blob", "short-blob", "no-manifest", "empty-version"];
    let images: Vec<Image> = images.iter().map(|name| images::oci(name, "1", &[name])).collect();
    images.iter().for_each(|image| image.push(&registry));
    let directory = tempdir();
    let to = directory.path();
    migrated(&registry.storage(), to, &[]);
    let (before, storage) = (files_below(to), files_below(&registry.storage()));
    fs::remove_file(to.join("no-version:1/version")).unwrap();
    fs::remove_file(blob(to, &images[2])).unwrap();
    fs::remove_file(blob(to, &images[3])).unwrap();
    fs::write(blob(to, &images[3]), "x").unwrap();
    fs::write(to.join("no-manifest:1/manifest.json"), "").unwrap();
    fs::write(to.join("empty-version:1/version"), "").unwrap();
    let message = migrated(&registry.storage(), to, &[]);
    assert!(message.contains("5 images written, 1 image already there"), "{message}");
    assert!(files_below(to) == before);
    assert!(files_below(&registry.storage()) == storage);
}

#[test]
fn a_foreign_file_is_not_overwritten_and_fails_only_its_image() {
    let registry = Registry::start();
    for name in ["well", "another", "files", "link", "inner/deep", "other-version"] {
        images::oci(name, "1", &[name]).push(&registry);
    }
    let (directory, outside) = (tempdir(), tempdir());
    let to = directory.path();
    let of_others = |path: &str, content: &str| {
        fs::create_dir_all(to.join(path).parent().unwrap()).unwrap();
        fs::write(to.join(path), content).unwrap();
    };
    of_others("another:1/manifest.json", "{}");
    of_others("another:1/version", "Directory Transport Version: 1.1\n");
    of_others("files:1/letter.txt", "dear reader");
    of_others("other-version:1/version", "3");
    std::os::unix::fs::symlink(outside.path(), to.join("link:1")).unwrap();
    std::os::unix::fs::symlink(outside.path(), to.join("inner")).unwrap();
    let before = files_below(to);
    let output = migrate(&registry.storage(), to, &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    for says in [
        "image another:1: ",
        "another image exists there",
        "something else exists there: \"letter.txt\"",
        "its version file is not that of a directory of skopeo",
        "image link:1: ",
        "image inner/deep:1: ",
        "1 image written, 5 failed",
    ] {
        assert!(message.contains(says), "{says}\n{message}");
    }
    assert_eq!(found(to), ["another:1", "other-version:1", "well:1"]);
    let after: Vec<_> = files_below(to).into_iter().filter(|(path, _)| !path.starts_with("well:1/")).collect();
    assert!(after == before);
    assert!(files_below(outside.path()).is_empty());
}

#[test]
fn a_damaged_image_is_reported_and_not_written_and_strict_writes_nothing() {
    let registry = Registry::start();
    let faulty = images::oci("damaged", "1", &["damaged"]);
    faulty.push(&registry);
    images::oci("well", "1", &["well"]).push(&registry);
    let data = data(&registry.storage(), &layer(&faulty));
    let mut bytes = fs::read(&data).unwrap();
    bytes[10] ^= 1;
    fs::write(&data, bytes).unwrap();
    let directory = tempdir();
    let to = directory.path().join("strict");
    let output = migrate(&registry.storage(), &to, &["--check", "digest", "--strict"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!to.exists());
    let to = directory.path().join("images");
    let output = migrate(&registry.storage(), &to, &["--check", "digest"]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("wrong digest") && message.contains("affects damaged:1"), "{message}");
    assert_eq!(found(&to), ["well:1"]);
}

#[test]
fn where_links_are_impossible_each_blob_is_copied_once_with_one_notice() {
    let registry = Registry::start();
    for tag in ["1", "2", "3"] {
        images::oci("a", tag, &["base", tag]).push(&registry);
    }
    let Some(elsewhere) = elsewhere(&registry.storage()) else { return };
    let message = migrated(&registry.storage(), elsewhere.path(), &[]);
    assert_eq!(message.matches("EXDEV").count(), 1, "{message}");
    let base = blob(elsewhere.path(), &images::oci("a", "1", &["base"]));
    assert_eq!(fs::metadata(base).unwrap().nlink(), 3);
    let output = migrate(&registry.storage(), &elsewhere.path().join("hard"), &["--link", "hard"]);
    assert_eq!(output.status.code(), Some(1));
}

/// ext4 allows 65,000 hard links per file; a base layer of a large registry needs more.
#[test]
fn a_blob_at_the_hard_link_limit_is_copied_once_with_one_notice() {
    let registry = Registry::start();
    let images = ["a", "b", "c"].map(|name| images::oci(name, "1", &[name, "shared"]));
    images.iter().for_each(|image| image.push(&registry));
    let (names, directory) = (tempdir(), tempdir());
    let shared = data(&registry.storage(), &layer(&images[0]));
    let full = (0..65_000).find_map(|name| fs::hard_link(&shared, names.path().join(name.to_string())).err());
    let Some(error) = full else {
        eprintln!("skipped: this file system allows more hard links than a test should make");
        return;
    };
    assert_eq!(error.kind(), std::io::ErrorKind::TooManyLinks);
    let message = migrated(&registry.storage(), directory.path(), &[]);
    assert_eq!(message.matches("(EMLINK)").count(), 1, "{message}");
    let inodes = images.each_ref().map(|image| fs::metadata(blob(directory.path(), image)).unwrap().ino());
    assert!(inodes[0] != fs::metadata(&shared).unwrap().ino() && inodes.iter().all(|inode| *inode == inodes[0]));
    for image in &images {
        assert_eq!(skopeo::digest(&format!("dir:{}", directory.path().join(image.name()).display())), image.digest());
        let own = support::sha256(&image.blobs[1]).replace("sha256:", "");
        assert!(
            fs::metadata(directory.path().join(image.name()).join(own)).unwrap().nlink() > 1,
            "the other blobs are links"
        );
    }
}

#[test]
fn a_tar_of_the_storage_gives_the_same_directories() {
    let registry = Registry::start();
    Corpus::everything().push(&registry);
    let directory = tempdir();
    let tar = directory.path().join("storage.tar");
    pack(&registry.storage(), &tar);
    let [linked, copied] = ["linked", "copied"].map(|name| directory.path().join(name));
    migrated(&registry.storage(), &linked, &[]);
    migrated(&tar, &copied, &[]);
    assert!(files_below(&linked) == files_below(&copied));
}

#[test]
fn images_are_never_written_into_the_storage_itself() {
    let registry = Registry::start();
    let (inside, outside) = (images::oci("st/docker/registry/v2/blobs/a", "1", &["a"]), images::oci("a", "1", &["a"]));
    [&inside, &outside].into_iter().for_each(|image| image.push(&registry));
    let directory = tempdir();
    let root = directory.path().join("st");
    assert!(Command::new("cp").arg("-a").arg(registry.storage()).arg(&root).status().unwrap().success());
    let before = files_below(&root.join("docker"));
    for place in [
        "",
        "docker",
        "docker/registry/v2/images/below",
        "none/../docker/registry/v2/images",
        "docker/registry/v2/x/../../../../y",
    ] {
        let output = migrate(&root, &root.join(place), &[]);
        assert_eq!(output.status.code(), Some(2), "{place}");
    }
    // Paths beside the storage are allowed, but not names that look like a path in it.
    let output = migrate(&root, directory.path(), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(directory.path().join("a:1/version").exists());
    assert!(files_below(&root.join("docker")) == before && !root.join("docker/registry/v2/x").exists());
}

/// Each run would take the other's unfinished files for leftovers.
#[test]
fn a_directory_another_run_is_writing_is_left_alone() {
    let registry = Registry::start();
    images::oci("a", "1", &["a"]).push(&registry);
    for option in ["--to-dir", "--to-storage"] {
        let directory = tempdir();
        let other = fs::File::open(directory.path()).unwrap();
        other.lock().unwrap();
        let output = storage::migrate(&registry.storage(), option, directory.path(), &[]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("another gapferry is writing it"), "{message}");
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
        drop(other);
        storage::migrated(&registry.storage(), option, directory.path(), &[]);
    }
}

#[test]
fn unnamable_images_make_the_run_fail() {
    let registry = Registry::start();
    [images::oci("a", "1", &["a"]), images::oci("b", "1", &["b"])].iter().for_each(|image| image.push(&registry));
    let directory = tempdir();
    let tar = directory.path().join("storage.tar");
    pack(&registry.storage(), &tar);
    fs::File::options()
        .write(true)
        .open(&tar)
        .unwrap()
        .set_len(fs::metadata(&tar).unwrap().len() / 2 / 512 * 512)
        .unwrap();
    let output = migrate(&tar, &directory.path().join("cut"), &[]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("cut short"), "{message}");
    assert_eq!(output.status.code(), Some(1), "{message}");
    let tags = registry.storage().join("docker/registry/v2/repositories/b/_manifests/tags");
    fs::rename(&tags, directory.path().join("tags")).unwrap();
    std::os::unix::fs::symlink(directory.path().join("tags"), &tags).unwrap();
    let to = directory.path().join("images");
    let output = migrate(&registry.storage(), &to, &[]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("b/_manifests/tags: wrong type of file") && message.contains("1 failed"), "{message}");
    assert_eq!(found(&to), ["a:1"]);
}

#[test]
fn only_images_matching_the_patterns_are_written() {
    let registry = Registry::start();
    for (name, tag) in [("team/a", "v1"), ("team/a", "v2-rc"), ("other/a", "v1")] {
        images::oci(name, tag, &[name, tag]).push(&registry);
    }
    let directory = tempdir();
    migrated(&registry.storage(), directory.path(), &["--include", "^team/", "--exclude", "-rc$"]);
    assert_eq!(found(directory.path()), ["team/a:v1"]);
    let output = migrate(&registry.storage(), directory.path(), &["--include", "^nobody/"]);
    assert_eq!(output.status.code(), Some(2), "a run without results must not look like success");
}

/// Harbor 2.15 and later.
#[test]
fn a_storage_without_tags_is_reported_and_gives_manifests_by_digest_on_request() {
    let registry = Registry::start();
    let images = [images::oci("a", "1", &["a"]), images::oci_index("a/b", "1", "index")];
    images.iter().for_each(|image| image.push(&registry));
    for image in &images {
        let repository = registry.storage().join("docker/registry/v2/repositories").join(&image.repository);
        fs::remove_dir_all(repository.join("_manifests/tags")).unwrap();
    }
    let directory = tempdir();
    let output = migrate(&registry.storage(), directory.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--untagged"));
    migrated(&registry.storage(), directory.path(), &["--untagged"]);
    let name = |image: &Image| format!("{}@{}", image.repository, image.digest());
    let mut names: Vec<String> = images.iter().map(name).collect();
    names.sort();
    assert_eq!(found(directory.path()), names, "a child of an index is not a separate image");
    for image in &images {
        let place = format!("dir:{}", directory.path().join(name(image)).display());
        assert_eq!(skopeo::digest(&place), image.digest());
    }
}
