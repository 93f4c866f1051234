//! The storage directory of a running registry, read from the directory and from a tar of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gapferry::content::{Need, Origin, Source};
use gapferry::oci::{Digest, Manifest, Repository};
use gapferry::transport::storage::Storage;
use serde_json::json;

use crate::support;
use crate::support::images::{self, Corpus, Image};
use crate::support::registry::Registry;
use crate::support::{gapferry, sha256, tempdir};

/// A tar of the contents of `directory`, made by the system's tar.
fn packed(directory: &Path, name: &str, into: &Path) -> PathBuf {
    let tar = into.join("storage.tar");
    let status = Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(&tar).arg(name).status().unwrap();
    assert!(status.success());
    tar
}

/// The digest of every tag according to the registry itself.
fn tags_of(registry: &Registry, corpus: &Corpus) -> BTreeMap<String, String> {
    let tagged = corpus.images.iter().filter(|image| image.tag.is_some());
    tagged
        .map(|image| (image.name(), registry.digest(&image.repository, image.tag.as_deref().unwrap()).unwrap()))
        .collect()
}

#[tokio::test]
async fn every_tag_is_found_with_its_digest_and_all_its_content() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let report = tags_of(&registry, &corpus);
    let directory = tempdir();
    let tar = packed(&registry.storage(), ".", directory.path());
    let inner = registry.storage().join("docker/registry");
    for place in [registry.storage(), inner.join("v2"), tar] {
        let storage = Storage::open(&place, "old.example").unwrap();
        let survey = storage.survey().unwrap();
        assert_eq!(survey.problems, [], "{}", place.display());
        let found: BTreeMap<String, String> =
            survey.tags.iter().map(|found| (found.name(), found.digest.to_string())).collect();
        assert_eq!(found, report, "{}", place.display());
        for found in &survey.tags {
            read_all(&storage, &found.repository, found.digest).await;
        }
    }
}

/// Reads and verifies the manifest, its children and blobs; foreign layers are absent.
async fn read_all(storage: &Storage, repository: &Repository, digest: Digest) {
    let mut ahead = vec![digest];
    while let Some(digest) = ahead.pop() {
        let manifest: Manifest =
            storage.manifest(&repository.with_digest(digest), Need::Required).await.unwrap().expect("a manifest");
        for child in manifest.children() {
            match child.role {
                gapferry::oci::Role::Manifest => ahead.push(child.descriptor.digest),
                _ if child.descriptor.media_type.contains("foreign") || !child.descriptor.urls().is_empty() => {}
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

/// A command's JSON report about a storage, which must be all of standard output, and its exit code.
fn report(arguments: &[&str], storage: &Path) -> (serde_json::Value, i32) {
    let output = gapferry().args(arguments).arg(storage).arg("--json").output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))), output.status.code().unwrap())
}

fn list(storage: &Path) -> serde_json::Value {
    let (report, code) = report(&["migrate", "--list"], storage);
    assert_eq!(code, 0);
    report
}

/// The problems of `name` as `path: kind: what`; empty if there are none.
fn wrong_with(report: &serde_json::Value, name: &str) -> Vec<String> {
    let faults = report["problems"].as_array().unwrap().iter();
    let of_image = faults.filter(|fault| fault["images"].as_array().unwrap().iter().any(|image| image == name));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    of_image.map(|f| format!("{}: {}: {}", text(&f["path"]), text(&f["code"]), text(&f["found"]))).collect()
}

/// Damage to an image's storage, and the expected message.
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

/// The path of a layer's link in the registry's storage.
fn layer_link(root: &Path, image: &Image) -> PathBuf {
    let hex = sha256(image.blobs.last().unwrap()).replace("sha256:", "");
    root.join(format!("repositories/{}/_layers/sha256/{hex}/link", image.repository))
}

fn behind_a_link(path: PathBuf, root: &Path) {
    let kept = root.parent().unwrap().join(sha256(path.as_os_str().as_encoded_bytes()));
    fs::rename(&path, &kept).unwrap();
    std::os::unix::fs::symlink(kept, path).unwrap();
}

/// Damage that affects an image and shows even if only sizes are checked.
const ACCIDENTS: [Accident; 18] = [
    ("empty", |root, image| fs::write(link(root, image), "").unwrap(), "current/link: bad-link: the link is empty"),
    (
        "newline",
        |root, image| fs::write(link(root, image), image.digest() + "\n").unwrap(),
        "bad-link: the link contains \"sha256:",
    ),
    (
        "outside",
        |root, image| fs::write(link(root, image), "../../../../etc/passwd").unwrap(),
        "the link contains \"../../../../etc/passwd\" instead of a digest",
    ),
    (
        "long",
        |root, image| fs::write(link(root, image), "x".repeat(100_000)).unwrap(),
        "the link is longer than any digest",
    ),
    ("no-link", |root, image| fs::remove_file(link(root, image)).unwrap(), "tag-without-link: "),
    (
        "no-revision",
        |root, image| fs::remove_file(revision(root, image)).unwrap(),
        "link: missing: a tag refers to sha256:",
    ),
    ("empty-revision", |root, image| fs::write(revision(root, image), "").unwrap(), "bad-link: the link is empty"),
    ("other-revision", |root, image| fs::write(revision(root, image), sha256(b"")).unwrap(), "contains another digest"),
    ("no-manifest", |root, image| fs::remove_file(data(root, &image.digest())).unwrap(), "data: missing: "),
    ("rotten", |root, image| fs::write(data(root, &image.digest()), "{}").unwrap(), "data: wrong-digest: "),
    ("no-layer", |root, image| fs::remove_file(layer(root, image)).unwrap(), "data: missing: "),
    ("no-config", |root, image| fs::remove_file(data(root, &sha256(&image.blobs[0]))).unwrap(), "data: missing: "),
    ("short", |root, image| fs::write(layer(root, image), "x").unwrap(), "data: wrong-size: 1 bytes instead of"),
    ("nothing", |root, image| fs::write(layer(root, image), "").unwrap(), "data: wrong-size: 0 bytes instead of"),
    (
        "directory",
        |root, image| {
            fs::remove_file(layer(root, image)).unwrap();
            fs::create_dir(layer(root, image)).unwrap();
        },
        "data: wrong-type: it is a directory",
    ),
    ("symlink", |root, image| behind_a_link(layer(root, image), root), "data: wrong-type: "),
    ("tag-is-a-link", |root, image| behind_a_link(link(root, image), root), "link: wrong-type: "),
    (
        "child-collected",
        |root, image| {
            // The state after `registry garbage-collect --delete-untagged`.
            let hex = image.children[0].digest().replace("sha256:", "");
            let revision = format!("repositories/{}/_manifests/revisions/sha256/{hex}", image.repository);
            fs::remove_dir_all(root.join(revision)).unwrap();
            fs::remove_dir_all(data(root, &image.children[0].digest()).parent().unwrap()).unwrap();
        },
        "link: missing-child: the index sha256:",
    ),
];

/// Damage that only `check` finds.
const HIDDEN: [Accident; 3] = [
    (
        "flipped",
        |root, image| {
            let mut bytes = fs::read(layer(root, image)).unwrap();
            bytes[10] ^= 1;
            fs::write(layer(root, image), bytes).unwrap();
        },
        "data: wrong-digest: its bytes have sha256:",
    ),
    ("empty-layer-link", |root, image| fs::write(layer_link(root, image), "").unwrap(), "bad-link: the link is empty"),
    (
        "rotten-twice",
        |root, image| {
            for child in &image.children[..2] {
                fs::write(layer(root, child), "x").unwrap();
            }
        },
        "data: wrong-size: ",
    ),
];

fn victim(name: &str) -> Image {
    let is_index = ["child-collected", "rotten-twice"].contains(&name);
    if is_index { images::oci_index(name, "1.0", name) } else { images::oci(name, "1.0", &[name]) }
}

#[test]
fn list_and_check_report_each_damage_with_its_path_and_blame_only_its_image() {
    let registry = Registry::start();
    let healthy = images::oci("well", "1.0", &["untouched"]);
    healthy.push(&registry);
    let befall = |accidents: &[Accident]| {
        let root = registry.storage().join("docker/registry/v2");
        for (name, befall, _) in accidents {
            let image = victim(name);
            image.push(&registry);
            befall(&root, &image);
        }
    };
    let directory = tempdir();
    let expect = |accidents: &[Accident], arguments: &[&str]| {
        let exit_code = if arguments == ["check"] { 3 } else { 0 };
        for storage in [registry.storage(), packed(&registry.storage(), ".", directory.path())] {
            let (report, code) = report(arguments, &storage);
            assert_eq!(code, exit_code, "{arguments:?}");
            for (name, _, says) in accidents {
                let wrong = wrong_with(&report, &victim(name).name());
                assert!(wrong.iter().any(|wrong| wrong.contains(says)), "{arguments:?} {name}: {wrong:?}\n{report:#}");
            }
            assert_eq!(wrong_with(&report, &healthy.name()), [""; 0], "{arguments:?}");
            let counted: u64 = report["counts"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
            assert_eq!(counted, report["problems"].as_array().unwrap().len() as u64);
        }
    };
    befall(&ACCIDENTS);
    expect(&ACCIDENTS, &["migrate", "--list"]);
    expect(&ACCIDENTS, &["check"]);
    befall(&HIDDEN);
    expect(&HIDDEN, &["check"]);
    let (report, _) = report(&["check"], &registry.storage());
    assert_eq!(wrong_with(&report, "rotten-twice:1.0").len(), 2, "every problem of an image is reported: {report:#}");
}

#[test]
fn check_passes_a_storage_with_foreign_layers_deleted_tags_and_unused_blobs() {
    let registry = Registry::start();
    let corpus = Corpus::everything();
    corpus.push(&registry);
    let deleted = images::oci("library/oci", "deleted", &["deleted"]);
    deleted.push(&registry);
    registry.request("DELETE", &format!("/v2/library/oci/manifests/{}", deleted.digest())).send().expect(202);
    let directory = tempdir();
    for storage in [registry.storage(), packed(&registry.storage(), ".", directory.path())] {
        let output = gapferry().arg("check").arg(&storage).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.starts_with("OK: "), "{text}");
    }
}

#[test]
fn check_reports_damage_outside_any_image_and_blames_no_image() {
    let registry = Registry::start();
    let image = images::oci("a", "1", &["content"]);
    image.push(&registry);
    let root = registry.storage().join("docker/registry/v2");
    let unused = root.join("blobs/sha256/00").join("0".repeat(64));
    fs::create_dir_all(&unused).unwrap();
    fs::write(unused.join("data"), "other bytes").unwrap();
    fs::write(layer(&root, &image).with_file_name("data.4711.tmp"), "").unwrap();
    fs::write(link(&root, &image).with_file_name("link.4711.tmp"), "").unwrap();
    fs::create_dir_all(root.join("blobs/blake3/ab")).unwrap();
    fs::create_dir_all(root.join("repositories/a/_manifests/revisions/md5")).unwrap();
    fs::create_dir_all(root.join("repositories/A b/_manifests/tags")).unwrap();
    fs::create_dir_all(root.join("repositories/a/_manifests/tags/-no tag")).unwrap();
    fs::write(root.join("repositories/file"), "").unwrap();
    let outside = tempdir();
    std::os::unix::fs::symlink(outside.path(), root.join("repositories/elsewhere")).unwrap();
    let (report, code) = report(&["check"], &registry.storage());
    assert_eq!(code, 3);
    let counts = json!({"wrong-type": 1, "wrong-digest": 1, "unknown-algorithm": 2, "bad-name": 2, "stray": 3});
    assert_eq!(report["counts"], counts, "{report:#}");
    assert_eq!(report["affected"], 0, "{report:#}");
}

#[test]
fn schema_1_manifests_and_symlinked_tag_directories_are_reported() {
    let registry = Registry::start();
    images::oci("hidden", "1", &["content"]).push(&registry);
    let root = registry.storage().join("docker/registry/v2");
    let manifest = br#"{"schemaVersion":1,"name":"old","tag":"1","fsLayers":[]}"#;
    let digest = sha256(manifest);
    let hex = digest.replace("sha256:", "");
    for (path, content) in [
        (format!("blobs/sha256/{}/{hex}/data", &hex[..2]), &manifest[..]),
        (format!("repositories/old/_manifests/revisions/sha256/{hex}/link"), digest.as_bytes()),
        ("repositories/old/_manifests/tags/1/current/link".to_owned(), digest.as_bytes()),
    ] {
        fs::create_dir_all(root.join(&path).parent().unwrap()).unwrap();
        fs::write(root.join(&path), content).unwrap();
    }
    behind_a_link(root.join("repositories/hidden/_manifests/tags"), &root);
    for arguments in [&["migrate", "--list"][..], &["check"]] {
        let (report, _) = report(arguments, &registry.storage());
        assert!(wrong_with(&report, "old:1")[0].contains("schema1: "), "{report:#}");
        let faults = report["problems"].as_array().unwrap();
        assert!(faults.iter().any(|f| f["path"] == "repositories/hidden/_manifests/tags"), "{report:#}");
    }
}

/// distribution stores content under its sha256, and links other digests to that.
#[test]
fn a_layer_named_by_sha512_is_found_and_verified() {
    let registry = Registry::start();
    images::oci("a", "1", &["content"]).push(&registry);
    let root = registry.storage().join("docker/registry/v2");
    let layer = b"a layer";
    let long = Digest::of(gapferry::oci::Algorithm::Sha512, layer);
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
        "layers": [{"mediaType": "x/y", "digest": long.to_string(), "size": layer.len()}]})
    .to_string();
    let digest = sha256(manifest.as_bytes());
    let hex = digest.replace("sha256:", "");
    let stored = |content: &[u8]| data(&root, &sha256(content));
    let repository = root.join("repositories/long");
    for (path, content) in [
        (stored(layer), layer.to_vec()),
        (stored(b"{}"), b"{}".to_vec()),
        (stored(manifest.as_bytes()), manifest.clone().into_bytes()),
        (repository.join(format!("_manifests/revisions/sha256/{hex}/link")), digest.clone().into_bytes()),
        (repository.join("_manifests/tags/1/current/link"), digest.clone().into_bytes()),
        (repository.join(format!("_layers/sha512/{}/link", long.hex())), sha256(layer).into_bytes()),
    ] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let directory = tempdir();
    for storage in [registry.storage(), packed(&registry.storage(), ".", directory.path())] {
        let (report, code) = report(&["check"], &storage);
        assert_eq!((code, &report["problems"]), (0, &json!([])), "{report:#}");
    }
    fs::write(stored(layer), b"A layer").unwrap();
    let (report, _) = report(&["check"], &registry.storage());
    assert!(wrong_with(&report, "long:1")[0].contains("wrong-digest"), "{report:#}");
}

#[test]
fn the_list_shows_shared_content_and_platforms() {
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
    assert!(text.contains("no problems"), "{text}");
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

/// Reading a compressed tar in place would mean decompressing it once for every blob.
#[test]
fn a_compressed_storage_tar_is_refused_with_reason_and_remedy() {
    let registry = Registry::start();
    images::oci("a", "1", &["a"]).push(&registry);
    let directory = tempdir();
    let plain = fs::read(packed(&registry.storage(), ".", directory.path())).unwrap();
    for (name, packed, remedy) in
        [("storage.tar.gz", images::gzip(&plain), "gzip -dc"), ("storage.tar.zst", images::zstd(&plain), "zstd -dc")]
    {
        let (tar, to) = (directory.path().join(name), directory.path().join("images"));
        fs::write(&tar, packed).unwrap();
        let to_dir = ["migrate", "--to-dir", to.to_str().unwrap()];
        for command in [&["migrate", "--list"][..], &["check"], &to_dir] {
            let output = gapferry().args(command).arg(&tar).output().unwrap();
            let report = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{report}");
            assert!(report.contains("compressed with") && report.contains(remedy), "{report}");
            assert!(report.contains("gapferry reads only a plain tar"), "{report}");
        }
        assert!(!to.exists());
    }
}

/// A registry would accept it, but no client could pull it.
#[test]
fn check_and_list_report_an_index_with_a_wrong_child_size() {
    let registry = Registry::start();
    let child = images::oci("lie", "child", &["child"]);
    child.push(&registry);
    let mut entry = child.descriptor();
    entry["size"] = json!(entry["size"].as_u64().unwrap() + 1);
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]}).to_string();
    let request = registry.request("PUT", "/v2/lie/manifests/1").header("Content-Type", media_type);
    request.body(index).send().expect(201);
    let (checked, code) = report(&["check"], &registry.storage());
    assert_eq!(code, 3);
    let wrong = wrong_with(&checked, "lie:1");
    assert!(wrong.len() == 1 && wrong[0].contains("wrong-size"), "{wrong:?}");
    assert_eq!(wrong_with(&list(&registry.storage()), "lie:1"), wrong);
    assert_eq!(wrong_with(&checked, "lie:child"), [] as [&str; 0]);
}

/// The example in `migrate --help` looks for images that are not ok.
#[test]
fn an_image_with_an_empty_tag_link_is_listed_and_every_row_has_a_type() {
    let registry = Registry::start();
    let emptied = images::oci("team/emptied", "1", &["emptied"]);
    let cut = images::oci("team/cut", "1", &["cut"]);
    let list = images::docker_list("team/list", "1", "list");
    [&emptied, &cut, &list].into_iter().for_each(|image| image.push(&registry));
    let root = registry.storage().join("docker/registry/v2");
    fs::write(link(&root, &emptied), "").unwrap();
    fs::write(layer(&root, &cut), "x").unwrap();
    let (report, _) = report(&["migrate", "--list"], &registry.storage());
    let rows: Vec<&serde_json::Value> = report["images"].as_array().unwrap().iter().collect();
    let brief = |at: usize| ["name", "state", "repository", "tag"].map(|key| rows[at][key].as_str().unwrap());
    assert_eq!(rows.len(), 3, "{report:#}");
    assert_eq!(brief(0), ["team/cut:1", "damaged", "team/cut", "1"]);
    assert_eq!(brief(1), ["team/emptied:1", "damaged", "team/emptied", "1"]);
    assert_eq!(brief(2), ["team/list:1", "ok", "team/list", "1"]);
    assert_eq!(rows[0]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert!(rows[1]["digest"].is_null() && rows[1]["mediaType"].is_null(), "{report:#}");
    let output = gapferry().arg("migrate").arg(registry.storage()).arg("--list").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(row("IMAGE").contains("TYPE") && row("team/list:1").contains("docker list"), "{text}");
    assert!(row("team/cut:1").contains(" image ") && row("team/cut:1").ends_with("damaged"), "{text}");
    assert!(row("team/emptied:1").ends_with("damaged") && text.contains("3 images in 3 repositories"), "{text}");
}

/// docker-registry 2.8 does not serve such a layer; a migration still has its bytes.
#[test]
fn check_reports_a_layer_without_its_link_and_migrate_can_still_carry_it() {
    let registry = Registry::start();
    let image = images::oci("a", "1", &["kept", "unlinked"]);
    image.push(&registry);
    let root = registry.storage().join("docker/registry/v2");
    let link = layer_link(&root, &image);
    fs::remove_file(&link).unwrap();
    let layer = support::storage::layer(&image);
    registry.request("GET", &format!("/v2/a/blobs/{layer}")).send().expect(404);
    let (checked, code) = report(&["check"], &registry.storage());
    assert_eq!(code, 3);
    let wrong = wrong_with(&checked, "a:1");
    assert!(
        wrong.len() == 1 && wrong[0].starts_with(link.strip_prefix(&root).unwrap().to_str().unwrap()),
        "{checked:#}"
    );
    let directory = tempdir();
    support::storage::migrated(&registry.storage(), "--to-dir", directory.path(), &[]);
    assert!(directory.path().join("a:1/version").exists());
}
