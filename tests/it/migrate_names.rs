//! The selection and naming of images in `migrate`: allowlists, and tags from elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support;
use crate::support::images::{self, Image};
use crate::support::registry::{Options, Registry};
use crate::support::storage::data;
use crate::support::{cosign, files_below, gapferry, sha256, tempdir};

/// The exit code and the messages.
fn run(storage: &Path, options: &[&str]) -> (Option<i32>, String) {
    let output = gapferry().arg("migrate").arg(storage).args(options).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Names and states from `--list`.
fn listed(storage: &Path, options: &[&str]) -> Vec<(String, String)> {
    let output = gapferry().arg("migrate").arg(storage).args(["--list", "--json"]).args(options).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let images = report["images"].as_array().unwrap().iter();
    let text = |image: &Value, key: &str| image[key].as_str().unwrap().to_owned();
    images.map(|image| (text(image, "name"), text(image, "state"))).collect()
}

fn names(storage: &Path, options: &[&str]) -> Vec<String> {
    listed(storage, options).into_iter().map(|(name, _)| name).collect()
}

fn push(registry: &Registry, names: &[(&str, &str)]) -> Vec<Image> {
    let image = |(name, tag): &(&str, &str)| images::oci(name, tag, &[name, tag]);
    let images: Vec<Image> = names.iter().map(image).collect();
    images.iter().for_each(|image| image.push(registry));
    images
}

/// Removes the tags, as Harbor 2.15 and later leave the storage.
fn remove_tags(registry: &Registry, images: &[Image]) {
    for image in images {
        let repository = registry.storage().join("docker/registry/v2/repositories").join(&image.repository);
        let _ = fs::remove_dir_all(repository.join("_manifests/tags"));
    }
}

#[test]
fn an_allowlist_selects_images_whatever_registry_it_names() {
    let registry = Registry::start();
    let all = [
        ("nginx", "1"),
        ("library/redis", "1"),
        ("team/app", "1"),
        ("team/app", "2"),
        ("team/other", "v1.0"),
        ("quay.io/org/tool", "1"),
        ("org/tool", "1"),
        ("unwanted", "1"),
    ];
    let images = push(&registry, &all);
    let directory = tempdir();
    let list = directory.path().join("images");
    let wanted = |text: &str| {
        fs::write(&list, text).unwrap();
        names(&registry.storage(), &["-f", list.to_str().unwrap()])
    };
    assert_eq!(wanted("nginx:1\nredis\n"), ["library/redis:1", "nginx:1"]);
    assert_eq!(wanted("team/app:1\n"), ["team/app:1"]);
    assert_eq!(wanted("registry.old:5000/team/app\n"), ["team/app:1", "team/app:2"]);
    assert_eq!(wanted("quay.io/org/tool:1\n"), ["quay.io/org/tool:1"], "the literal name takes precedence");
    assert_eq!(wanted(&format!("team/other@{}\n", images[4].digest())), ["team/other:v1.0"]);
    assert_eq!(wanted("images: [{ref: 'org/tool:1'}]\n"), ["org/tool:1"]);
    let skopeo = "registry.old:\n  images: {team/app: ['2']}\n  images-by-tag-regex: {team/other: '^v'}\n";
    assert_eq!(wanted(skopeo), ["team/app:2", "team/other:v1.0"]);
    fs::write(&list, "team/app\nteam/other\n").unwrap();
    let both = ["-f", list.to_str().unwrap(), "--exclude", ":2$"];
    assert_eq!(names(&registry.storage(), &both), ["team/app:1", "team/other:v1.0"]);
}

/// An excluded image must not enter under another name, and an unrequested one must not fail the run.
#[test]
fn without_tags_only_requested_images_are_taken_and_can_fail() {
    let registry = Registry::start();
    let all = [("team/app", "1"), ("team/app", "old"), ("team/app", "none"), ("other/x", "none")];
    let images = push(&registry, &all);
    let index = images::oci_index("team/multi", "1", "index");
    index.push(&registry);
    for image in &images[2..] {
        let repository = registry.storage().join("docker/registry/v2/repositories").join(&image.repository);
        fs::remove_dir_all(repository.join("_manifests/tags/none")).unwrap();
    }
    fs::remove_file(data(&registry.storage(), &sha256(&images[3].blobs[1]))).unwrap();
    let by_digest = |image: &Image| format!("{}@{}", image.repository, image.digest());
    let directory = tempdir();
    let list = directory.path().join("images");
    fs::write(&list, format!("{}\n{}\n", by_digest(&index.children[0]), by_digest(&images[2]))).unwrap();
    let check = |options: &[&str], wanted: &[&str]| {
        let mut found = names(&registry.storage(), options);
        found.sort();
        assert_eq!(found, wanted);
        let to = directory.path().join(wanted.len().to_string());
        let (code, message) = run(&registry.storage(), &[options, &["--to-dir", to.to_str().unwrap()]].concat());
        assert_eq!(code, Some(0), "{message}");
    };
    let (none, child) = (by_digest(&images[2]), by_digest(&index.children[0]));
    let options = ["--untagged", "--include", "^team/", "--exclude", ":old$"];
    check(&options, &["team/app:1", &none, "team/multi:1"]);
    // A platform of an index can be named like any other manifest.
    check(&["-f", list.to_str().unwrap()], &[&none, &child]);
}

#[test]
fn an_entry_missing_from_the_storage_is_reported_with_its_line() {
    let (registry, target) = (Registry::start(), Registry::start());
    push(&registry, &[("team/app", "1"), ("team/left", "1")]);
    let directory = tempdir();
    let list = directory.path().join("images.txt");
    fs::write(&list, "team/app:1 as=new/app:7\nteam/app:9\nnobody/has\n").unwrap();
    let list = list.to_str().unwrap();
    let (code, message) = run(&registry.storage(), &["-f", list, "--to", target.host()]);
    assert_eq!(code, Some(1), "{message}");
    for says in ["images.txt:2: missing: team/app:9", "images.txt:3: missing: nobody/has", "1 image pushed, 2 failed"] {
        assert!(message.contains(says), "{says}\n{message}");
    }
    assert!(target.digest("new/app", "7").is_some(), "as= sets the name at the target");
    assert!(target.digest("team/left", "1").is_none());
    let to = directory.path().join("dir");
    let (code, message) = run(&registry.storage(), &["-f", list, "--to-dir", to.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{message}");
    assert!(to.join("team/app:1/version").exists() && !to.join("team/left:1").exists());
    fs::write(list, "team/app:1 platform=linux/amd64\nTEAM:1\n").unwrap();
    let (code, message) = run(&registry.storage(), &["-f", list, "--list"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("images.txt:2: "), "{message}");
    fs::write(list, "team/app:1 platform=linux/amd64\n").unwrap();
    let (_, message) = run(&registry.storage(), &["-f", list, "--list"]);
    assert!(message.contains("images.txt:1: platform="), "{message}");
}

#[test]
fn a_storage_without_tags_gets_them_from_a_file_or_harbors_answer() {
    let registry = Registry::start();
    let images = push(&registry, &[("team/app", "1"), ("team/b/c", "x"), ("team/unnamed", "1")]);
    let index = images::oci_index("team/index", "1.0", "index");
    index.push(&registry);
    let all: Vec<Image> = images.iter().chain([&index]).cloned().collect();
    remove_tags(&registry, &all);
    let (code, message) = run(&registry.storage(), &["--to", "127.0.0.1:1"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("--untagged") && message.contains("--tags-from"), "{message}");

    let directory = tempdir();
    let (lines, harbor) = (directory.path().join("tags.txt"), directory.path().join("artifacts.json"));
    let named: Vec<&Image> = [&images[0], &images[1], &index].to_vec();
    let line = |image: &&Image| format!("{} {}\n", image.name(), image.digest());
    fs::write(&lines, named.iter().map(line).collect::<String>()).unwrap();
    // The first page as Harbor 2.13 sends it, the second without the repository's name, as 2.0 to 2.11 do.
    let artifact = |image: &Image| {
        json!({"id": 7, "type": "IMAGE", "digest": image.digest(), "repository_name": image.repository,
               "size": 1, "tags": [{"id": 1, "name": image.tag, "immutable": false}], "references": null})
    };
    let mut nameless = artifact(&index);
    nameless.as_object_mut().unwrap().remove("repository_name");
    let untagged = json!({"digest": images[2].digest(), "repository_name": "team/unnamed", "tags": null});
    let pages = [json!([artifact(&images[0]), untagged, artifact(&images[1])]), json!([nameless])];
    fs::write(&harbor, format!("{:#}\n{}\n", pages[0], pages[1])).unwrap();

    let mut expected: Vec<String> = named.iter().map(|image| image.name()).collect();
    expected.sort();
    for file in [&lines, &harbor] {
        let target = Registry::start();
        let file = file.to_str().unwrap();
        assert_eq!(names(&registry.storage(), &["--tags-from", file]), expected, "{file}");
        let (code, message) = run(&registry.storage(), &["--tags-from", file, "--to", target.host()]);
        assert_eq!(code, Some(0), "{message}");
        for image in &named {
            let tag = image.tag.as_deref().unwrap();
            assert_eq!(target.digest(&image.repository, tag), Some(image.digest()), "{}", image.name());
        }
        assert_eq!(target.tags("team/unnamed"), Vec::<String>::new());
        assert!(message.contains("left behind: 1 manifest that no tag"), "{message}");
        let untagged = names(&registry.storage(), &["--tags-from", file, "--untagged"]);
        assert_eq!(
            untagged.len(),
            expected.len() + 1,
            "images with a given name have it, the others their digest: {untagged:?}"
        );
    }
}

#[test]
fn untagged_older_images_of_a_whole_repository_are_reported_as_left_behind() {
    let registry = Registry::start();
    push(&registry, &[("team/app", "1"), ("team/app", "2"), ("team/other", "1")]);
    ["team/app", "team/other"].iter().for_each(|name| images::oci(name, "1", &["newer"]).push(&registry));
    let message = |options: &[&str]| {
        let place = tempdir();
        run(&registry.storage(), &[options, &["--to-bundle", place.path().join("b").to_str().unwrap()]].concat()).1
    };
    let left = "left behind: 1 manifest that no tag leads to";
    assert!(message(&[]).contains("left behind: 2 manifests"));
    assert!(message(&["--include", "^team/app:"]).contains(left));
    // Selecting one tag among several does not ask for untagged images.
    assert!(!message(&["--include", "^team/app:1$"]).contains("left behind"));
    assert!(!message(&["--include", "^team/app:", "--untagged"]).contains("left behind"));
}

/// Writes the images selected by `options` as a bundle and as a storage; returns a registry for each.
fn carried(storage: &Path, options: &[&str], directory: &Path) -> [(&'static str, PathBuf, Registry); 2] {
    ["--to-bundle", "--to-storage"].map(|way| {
        let to = directory.join(way);
        let (code, message) = run(storage, &[options, &[way, to.to_str().unwrap()]].concat());
        assert_eq!(code, Some(0), "{way} {options:?}: {message}");
        let arrived = match way {
            "--to-bundle" => Registry::start(),
            _ => Registry::with(Options { storage: Some(to.clone()), ..Options::default() }),
        };
        if way == "--to-bundle" {
            gapferry().arg("import").arg(&to).args(["--to", arrived.host()]).assert().success();
        }
        (way, to, arrived)
    })
}

/// Digests of its manifest and blobs.
fn content(image: &Image) -> Vec<String> {
    let mut content = image.blob_digests();
    content.push(image.digest());
    content
}

#[test]
fn bundle_and_storage_contain_the_selected_images_and_no_other_blob() {
    let registry = Registry::start();
    let all = [("team/app", "1"), ("team/app", "2"), ("team/other", "1"), ("new", "1")];
    let images = push(&registry, &all);
    let directory = tempdir();
    let list = directory.path().join("images");
    fs::write(&list, "registry.old:5000/team/app\nnew:1\n").unwrap();
    let list = list.to_str().unwrap();
    let choices: [(&[&str], &[usize]); 4] = [
        (&["-f", list], &[0, 1, 3]),
        (&["--include", "^team/"], &[0, 1, 2]),
        (&["--exclude", ":1$"], &[1]),
        (&["-f", list, "--include", "^team/", "--exclude", ":2$"], &[0]),
    ];
    for (options, wanted) in choices {
        let place = tempdir();
        for (way, to, arrived) in carried(&registry.storage(), options, place.path()) {
            let files: Vec<String> = files_below(&to).into_iter().map(|(path, _)| path).collect();
            for (at, image) in images.iter().enumerate() {
                let is_wanted = wanted.contains(&at);
                let there = arrived.digest(&image.repository, image.tag.as_deref().unwrap());
                assert_eq!(there, is_wanted.then(|| image.digest()), "{way} {options:?} {}", image.name());
                for digest in content(image) {
                    let has = files.iter().any(|path| path.contains(&digest.replace("sha256:", "")));
                    let is_needed = wanted.iter().any(|at| content(&images[*at]).contains(&digest));
                    assert_eq!(has, is_needed, "{way} {options:?}: {digest} of {}", image.name());
                }
            }
        }
    }
}

#[test]
fn tags_from_a_file_become_the_names_in_a_bundle_and_a_storage() {
    let registry = Registry::start();
    let images = push(&registry, &[("team/app", "1"), ("team/b/c", "x"), ("team/unnamed", "1")]);
    remove_tags(&registry, &images);
    let directory = tempdir();
    let file = directory.path().join("tags.txt");
    let lines = [("team/app:new", 0), ("team/app:newer", 0), ("team/b/c:x", 1)];
    let line = |(name, at): &(&str, usize)| format!("{name} {}\n", images[*at].digest());
    fs::write(&file, lines.iter().map(line).collect::<String>()).unwrap();
    let options = ["--tags-from", file.to_str().unwrap()];
    for (way, _, arrived) in carried(&registry.storage(), &options, directory.path()) {
        for (name, at) in lines {
            let (repository, tag) = name.split_once(':').unwrap();
            assert_eq!(arrived.digest(repository, tag), Some(images[at].digest()), "{way} {name}");
        }
        let mut tags = arrived.tags("team/app");
        tags.sort();
        assert_eq!(tags, ["new", "newer"], "{way}");
        assert_eq!(arrived.digest("team/unnamed", &images[2].digest()), None, "{way}");
    }
}

#[test]
fn a_given_tag_overrides_the_storages_and_a_dangling_one_fails_alone() {
    let (registry, target) = (Registry::start(), Registry::start());
    let images = push(&registry, &[("team/app", "1"), ("team/app", "2")]);
    let directory = tempdir();
    let file = directory.path().join("tags");
    let nowhere = support::sha256(b"nothing");
    let given = [
        format!("team/app:1 {}", images[1].digest()),
        format!("team/app:gone {nowhere}"),
        format!("nobody/here:1 {nowhere}"),
    ];
    fs::write(&file, given.join("\n")).unwrap();
    let (code, message) = run(&registry.storage(), &["--tags-from", file.to_str().unwrap(), "--to", target.host()]);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("affects team/app:gone") && message.contains("affects nobody/here:1"), "{message}");
    assert!(message.contains("2 images pushed, 2 failed"), "{message}");
    assert_eq!(target.digest("team/app", "1"), Some(images[1].digest()));
    assert_eq!(target.digest("team/app", "2"), Some(images[1].digest()));
}

#[test]
fn every_error_in_a_tags_file_is_reported_with_its_line() {
    let registry = Registry::start();
    let images = push(&registry, &[("team/app", "1")]);
    images[0].named("team/copy", "1").push(&registry);
    let directory = tempdir();
    let file = directory.path().join("tags");
    fs::write(&file, format!("team/app:1\nteam/app {}\nteam/app:1 sha256:1\n", images[0].digest())).unwrap();
    let (code, message) = run(&registry.storage(), &["--tags-from", file.to_str().unwrap(), "--list"]);
    assert_eq!(code, Some(2));
    assert!(["tags:1: ", "tags:2: ", "tags:3: "].iter().all(|at| message.contains(at)), "{message}");
    let ambiguous = json!([{"digest": images[0].digest(), "tags": [{"name": "1"}]}]);
    fs::write(&file, ambiguous.to_string()).unwrap();
    let (code, message) = run(&registry.storage(), &["--tags-from", file.to_str().unwrap(), "--list"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("team/app") && message.contains("team/copy"), "{message}");
}

/// Otherwise the later of the two digests would get the tag.
#[test]
fn a_tag_with_two_digests_is_refused_in_a_file_without_repositories() {
    let registry = Registry::start();
    let images = push(&registry, &[("team/app", "1"), ("team/app", "2")]);
    let directory = tempdir();
    let file = directory.path().join("tags");
    let artifact = |image: &Image| json!({"digest": image.digest(), "tags": [{"name": "stable"}]});
    fs::write(&file, json!([artifact(&images[0]), artifact(&images[1])]).to_string()).unwrap();
    let (code, message) = run(&registry.storage(), &["--tags-from", file.to_str().unwrap(), "--list"]);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("team/app:stable is already given at "), "{message}");
}

/// Harbor's API lists the signatures of an index, but not those of its children.
#[test]
fn signatures_of_an_indexs_children_are_found_by_their_subjects() {
    let registry = Registry::start();
    let index = images::oci_index("team/index", "1", "index");
    let child = &index.children[0];
    let first = cosign::signature(child, "vendor");
    let both = cosign::list(child, "sig", &[first.clone(), cosign::signature(child, "second key")]);
    // The tag's earlier list, and a signature of a missing subject.
    let former = cosign::list(child, "sig", &[first]);
    let elsewhere = images::oci("team/index", "x", &["elsewhere"]);
    let orphan = cosign::list(&elsewhere, "sig", &[cosign::signature(&elsewhere, "vendor")]);
    [&index, &former, &both, &orphan].iter().for_each(|image| image.push(&registry));
    remove_tags(&registry, std::slice::from_ref(&index));
    let directory = tempdir();
    let file = directory.path().join("artifacts.json");
    let artifact = json!({"digest": index.digest(), "repository_name": "team/index", "tags": [{"name": "1"}]});
    fs::write(&file, json!([artifact]).to_string()).unwrap();
    let from = ["--tags-from", file.to_str().unwrap()];
    let target = Registry::start();
    let (code, message) = run(&registry.storage(), &[&from[..], &["--to", target.host()]].concat());
    assert_eq!(code, Some(0), "{message}");
    assert_eq!(target.digest("team/index", both.tag.as_deref().unwrap()), Some(both.digest()), "{message}");
    assert_eq!(target.digest("team/index", orphan.tag.as_deref().unwrap()), None);
    let found = format!("team/index:{}", both.tag.as_deref().unwrap());
    assert_eq!(names(&registry.storage(), &from), ["team/index:1", &*found]);
    let target = Registry::start();
    let (code, message) = run(&registry.storage(), &[&from[..], &["--no-referrers", "--to", target.host()]].concat());
    assert_eq!(code, Some(0), "{message}");
    assert_eq!(target.tags("team/index"), ["1"]);
}
