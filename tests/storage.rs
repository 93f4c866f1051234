//! The storage directory of a real registry, read while it runs, from the directory and from a tar of it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gapferry::content::{Origin, Source};
use gapferry::oci::{Digest, Manifest, Repository};
use gapferry::transport::storage::Storage;
use support::images::{self, Corpus, Image};
use support::registry::Registry;
use support::{gapferry, sha256, tempdir};

/// A tar of what is in `directory`, by the tar everybody has.
fn packed(directory: &Path, name: &str, into: &Path) -> PathBuf {
    let tar = into.join("storage.tar");
    let status = Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(&tar).arg(name).status().unwrap();
    assert!(status.success());
    tar
}

/// What the registry itself says of every tag.
fn tags_of(registry: &Registry, corpus: &Corpus) -> BTreeMap<String, String> {
    let tagged = corpus.images.iter().filter(|image| image.tag.is_some());
    tagged
        .map(|image| (image.name(), registry.digest(&image.repository, image.tag.as_deref().unwrap()).unwrap()))
        .collect()
}

#[tokio::test]
async fn every_tag_is_found_with_its_digest_and_every_byte_below_it() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let said = tags_of(&registry, &corpus);
    let directory = tempdir();
    let tar = packed(&registry.storage(), ".", directory.path());
    let inner = registry.storage().join("docker/registry");
    for place in [registry.storage(), inner.join("v2"), tar] {
        let storage = Storage::open(&place, "old.example").unwrap();
        let survey = storage.survey().unwrap();
        assert_eq!(survey.faults, [], "{}", place.display());
        let found: BTreeMap<String, String> = survey
            .tags
            .iter()
            .map(|found| (format!("{}:{}", found.repository.path(), found.tag), found.digest.to_string()))
            .collect();
        assert_eq!(found, said, "{}", place.display());
        for found in &survey.tags {
            read_all(&storage, &found.repository, found.digest).await;
        }
    }
}

/// The manifest, its children and blobs, all proven; foreign layers are not there.
async fn read_all(storage: &Storage, repository: &Repository, digest: Digest) {
    let mut ahead = vec![digest];
    while let Some(digest) = ahead.pop() {
        let manifest: Manifest = storage.manifest(&repository.with_digest(digest)).await.unwrap().expect("a manifest");
        for child in manifest.children() {
            match child.role {
                gapferry::oci::Role::Manifest => ahead.push(child.descriptor.digest),
                _ if child.descriptor.media_type.contains("foreign") || !child.descriptor.urls.is_empty() => {}
                _ => {
                    let origin = Origin { source: storage, repository };
                    let mut reader = origin.open(&child.descriptor).await.unwrap();
                    while let Some(piece) = futures_util::StreamExt::next(&mut reader).await {
                        piece.unwrap();
                    }
                }
            }
        }
    }
}

/// The list as JSON, with the whole of standard output below it.
fn list(storage: &Path) -> serde_json::Value {
    let output = gapferry().arg("migrate").arg(storage).args(["--list", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is wrong with `name`; `None` when it is listed as whole.
fn wrong_with(listed: &serde_json::Value, name: &str) -> Option<String> {
    let of_image = listed["images"].as_array().unwrap().iter().find(|image| image["name"] == name);
    if let Some(image) = of_image {
        return (image["state"] != "ok").then(|| image["fault"].as_str().unwrap().to_owned());
    }
    let faults = listed["faults"].as_array().unwrap().iter();
    let of_tag = faults.clone().find(|fault| fault["image"] == name);
    Some(of_tag.unwrap_or_else(|| panic!("nothing is said of {name}: {listed:#}"))["what"].as_str().unwrap().to_owned())
}

/// Something that happens to the storage of an image, and what has to be said of it.
type Accident = (&'static str, fn(&Path, &Image), &'static str);

fn link(root: &Path, image: &Image) -> PathBuf {
    let tag = image.tag.as_deref().unwrap();
    root.join(format!("repositories/{}/_manifests/tags/{tag}/current/link", image.repository))
}

fn revision(root: &Path, image: &Image) -> PathBuf {
    let hex = image.digest().replace("sha256:", "");
    root.join(format!("repositories/{}/_manifests/revisions/sha256/{hex}/link", image.repository))
}

fn data(root: &Path, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    root.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]))
}

fn layer(root: &Path, image: &Image) -> PathBuf {
    data(root, &sha256(image.blobs.last().unwrap()))
}

const ACCIDENTS: [Accident; 12] = [
    ("empty", |root, image| fs::write(link(root, image), "").unwrap(), "the link is empty"),
    ("newline", |root, image| fs::write(link(root, image), image.digest() + "\n").unwrap(), "holds no digest"),
    ("outside", |root, image| fs::write(link(root, image), "../../../../etc/passwd").unwrap(), "holds no digest"),
    ("no-link", |root, image| fs::remove_file(link(root, image)).unwrap(), "has no current/link"),
    ("no-revision", |root, image| fs::remove_file(revision(root, image)).unwrap(), "the tag means sha256:"),
    ("no-manifest", |root, image| fs::remove_file(data(root, &image.digest())).unwrap(), "is missing"),
    ("rotten", |root, image| fs::write(data(root, &image.digest()), "{}").unwrap(), "reading"),
    ("no-layer", |root, image| fs::remove_file(layer(root, image)).unwrap(), "is missing"),
    ("short", |root, image| fs::write(layer(root, image), "x").unwrap(), "1 bytes instead of"),
    (
        "directory",
        |root, image| {
            fs::remove_file(layer(root, image)).unwrap();
            fs::create_dir(layer(root, image)).unwrap();
        },
        "it is a directory",
    ),
    (
        "symlink",
        |root, image| {
            let kept = root.join("kept");
            fs::rename(layer(root, image), &kept).unwrap();
            std::os::unix::fs::symlink(kept, layer(root, image)).unwrap();
        },
        "symbolic link",
    ),
    (
        "symlinked-directory",
        |root, image| {
            let directory = layer(root, image).parent().unwrap().to_owned();
            let kept = root.join("kept-directory");
            fs::rename(&directory, &kept).unwrap();
            std::os::unix::fs::symlink(kept, directory).unwrap();
        },
        "symbolic link",
    ),
];

#[test]
fn each_accident_costs_its_own_image_and_is_told_with_its_reason() {
    let registry = Registry::start();
    let healthy = images::oci("well", "1.0", &["untouched"]);
    healthy.push(&registry);
    let victims: Vec<Image> = ACCIDENTS.iter().map(|(name, ..)| images::oci(name, "1.0", &[name])).collect();
    victims.iter().for_each(|image| image.push(&registry));
    let root = registry.storage().join("docker/registry/v2");
    for ((_, befall, _), image) in ACCIDENTS.iter().zip(&victims) {
        befall(&root, image);
    }
    let listed = list(&registry.storage());
    for ((name, _, says), image) in ACCIDENTS.iter().zip(&victims) {
        let wrong = wrong_with(&listed, &image.name()).unwrap_or_else(|| panic!("{name} is called whole"));
        assert!(wrong.contains(says), "{name}: {wrong}");
    }
    assert_eq!(wrong_with(&listed, &healthy.name()), None);
}

#[test]
fn the_list_says_what_images_share_and_for_which_platforms_they_are() {
    let registry = Registry::start();
    for image in [
        images::oci("a", "one", &["base", "first"]),
        images::oci("a/b", "two", &["base", "second"]),
        images::oci_index("index", "1.0", "index"),
    ] {
        image.push(&registry);
    }
    let output = gapferry().arg("migrate").arg(registry.storage()).arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("3 images in 3 repositories"), "{text}");
    assert!(text.contains("nothing wrong"), "{text}");
    assert!(
        text.lines().any(|line| line.starts_with("index:1.0") && line.contains("linux/amd64,linux/arm64")),
        "{text}"
    );
    let listed = list(&registry.storage());
    let shared = |at: usize| listed["images"][at]["shared"].as_u64().unwrap();
    assert!(shared(0) > 0 && shared(0) == shared(1), "{listed:#}");
    assert_eq!(shared(2), 0);
    assert!(listed["images"][0]["size"].as_u64().unwrap() > shared(0));
}
