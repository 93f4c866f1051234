//! `migrate --to-storage`: a second storage, which a real registry serves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Output;

use crate::support::disk::Disk;
use crate::support::images::{self, Corpus, Image, noise};
use crate::support::ran::Ran;
use crate::support::registry::{Options, Registry};
use crate::support::storage::{self, data, elsewhere, layer, pack};
use crate::support::{files_below, gapferry, skopeo, tempdir};

fn migrate(storage: &Path, to: &Path, more: &[&str]) -> Output {
    storage::migrate(storage, "--to-storage", to, more)
}

#[track_caller]
fn migrated(storage: &Path, to: &Path, more: &[&str]) -> String {
    let message = storage::migrated(storage, "--to-storage", to, more);
    gapferry().arg("check").arg(to).assert().success();
    message
}

fn serve(storage: &Path) -> Registry {
    Registry::with(Options { storage: Some(storage.to_owned()), ..Options::default() })
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn a_registry_serves_every_image_from_the_second_storage() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let before = files_below(&registry.storage());
    let directory = tempdir();
    let to = directory.path().join("storage");
    let message = migrated(&registry.storage(), &to, &["--link", "hard"]);
    for says in ["0 B copied", "1. stop Harbor", "redis/dump.rdb", "10000:10000"] {
        assert!(message.contains(says), "{says}\n{message}");
    }
    let second = serve(&to);
    for image in corpus.images.iter().filter(|image| image.tag.is_some()) {
        let (name, tag) = (image.name(), image.tag.as_deref().unwrap());
        let place = format!("docker://{}/{name}", second.host());
        assert_eq!(skopeo::digest(&place), image.digest(), "{name}");
        assert!(second.tags(&image.repository).iter().any(|there| there == tag), "{name}");
        // skopeo 1.9 tries to convert an index of referrers; foreign layers are in no registry.
        if !tag.starts_with("sha256-") && image.repository != "team/windows" {
            let copy = directory.path().join("copies").join(name.replace(['/', ':'], "_"));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            skopeo::copy(&place, &format!("dir:{}", copy.display()));
        }
    }
    let catalog = |registry: &Registry| registry.request("GET", "/v2/_catalog").send().json()["repositories"].clone();
    assert_eq!(catalog(&second), catalog(&registry));
    // Changes to the second storage do not reach the first.
    images::oci("later", "1", &["later"]).push(&second);
    assert!(files_below(&registry.storage()) == before);
}

#[test]
fn a_rerun_resumes_and_rewrites_nothing() {
    let registry = Registry::start();
    let images: Vec<Image> = ["a", "a/b"].map(|name| images::oci(name, "1", &["base", name])).to_vec();
    images.iter().for_each(|image| image.push(&registry));
    let before = files_below(&registry.storage());
    let directory = tempdir();
    let to = directory.path().join("storage");
    migrated(&registry.storage(), &to, &["--include", "^a:1$"]);
    assert!(!to.join("docker/registry/v2/repositories/a/b").exists(), "only the selected images");
    migrated(&registry.storage(), &to, &[]);
    let whole = files_below(&to);
    // Leftovers of an interruption.
    let repository = to.join("docker/registry/v2/repositories/a");
    fs::remove_file(repository.join("_manifests/tags/1/current/link")).unwrap();
    let layers = repository.join("_layers/sha256");
    let link = fs::read_dir(&layers).unwrap().next().unwrap().unwrap().path().join("link");
    fs::write(&link, "sha256:").unwrap();
    fs::remove_file(data(&to, &layer(&images[1]))).unwrap();
    fs::write(data(&to, &layer(&images[1])), "cut").unwrap();
    fs::write(to.join(".gapferry-migrate/cut"), "cut").unwrap();
    migrated(&registry.storage(), &to, &[]);
    assert!(files_below(&to) == whole);
    assert!(files_below(&registry.storage()) == before);
}

#[test]
fn foreign_directories_and_other_tags_are_left_alone() {
    let registry = Registry::start();
    images::oci("a", "1", &["a"]).push(&registry);
    let directory = tempdir();
    let other = directory.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("letter.txt"), "dear reader").unwrap();
    let inside = registry.storage().join("docker/registry/v2/second");
    for to in [&other, &inside] {
        assert_eq!(migrate(&registry.storage(), to, &[]).status.code(), Some(2));
    }
    assert!(!inside.exists() && files_below(&other).len() == 1);
    let to = directory.path().join("storage");
    migrated(&registry.storage(), &to, &[]);
    images::oci("a", "1", &["another"]).push(&registry);
    images::oci("b", "1", &["b"]).push(&registry);
    let before = fs::read(to.join("docker/registry/v2/repositories/a/_manifests/tags/1/current/link")).unwrap();
    let output = migrate(&registry.storage(), &to, &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("image a:1: ") && message.contains("1 image, 1 failed"), "{message}");
    assert!(fs::read(to.join("docker/registry/v2/repositories/a/_manifests/tags/1/current/link")).unwrap() == before);
}

#[test]
fn only_intact_images_are_written_and_strict_writes_nothing() {
    let registry = Registry::start();
    let images = [images::oci("well", "1", &["well"]), images::oci("ill", "1", &["ill"])];
    images.iter().for_each(|image| image.push(&registry));
    let rotten = data(&registry.storage(), &layer(&images[1]));
    let mut bytes = fs::read(&rotten).unwrap();
    bytes[10] ^= 1;
    fs::write(&rotten, bytes).unwrap();
    let directory = tempdir();
    let to = directory.path().join("storage");
    let output = migrate(&registry.storage(), &to, &["--strict", "--check", "digest"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!to.exists());
    // A link is checked only by size, so the damage shows when every byte is read; a copy is always verified.
    for (to, more) in [("checked", &["--check", "digest"][..]), ("copied", &["--link", "copy"])] {
        let to = directory.path().join(to);
        let output = migrate(&registry.storage(), &to, more);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains("wrong digest") && message.contains("ill:1") && message.contains("1 image, 1 failed"),
            "{message}"
        );
        gapferry().arg("check").arg(&to).assert().success();
        assert!(!to.join("docker/registry/v2/repositories/ill").exists());
    }
}

#[test]
fn changing_the_owner_never_affects_the_first_storage() {
    let registry = Registry::start();
    let image = images::oci("a", "1", &["a"]);
    image.push(&registry);
    let directory = tempdir();
    if fs::metadata(directory.path()).unwrap().uid() != 0 {
        return; // only root gives files away
    }
    let to = directory.path().join("storage");
    let output = migrate(&registry.storage(), &to, &["--link", "hard", "--chown", "10000:10000"]);
    assert_eq!(output.status.code(), Some(2));
    // Even if an earlier run linked the files.
    migrated(&registry.storage(), &to, &[]);
    let (there, here) = (data(&registry.storage(), &layer(&image)), data(&to, &layer(&image)));
    assert_eq!(inode(&there), inode(&here));
    let message = migrated(&registry.storage(), &to, &["--chown", "10000:10001"]);
    assert!(message.contains("copied instead of hard-linked"), "{message}");
    for entry in walkdir::WalkDir::new(&to) {
        let entry = entry.unwrap();
        let file = entry.metadata().unwrap();
        assert_eq!((file.uid(), file.gid()), (10000, 10001), "{}", entry.path().display());
    }
    for entry in walkdir::WalkDir::new(registry.storage()) {
        assert_eq!(entry.unwrap().metadata().unwrap().uid(), 0);
    }
    assert_ne!(inode(&there), inode(&here));
}

#[test]
fn a_storage_on_another_file_system_or_in_a_tar_is_copied() {
    let registry = Registry::start();
    let image = images::oci_index("a/b", "1", "index");
    image.push(&registry);
    let directory = tempdir();
    let tar = directory.path().join("storage.tar");
    pack(&registry.storage(), &tar);
    let to = directory.path().join("of-tar");
    let message = migrated(&tar, &to, &[]);
    assert!(message.contains("0 blobs linked"), "{message}");
    let second = serve(&to);
    assert_eq!(second.digest("a/b", "1"), Some(image.digest()));
    let Some(elsewhere) = elsewhere(&registry.storage()) else { return };
    let message = migrated(&registry.storage(), &elsewhere.path().join("storage"), &[]);
    assert_eq!(message.matches("EXDEV").count(), 1, "{message}");
}

/// Otherwise thousands of images would each report the same.
#[test]
fn a_full_or_read_only_disk_is_reported_once_with_a_remedy_and_a_rerun_resumes() {
    let registry = Registry::start();
    let noises: Vec<String> = (0..8).map(|n| noise(n, 64 << 10)).collect();
    let corpus: Vec<Image> =
        noises.iter().enumerate().map(|(n, noise)| images::oci("a", &n.to_string(), &[noise])).collect();
    corpus.iter().for_each(|image| image.push(&registry));
    let faulty = images::oci("damaged", "1", &["damaged"]);
    faulty.push(&registry);
    fs::remove_file(data(&registry.storage(), &layer(&faulty))).unwrap();
    for (way, tags) in [("--to-dir", "a:"), ("--to-storage", "docker/registry/v2/repositories/a/_manifests/tags/")] {
        let Some(disk) = Disk::of(160) else { return };
        let to = disk.path().join("to");
        let run = || {
            let mut command = gapferry();
            Ran::of(command.arg("migrate").arg(registry.storage()).arg(way).arg(&to))
        };
        let full = run().ended(2).reported(&["hint: free some space", "affects damaged:1"]);
        assert_eq!(full.stderr.matches("No space left").count(), 1, "{way}: {}", full.stderr);
        assert!(!full.stderr.contains("What is left to do"), "{}", full.stderr);
        disk.resize(16 << 10);
        run().ended(1).reported(&["1 failed"]);
        for n in 0..corpus.len() {
            fs::remove_dir_all(to.join(format!("{tags}{n}"))).unwrap();
        }
        disk.make_read_only();
        let closed = run().ended(2).reported(&["hint: remount the file system read-write"]);
        assert_eq!(closed.stderr.matches("(os error 30)").count(), 1, "{way}: {}", closed.stderr);
    }
}

#[test]
fn without_any_intact_image_no_next_step_is_suggested() {
    let registry = Registry::start();
    let image = images::oci("a", "1", &["a"]);
    image.push(&registry);
    fs::remove_file(data(&registry.storage(), &layer(&image))).unwrap();
    // Adds tags whose number cannot be known.
    let hidden = registry.storage().join("docker/registry/v2/repositories/hidden/_manifests");
    fs::create_dir_all(&hidden).unwrap();
    fs::write(hidden.join("tags"), "").unwrap();
    let directory = tempdir();
    let mut command = gapferry();
    let to = directory.path().join("to");
    let ran = Ran::of(command.arg("migrate").arg(registry.storage()).arg("--to-storage").arg(to)).ended(1);
    assert!(ran.stderr.contains("0 images, 2 failed"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("What is left to do"), "{}", ran.stderr);
}
