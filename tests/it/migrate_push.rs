//! `migrate --to`: pushes a registry's storage directly into another registry, as an import of its bundle would.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support;
use crate::support::barrier::Barrier;
use crate::support::harbor::{Harbor, Setup};
use crate::support::images::{self, Corpus, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::storage::{data, layer, pack};
use crate::support::{files_below, gapferry, gapferry_process, skopeo, tempdir};

fn migrate(storage: &Path, to: &str, more: &[&str]) -> Ran {
    let mut command = gapferry();
    command.arg("migrate").arg(storage).args(["--to", to, "--retries", "1"]).args(more);
    Ran::of(&mut command)
}

fn tagged(corpus: &Corpus) -> Vec<&Image> {
    corpus.images.iter().filter(|image| image.tag.is_some()).collect()
}

fn distinct_blobs(images: &[&Image]) -> HashSet<String> {
    images.iter().flat_map(|image| image.blob_digests()).collect()
}

/// The storage file of an image's last blob.
fn last_blob(registry: &Registry, image: &Image) -> PathBuf {
    data(&registry.storage(), &layer(image))
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[10] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Harbor 2.15 and later.
fn remove_tags(registry: &Registry, images: &[Image]) {
    for image in images {
        let repository = registry.storage().join("docker/registry/v2/repositories").join(&image.repository);
        fs::remove_dir_all(repository.join("_manifests/tags")).unwrap();
    }
}

#[test]
fn every_image_arrives_with_its_digest_and_a_second_run_transfers_nothing() {
    let (source, target) = (Registry::start(), Registry::start());
    let corpus = Corpus::everything();
    corpus.push(&source);
    let (images, before) = (tagged(&corpus), files_below(&source.storage()));
    migrate(&source.storage(), &format!("{}/old", target.host()), &[]).ended(0);
    // Lists of referrers are rewritten; their entries are the same.
    for image in images.iter().flat_map(|image| image.children.iter().filter(|_| image.is_referrers_list())) {
        let there = target.digest(&format!("old/{}", image.repository), &image.digest());
        assert_eq!(there, Some(image.digest()), "{}", image.name());
    }
    for image in images.iter().filter(|image| !image.is_referrers_list()) {
        let place = format!("docker://{}/old/{}", target.host(), image.name());
        assert_eq!(skopeo::digest(&place), image.digest(), "{}", image.name());
    }
    assert!(!images.is_empty());
    assert_eq!(target.uploads(), distinct_blobs(&images).len(), "each blob crosses once, the rest is mounted");
    assert!(files_below(&source.storage()) == before, "the storage is only read");
    let pushes = || target.requests().iter().filter(|request| !["GET", "HEAD"].contains(&&*request.method)).count();
    let pushed = pushes();
    migrate(&source.storage(), &format!("{}/old", target.host()), &[]).ended(0).reported(&["0 images pushed"]);
    assert_eq!(pushes(), pushed, "present content is not pushed again");
}

#[test]
fn a_damaged_blob_fails_only_its_images_and_is_named_by_its_path() {
    for check in ["size", "digest"] {
        let (source, target) = (Registry::start(), Registry::start());
        let damaged = images::oci("team/damaged", "1", &["base", "damaged"]);
        let short = images::oci("team/short", "1", &["base", "short"]);
        let well = images::oci("team/well", "1", &["base", "well"]);
        [&damaged, &short, &well].iter().for_each(|image| image.push(&source));
        let (wrong, cut) = (last_blob(&source, &damaged), last_blob(&source, &short));
        flip_a_bit(&wrong);
        fs::write(&cut, "x").unwrap();
        let below = |path: &Path| path.strip_prefix(source.storage().join("docker/registry/v2")).unwrap().to_owned();
        let ran = migrate(&source.storage(), target.host(), &["--check", check]).ended(1);
        ran.reported(&[
            below(&wrong).to_str().unwrap(),
            below(&cut).to_str().unwrap(),
            "wrong digest",
            "wrong size",
            "affects team/short:1",
            "team/damaged:1",
            "1 image pushed, 2 failed",
        ]);
        assert_eq!(target.digest("team/well", "1"), Some(well.digest()));
        assert_eq!(target.digest("team/damaged", "1"), None);
        assert_eq!(target.digest("team/short", "1"), None);
    }
}

#[test]
fn strict_pushes_nothing_if_anything_is_damaged() {
    let (source, target) = (Registry::start(), Registry::start());
    let images = ["damaged", "well"].map(|name| images::oci(name, "1", &[name]));
    images.iter().for_each(|image| image.push(&source));
    flip_a_bit(&last_blob(&source, &images[0]));
    migrate(&source.storage(), target.host(), &["--strict"]).ended(3).reported(&["affects damaged:1"]);
    assert_eq!(target.digest("well", "1"), None);
    assert_eq!(target.requests().iter().filter(|request| request.method != "GET").count(), 0);
}

#[test]
fn missing_harbor_projects_are_created_on_request_or_stop_the_push() {
    let source = Registry::start();
    let corpus = [images::oci("team/a", "1", &["base", "a"]), images::oci_index("other/b/c", "2", "b")];
    corpus.iter().for_each(|image| image.push(&source));
    let server = Harbor::start(Setup::default());
    let creds = ["--creds", "admin:Harbor12345"];
    migrate(&source.storage(), &server.registry(), &creds).ended(4).reported(&["team", "other"]);
    assert_eq!(server.pushes().len(), 0, "the problem is reported before the first push");
    migrate(&source.storage(), &server.registry(), &[&creds[..], &["--create-projects"]].concat()).ended(0);
    for image in &corpus {
        let there = server.tag(&image.repository, image.tag.as_deref().unwrap());
        assert_eq!(there.map(|digest| digest.to_string()), Some(image.digest()), "{}", image.name());
    }
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn a_killed_push_sets_no_tag_too_early_and_a_rerun_finishes() {
    let (source, target) = (Registry::start(), Registry::start());
    let images: Vec<Image> =
        (0..6).map(|n| images::oci(&format!("team/app{n}"), "1", &[&images::noise(n, 1 << 20)])).collect();
    images.iter().for_each(|image| image.push(&source));
    let middle = images[3].blob_digests().pop().unwrap();
    let barrier = Barrier::before(target.host(), &format!("digest={}", middle.replace(':', "%3A")));
    let mut process = gapferry_process();
    process.arg("migrate").arg(source.storage()).args(["--to", barrier.host(), "-j", "1"]);
    let mut process = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    barrier.wait();
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(target.digest(&images[3].repository, "1"), None);
    for image in images.iter().filter(|image| target.digest(&image.repository, "1").is_some()) {
        skopeo::copy(
            &format!("docker://{}/{}", target.host(), image.name()),
            &format!("dir:{}", tempdir().path().display()),
        );
    }
    let uploads = target.uploads();
    migrate(&source.storage(), target.host(), &[]).ended(0);
    for image in &images {
        assert_eq!(target.digest(&image.repository, "1"), Some(image.digest()), "{}", image.name());
    }
    let all: Vec<&Image> = images.iter().collect();
    assert_eq!(target.uploads(), distinct_blobs(&all).len(), "{uploads} blobs were present and are not pushed again");
}

#[test]
fn a_tar_of_the_storage_pushes_the_same_images() {
    let (source, one, two) = (Registry::start(), Registry::start(), Registry::start());
    Corpus::everything().push(&source);
    let directory = tempdir();
    let tar = directory.path().join("storage.tar");
    pack(&source.storage(), &tar);
    migrate(&source.storage(), one.host(), &["--untagged"]).ended(0);
    migrate(&tar, two.host(), &["--untagged"]).ended(0);
    let stored = |registry: &Registry| -> Vec<(String, Vec<u8>)> {
        let files = files_below(&registry.storage()).into_iter();
        files.filter(|(path, _)| !path.contains("/_uploads/")).collect()
    };
    assert!(stored(&one) == stored(&two));
}

#[test]
fn untagged_manifests_are_pushed_by_digest_on_request() {
    let (source, target) = (Registry::start(), Registry::start());
    let images = [images::oci("a", "1", &["a"]), images::oci_index("a/b", "1", "index")];
    images.iter().for_each(|image| image.push(&source));
    remove_tags(&source, &images);
    migrate(&source.storage(), target.host(), &[]).ended(2).reported(&["--untagged"]);
    migrate(&source.storage(), target.host(), &["--untagged"]).ended(0);
    for image in &images {
        assert_eq!(target.digest(&image.repository, &image.digest()), Some(image.digest()));
        assert_eq!(target.tags(&image.repository), Vec::<String>::new());
    }
    migrate(&source.storage(), target.host(), &["--untagged"]).ended(0).reported(&["0 images pushed"]);
}

#[test]
fn naming_rules_see_only_the_path_and_name_collisions_are_refused() {
    let (source, target) = (Registry::start(), Registry::start());
    let images = [images::oci("team/app", "1", &["a"]), images::oci("other/app", "1", &["b"])];
    images.iter().for_each(|image| image.push(&source));
    let directory = tempdir();
    let map = directory.path().join("names.map");
    fs::write(&map, "team/ -> base/\n~ ^other/(.*)$ -> misc-$1\n").unwrap();
    migrate(&source.storage(), target.host(), &["--flatten"])
        .ended(2)
        .reported(&["--map keeps them apart", "team/app:1"]);
    assert_eq!(target.uploads(), 0);
    migrate(&source.storage(), target.host(), &["--map", map.to_str().unwrap()]).ended(0);
    assert_eq!(target.digest("base/app", "1"), Some(images[0].digest()));
    assert_eq!(target.digest("misc-app", "1"), Some(images[1].digest()));
    fs::write(&map, "Team/ -> base\nteam/app base\n").unwrap();
    let ran = migrate(&source.storage(), target.host(), &["--map", map.to_str().unwrap()]);
    ran.ended(2).reported(&["names.map:1: ", "names.map:2: "]);
}

#[test]
fn a_dry_run_pushes_nothing_and_receipt_and_digest_file_list_what_arrived() {
    let (source, target) = (Registry::start(), Registry::start());
    let image = images::oci("team/app", "1", &["a"]);
    image.push(&source);
    let to = format!("{}/p", target.host());
    let plan = migrate(&source.storage(), &to, &["--dry-run", "--json"]).ended(0).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["images"][0]["reference"], format!("{to}/team/app:1"));
    assert_eq!(plan["images"][0]["action"], "push");
    assert_eq!(target.uploads(), 0);
    let directory = tempdir();
    let [receipt, digests] = ["receipt.json", "digests"].map(|name| directory.path().join(name));
    let files = ["--receipt", receipt.to_str().unwrap(), "--digestfile", digests.to_str().unwrap()];
    migrate(&source.storage(), &to, &files).ended(0);
    let receipt: serde_json::Value = serde_json::from_slice(&fs::read(receipt).unwrap()).unwrap();
    assert_eq!(receipt["images"][0]["outcome"], "pushed");
    assert_eq!(receipt["images"][0]["digest"], image.digest());
    assert_eq!(receipt["target"], to);
    assert_eq!(fs::read_to_string(digests).unwrap(), format!("{} docker://{to}/team/app:1\n", image.digest()));
}

#[test]
fn receipt_plan_and_json_list_damaged_images_as_failed_with_reasons() {
    let (source, target) = (Registry::start(), Registry::start());
    let images = ["cut", "nowhere", "well"].map(|name| images::oci(name, "1", &[name]));
    images.iter().for_each(|image| image.push(&source));
    fs::write(last_blob(&source, &images[0]), "x").unwrap();
    fs::remove_file(data(&source.storage(), &support::sha256(&images[0].blobs[0]))).unwrap();
    let tags = source.storage().join("docker/registry/v2/repositories/nowhere/_manifests/tags");
    fs::write(tags.join("1/current/link"), "").unwrap();
    let directory = tempdir();
    let [list, receipt] = ["images.txt", "receipt.json"].map(|name| directory.path().join(name));
    fs::write(&list, "cut\nnowhere:1\nwell:1\nteam/never:1\n").unwrap();
    let options = ["-f", list.to_str().unwrap(), "--json"];
    let failed = |images: &serde_json::Value| -> Vec<serde_json::Value> {
        let failed = images.as_array().unwrap().iter().filter(|image| image["outcome"] == "failed");
        failed.cloned().collect()
    };
    let ran = migrate(&source.storage(), target.host(), &[&options[..], &["--dry-run"]].concat());
    let plan: serde_json::Value = serde_json::from_str(&ran.ended(0).stdout).unwrap();
    let kept = [&options[..], &["--receipt", receipt.to_str().unwrap()]].concat();
    let printed = migrate(&source.storage(), target.host(), &kept).ended(1).stdout;
    let receipt: serde_json::Value = serde_json::from_slice(&fs::read(receipt).unwrap()).unwrap();
    let mut printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed.as_object_mut().unwrap().remove("ok"), Some(false.into()), "three images failed");
    assert_eq!(receipt, printed);
    assert_eq!(receipt["images"][0]["outcome"], "pushed");
    let failed = failed(&receipt["images"]);
    let sources: Vec<&str> = failed.iter().map(|image| image["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["localhost/cut:1", "localhost/nowhere:1", "localhost/team/never:1"]);
    assert_eq!((&failed[0]["digest"], &failed[1]["digest"]), (&images[0].digest().into(), &serde_json::Value::Null));
    let reasons: Vec<&str> = failed.iter().map(|image| image["error"].as_str().unwrap()).collect();
    for (reason, says) in
        reasons.iter().zip([&["wrong size", ": missing: "][..], &["link is empty"], &["images.txt:4"]])
    {
        assert!(says.iter().all(|says| reason.contains(says)), "{says:?} {reason}");
    }
    assert_eq!(failed, *plan["failed"].as_array().unwrap(), "the plan shows it in advance");
}

#[test]
fn conflicting_options_are_refused_before_anything_is_read() {
    let directory = tempdir();
    let nowhere = directory.path().join("nowhere");
    for options in [
        &["--to", "h", "--link", "hard"][..],
        &["--to", "h", "--to-dir", "d"],
        &["--to", "h", "--list"],
        &["--to", "h", "--scoped"],
        &["--list", "--create-projects"],
        &["--list", "--strict"],
        &["--list", "--dry-run"],
        &["--to-dir", "d", "--receipt", "r"],
        &["--to-dir", "d", "--flatten"],
        &["--list", "--on-existing", "skip"],
        &["--list", "--creds", "user:password"],
        &["--list", "--link", "hard"],
    ] {
        let output = gapferry().arg("migrate").arg(&nowhere).args(options).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {message}");
        assert!(!message.contains("nowhere") || message.contains("Usage"), "{options:?}: {message}");
    }
}
