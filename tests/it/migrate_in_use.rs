//! `migrate` from a storage in use: the registry takes pushes meanwhile, deletes, collects garbage, or has another
//! version.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::images::{self, Corpus, Image};
use crate::support::registry::{Options, Registry};
use crate::support::storage::{self, data, layer};
use crate::support::{files_below, gapferry, gapferry_process, skopeo, tempdir};

#[track_caller]
fn migrated(storage: &Path, to: &Path, code: i32) -> String {
    let output = storage::migrate(storage, "--to-dir", to, &[]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    message
}

/// Every image below `to` with the digest that skopeo finds there.
fn digests(to: &Path) -> BTreeMap<String, String> {
    let files = files_below(to).into_iter();
    let names = files.filter_map(|(path, _)| path.strip_suffix("/version").map(str::to_owned));
    names.map(|name| (name.clone(), skopeo::digest(&format!("dir:{}", to.join(name).display())))).collect()
}

/// Names and digests of `images`.
fn of<'a>(images: impl IntoIterator<Item = &'a Image>) -> BTreeMap<String, String> {
    images.into_iter().map(|image| (image.name(), image.digest())).collect()
}

fn delete(registry: &Registry, image: &Image) {
    registry.request("DELETE", &format!("/v2/{}/manifests/{}", image.repository, image.digest())).send().expect(202);
}

/// Collects garbage with the registry stopped; returns what is left.
fn collect_garbage(registry: Registry, storage: &Path, more: &[&str]) {
    drop(registry);
    let directory = tempdir();
    let configuration = directory.path().join("config.yml");
    let text =
        format!("version: 0.1\nstorage: {{filesystem: {{rootdirectory: {:?}}}, delete: {{enabled: true}}}}\n", storage);
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("docker-registry");
    let output = command.arg("garbage-collect").args(more).arg(&configuration).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Tells the pusher to stop, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn existing_images_are_written_complete_while_the_registry_takes_pushes() {
    let registry = Registry::start();
    let old: Vec<Image> = (0..10).map(|n| images::oci("old/a", &n.to_string(), &["base", &n.to_string()])).collect();
    old.iter().for_each(|image| image.push(&registry));
    let directory = tempdir();
    let is_over = AtomicBool::new(false);
    let (first, pushed) = std::sync::mpsc::channel();
    let (is_over, registry, old) = (&is_over, &registry, &old);
    std::thread::scope(|scope| {
        // The sender ends with the thread, so nothing waits for it afterwards.
        scope.spawn(move || {
            for round in 0.. {
                images::oci("new/a", "moving", &["base", &round.to_string()]).push(registry);
                // Rewrites the tag's link with its old content.
                old[0].push(registry);
                let _ = first.send(());
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let _over = Over(is_over);
        pushed.recv().unwrap();
        for round in 0..5 {
            let to = directory.path().join(round.to_string());
            migrated(&registry.storage(), &to, 0);
            let mut found = digests(&to);
            assert!(found.remove("new/a:moving").is_some());
            assert_eq!(found, of(old));
        }
    });
    // The registry did not notice the migration.
    let checked = gapferry().arg("check").arg(registry.storage()).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn after_deletion_and_garbage_collection_exactly_the_rest_is_written() {
    let kept = tempdir();
    let registry = Registry::with(Options { storage: Some(kept.path().to_owned()), ..Options::default() });
    let corpus = [
        images::oci("a", "1", &["base", "1"]),
        images::oci("a", "2", &["base", "2"]),
        images::oci("a/b", "1", &["deep"]),
        images::docker_list("list", "1", "list"),
    ];
    corpus.iter().for_each(|image| image.push(&registry));
    delete(&registry, &corpus[1]);
    delete(&registry, &corpus[2]);
    let left = of([&corpus[0], &corpus[3]]);
    let directory = tempdir();
    let [before, after] = ["before", "after"].map(|name| directory.path().join(name));
    migrated(kept.path(), &before, 0);
    assert_eq!(digests(&before), left, "deleted, not collected");
    collect_garbage(registry, kept.path(), &[]);
    migrated(kept.path(), &after, 0);
    assert_eq!(digests(&after), left);
    assert!(files_below(&before) == files_below(&after));
}

/// distribution 2.8 treats the children of tagged indexes as untagged manifests.
#[test]
fn an_index_with_garbage_collected_children_is_reported_and_fails_alone() {
    let kept = tempdir();
    let registry = Registry::with(Options { storage: Some(kept.path().to_owned()), ..Options::default() });
    let (single, index) = (images::oci("single", "1", &["single"]), images::oci_index("multi", "1", "index"));
    [&single, &index].into_iter().for_each(|image| image.push(&registry));
    collect_garbage(registry, kept.path(), &["--delete-untagged"]);
    let directory = tempdir();
    let message = migrated(kept.path(), directory.path(), 1);
    assert!(message.contains("missing child of an index") && message.contains("affects multi:1"), "{message}");
    assert_eq!(digests(directory.path()), of([&single]));
}

/// A manifest is read once, but its children must be in each repository.
#[test]
fn an_index_missing_a_child_in_one_repository_is_still_read_in_the_other() {
    let registry = Registry::start();
    let [lost, kept] = ["a", "b"].map(|name| images::oci_index(name, "1", "index"));
    [&lost, &kept].into_iter().for_each(|image| image.push(&registry));
    delete(&registry, &lost.children[1]);
    let cut_short = layer(&kept.children[1]);
    fs::write(data(&registry.storage(), &cut_short), "short").unwrap();
    let directory = tempdir();
    let message = migrated(&registry.storage(), directory.path(), 1);
    assert!(
        message.contains("affects a:1") && message.contains("wrong size") && message.contains("affects b:1"),
        "{message}"
    );
    assert_eq!(digests(directory.path()), of([]), "an image with a truncated layer is not written");
}

#[test]
fn a_distribution_3_storage_is_read_without_manifest_layer_links() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let directory = tempdir();
    let [two, three] = ["two", "three"].map(|name| directory.path().join(name));
    migrated(&registry.storage(), &two, 0);
    for image in &corpus.images {
        let repository = registry.storage().join("docker/registry/v2/repositories").join(&image.repository);
        // Layers of another algorithm are known only by their links.
        let _ = fs::remove_dir_all(repository.join("_layers/sha256"));
        let _ = fs::remove_dir(repository.join("_layers"));
    }
    migrated(&registry.storage(), &three, 0);
    assert!(files_below(&two) == files_below(&three));
}

#[test]
fn an_unreadable_file_is_reported_with_its_path_and_fails_only_its_image() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file to another user");
        return;
    }
    let registry = Registry::start();
    let corpus = ["well", "closed", "hidden"].map(|name| images::oci(name, "1", &[name]));
    corpus.iter().for_each(|image| image.push(&registry));
    let root = registry.storage();
    let layer = layer(&corpus[1]);
    let data = data(&root, &layer);
    let layer = layer.replace("sha256:", "");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o600)).unwrap();
    let tags = root.join("docker/registry/v2/repositories/hidden/_manifests/tags");
    fs::set_permissions(&tags, fs::Permissions::from_mode(0o700)).unwrap();
    for above in root.ancestors().filter(|above| above.starts_with(std::env::temp_dir())) {
        let mode = fs::metadata(above).unwrap().permissions().mode();
        if above != std::env::temp_dir() {
            fs::set_permissions(above, fs::Permissions::from_mode(mode | 0o055)).unwrap();
        }
    }
    // The program itself may be in a directory only root can read.
    let directory = tempdir();
    let program = directory.path().join("gapferry");
    fs::copy(gapferry_process().get_program(), &program).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let to = directory.path().join("images");
    let mut command = Command::new(&program);
    command.arg("migrate").arg(&root).arg("--to-dir").arg(&to).env_clear().uid(65534).gid(65534);
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains(&format!("{layer}/data: unreadable: ")) && message.contains("affects closed:1"),
        "{message}"
    );
    assert!(message.contains("repositories/hidden/_manifests/tags: unreadable: "), "{message}");
    assert_eq!(digests(&to), of([&corpus[0]]));
}

#[test]
fn skopeo_sync_pushes_every_image_with_its_digest() {
    let registry = Registry::start();
    let corpus = [
        images::oci("a", "1", &["base", "1"]),
        images::oci("a/b", "2", &["base", "2"]),
        images::oci_index("team/x/y", "3", "index"),
        images::docker_list("team/list", "4", "list"),
    ];
    corpus.iter().for_each(|image| image.push(&registry));
    let directory = tempdir();
    migrated(&registry.storage(), directory.path(), 0);
    let target = Registry::start();
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "sync", "--all", "--scoped", "--dest-tls-verify=false"]);
    command.args(["--src", "dir", "--dest", "docker", ".", target.host()]).current_dir(directory.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for image in &corpus {
        let tag = image.tag.as_deref().unwrap();
        assert_eq!(target.digest(&image.repository, tag), Some(image.digest()), "{}", image.name());
    }
}
