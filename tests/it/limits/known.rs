//! Known content is not pulled again: tags are checked with HEAD, which is free, and immutable tags not at all.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::limits::shop::{Shop, is_pull};
use crate::limits::{all_output, gapferry};
use crate::support;
use crate::support::faulty::{Answer, Seen, Server};
use crate::support::images;
use crate::support::registry::Registry;

/// Checks that the run succeeded; returns its output.
#[track_caller]
fn well(output: std::process::Output) -> String {
    let text = all_output(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    text
}

/// A registry whose images a test may change.
async fn changing(shop: Shop) -> (Server, Arc<Mutex<Shop>>) {
    let shop = Arc::new(Mutex::new(shop));
    let answers = shop.clone();
    (Server::registry(move |request, _| answers.lock().unwrap().answer(request)).await, shop)
}

fn allowlist(directory: &Path, host: &str, names: &[&str]) -> String {
    let file = directory.join("images.txt");
    let lines: Vec<String> = names.iter().map(|name| format!("{host}/{name}\n")).collect();
    std::fs::write(&file, lines.concat()).unwrap();
    file.display().to_string()
}

const NAMES: [&str; 3] = ["team/app:1.0", "team/app:1.1", "team/app:edge"];

fn shop() -> Shop {
    Shop::with(&[(NAMES[0], "one"), (NAMES[1], "two"), (NAMES[2], "three")])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_export_costs_no_pull() {
    let (server, shop) = changing(shop()).await;
    let directory = support::tempdir();
    let list = allowlist(directory.path(), &server.address, &NAMES);
    for out in ["b.tar", "b"] {
        let out = directory.path().join(out).display().to_string();
        well(gapferry(&["export", "-f", &list, "-o", &out]).await);
        let pulls = || server.seen().iter().filter(|request| is_pull(request)).count();
        let (pulled, heads) = (pulls(), server.count("HEAD", "/v2/team/app/manifests/"));
        well(gapferry(&["export", "-f", &list, "-o", &out]).await);
        assert_eq!(pulls(), pulled, "{out}");
        assert_eq!(server.count("HEAD", "/v2/team/app/manifests/"), heads + NAMES.len());
        // A changed image costs one pull.
        shop.lock().unwrap().add(NAMES[2], &format!("other content of {out}"));
        well(gapferry(&["export", "-f", &list, "-o", &out]).await);
        assert_eq!(pulls(), pulled + 1, "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tags_of_one_image_cost_one_pull_where_pulls_are_counted() {
    let shop = Shop::with(&[("team/app:1", "same"), ("team/app:1.2", "same"), ("team/app:latest", "same")]);
    let answer = move |request: &_| shop.answer(request).with("ratelimit-limit", "100;w=1");
    let server = Server::registry(move |request, _| answer(request).with("ratelimit-remaining", "50;w=1")).await;
    let reference = |tag| format!("{}/team/app:{tag}", server.address);
    // One request at a time: the first answer shows that pulls are counted.
    well(gapferry(&["lock", "-j", "1", &reference("1"), &reference("1.2"), &reference("latest")]).await);
    assert_eq!(server.seen().iter().filter(|request| is_pull(request)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_needs_no_request() {
    let (server, shop) = changing(shop()).await;
    let directory = support::tempdir();
    let list = allowlist(directory.path(), &server.address, &NAMES);
    let out = directory.path().join("b.tar").display().to_string();
    let export = ["export", "-f", &list, "-o", &out];
    well(gapferry(&export).await);
    let before = support::sha256_file(Path::new(&out));

    let asked = server.traffic().requests;
    let text = well(gapferry(&[&export[..], &["--immutable-tags", "."]].concat()).await);
    assert_eq!(server.traffic().requests, asked, "{:?}", server.seen());
    assert!(text.contains("3 images taken from the earlier lock"), "{text}");
    assert_eq!(support::sha256_file(Path::new(&out)), before);

    // Only matching tags are immutable: `edge` has moved, and so, contrary to the promise, has 1.0.
    shop.lock().unwrap().add(NAMES[0], "moved");
    shop.lock().unwrap().add(NAMES[2], "moved");
    let versions = ["--immutable-tags", r"^\d+[.]0$", "--immutable-tags", r"^\d+[.]1$"];
    let asked = server.seen().len();
    well(gapferry(&[&export[..], &versions].concat()).await);
    let about_versions = |request: &&_| is_about(request, "/1.0") || is_about(request, "/1.1");
    assert_eq!(server.seen().iter().skip(asked).filter(about_versions).count(), 0);
    let digests = |text: &str| text.matches("sha256:").count();
    let listed = well(gapferry(&["list", "--json", &out]).await);
    assert!(digests(&listed) > 0 && listed.contains(NAMES[2]), "{listed}");
    assert_ne!(support::sha256_file(Path::new(&out)), before, "edge resolves to its current image");
    well(gapferry(&["verify", &out]).await);
}

fn is_about(request: &Seen, end: &str) -> bool {
    request.target.ends_with(end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_entry_that_does_not_match_the_request_is_not_reused() {
    let (server, _) = changing(shop()).await;
    let directory = support::tempdir();
    let reference = format!("{}/{}", server.address, NAMES[0]);
    let lock = directory.path().join("images.lock").display().to_string();
    let pin = ["lock", &reference, "-o", &lock, "--immutable-tags", "."];
    well(gapferry(&pin).await);
    let asked = server.traffic().requests;
    well(gapferry(&pin).await);
    assert_eq!(server.traffic().requests, asked);
    // The image is for amd64; only the registry can confirm that there is no other.
    let output = gapferry(&[&pin[..], &["--platform", "linux/arm64"]].concat()).await;
    assert_ne!(output.status.code(), Some(0), "{}", all_output(&output));
    assert!(server.traffic().requests > asked);
}

/// A registry whose images are in a lock file, without a bundle.
struct Pinned {
    server: Server,
    shop: Arc<Mutex<Shop>>,
    directory: tempfile::TempDir,
    list: String,
    lock: String,
    out: String,
}

async fn pinned() -> Pinned {
    let (server, shop) = changing(shop()).await;
    let directory = support::tempdir();
    let list = allowlist(directory.path(), &server.address, &NAMES);
    let [lock, out] = ["lock", "b"].map(|name| directory.path().join(name).display().to_string());
    well(gapferry(&["lock", "-f", &list, "-o", &lock]).await);
    Pinned { server, shop, directory, list, lock, out }
}

impl Pinned {
    /// Exports from the lock with these options.
    async fn export(&self, more: &[&str]) -> std::process::Output {
        let export = ["export", "-f", &self.list, "-o", &self.out, "--lock", &self.lock];
        gapferry(&[&export[..], more].concat()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_without_a_bundle_saves_tag_lookups_and_manifests_are_pulled_by_digest() {
    let site = pinned().await;
    site.shop.lock().unwrap().add(NAMES[0], "moved");
    let before = site.server.seen().len();
    well(site.export(&["--immutable-tags", "."]).await);
    let asked = site.server.seen().split_off(before);
    assert!(asked.iter().all(|request| request.target.contains("sha256:")), "{asked:?}");
    assert_eq!(asked.iter().filter(|request| is_pull(request)).count(), NAMES.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_that_moved_is_an_error_and_not_another_image() {
    let site = pinned().await;
    let before = std::fs::read(&site.lock).unwrap();
    let digest_of = |bytes: &[u8]| images_of(bytes)[0]["digest"].as_str().unwrap().to_owned();
    site.shop.lock().unwrap().delete(NAMES[0]);
    site.shop.lock().unwrap().add(NAMES[0], "moved");
    let now = site.directory.path().join("now").display().to_string();
    well(gapferry(&["lock", "-f", &site.list, "-o", &now]).await);
    let moved = digest_of(&std::fs::read(&now).unwrap());

    // The digest is gone, and other options force a new lookup.
    for more in [&[][..], &["--no-referrers"]] {
        let output = site.export(&[&["--immutable-tags", r"^1\."], more].concat()).await;
        let text = all_output(&output);
        assert_eq!(output.status.code(), Some(4), "{text}");
        for message in [NAMES[0], &digest_of(&before), &moved, "without a pattern"] {
            assert!(text.contains(message), "{message}: {text}");
        }
        assert_eq!(std::fs::read(&site.lock).unwrap(), before);
        assert!(!Path::new(&site.out).exists());
    }
    // Without a pattern for the tag, its current digest counts.
    well(site.export(&["--immutable-tags", r"^1\.1"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_entry_is_reported_and_does_not_follow_its_tag() {
    let (server, _) = changing(shop()).await;
    let directory = support::tempdir();
    let list = allowlist(directory.path(), &server.address, &NAMES[..1]);
    let lock = directory.path().join("lock").display().to_string();
    well(gapferry(&["lock", "-f", &list, "-o", &lock]).await);
    let refusing = Server::registry(|_, _| Answer::new(401)).await;
    let moved_away = std::fs::read_to_string(&lock).unwrap().replace(&server.address, &refusing.address);
    std::fs::write(&lock, moved_away).unwrap();
    let list = allowlist(directory.path(), &refusing.address, &NAMES[..1]);
    let out = directory.path().join("b").display().to_string();
    let output = gapferry(&["export", "-f", &list, "-o", &out, "--lock", &lock, "--immutable-tags", "."]).await;
    assert_eq!(output.status.code(), Some(4), "{}", all_output(&output));
    let locked: serde_json::Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
    for message in ["denies", "which the lock names", locked["images"][0]["digest"].as_str().unwrap()] {
        assert!(all_output(&output).contains(message), "{message}: {}", all_output(&output));
    }
    assert!(!Path::new(&out).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_given_lock_counts_and_not_the_bundle_on_a_returned_medium() {
    let site = pinned().await;
    let honest = site.shop.lock().unwrap().clone();
    let before = images_of(&std::fs::read(&site.lock).unwrap());
    site.shop.lock().unwrap().add(NAMES[0], "theirs");
    well(gapferry(&["export", "-f", &site.list, "-o", &site.out]).await);
    *site.shop.lock().unwrap() = honest;
    well(site.export(&["--immutable-tags", "."]).await);
    assert_eq!(images_of(&std::fs::read(&site.lock).unwrap()), before);
    // An unreadable lock counts as nothing; the bundle does not replace it.
    std::fs::write(&site.lock, "{").unwrap();
    let output = site.export(&["--immutable-tags", "."]).await;
    assert_eq!(output.status.code(), Some(2), "{}", all_output(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_lost_by_the_registry_is_named_once_with_a_remedy() {
    let shop = shop();
    let layer = support::sha256(b"one");
    let lost = layer.clone();
    let answer =
        move |request: &Seen, _| if is_about(request, &lost) { Answer::new(404) } else { shop.answer(request) };
    let server = Server::registry(answer).await;
    let directory = support::tempdir();
    let out = directory.path().join("b").display().to_string();
    let output = gapferry(&["export", &format!("{}/{}", server.address, NAMES[0]), "-o", &out]).await;
    let text = all_output(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert_eq!(text.matches(&layer).count(), 1, "{text}");
    assert!(text.contains("push the image there again") && !text.contains("spelling"), "{text}");
}

#[test]
fn selecting_every_platform_of_an_index_needs_no_new_pull() {
    let registry = Registry::start();
    images::oci_index("team/multi", "2.0", "content").push(&registry);
    let directory = support::tempdir();
    let (reference, out) = (format!("{}/team/multi:2.0", registry.host()), directory.path().join("b"));
    let export = |more: &[&str]| {
        let asked = registry.requests().len();
        support::gapferry().args(["export", &reference, "-o"]).arg(&out).args(more).assert().success();
        registry.requests().len() - asked
    };
    let all = ["--platform", "linux/amd64", "--platform", "linux/arm64"];
    export(&all);
    assert_eq!(export(&[&all[..], &["--immutable-tags", "."]].concat()), 0);
    // One platform is fewer than the bundle has.
    assert!(export(&[&all[..2], &["--immutable-tags", "."]].concat()) > 0);
}

#[test]
fn a_second_export_pulls_nothing_and_with_immutable_tags_sends_no_request() {
    let registry = Registry::start();
    images::oci("team/app", "1.0", &["content"]).push(&registry);
    let multi = images::oci_index("team/multi", "2.0", "content");
    multi.push(&registry);
    images::cosign_signature(&multi).push(&registry);
    let directory = support::tempdir();
    let list = allowlist(directory.path(), registry.host(), &["team/app:1.0", "team/multi:2.0"]);
    let out = directory.path().join("b").display().to_string();
    let export = |more: &[&str]| {
        support::gapferry().args(["export", "-f", &list, "-o", &out]).args(more).assert().success();
    };
    let pulls = || registry.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/manifests/")).count();
    export(&[]);
    assert!(pulls() >= 4);
    let pulled = pulls();
    export(&[]);
    assert_eq!(pulls(), pulled);
    let asked = registry.requests().len();
    export(&["--immutable-tags", r"\A\d+\.\d+\z"]);
    assert_eq!(registry.requests().len(), asked);
}

#[test]
fn signatures_excluded_once_are_carried_when_requested_later() {
    let registry = Registry::start();
    let image = images::oci("team/app", "1.0", &["content"]);
    image.push(&registry);
    let signature = images::cosign_signature(&image);
    signature.push(&registry);
    let directory = support::tempdir();
    let (reference, out) = (format!("{}/team/app:1.0", registry.host()), directory.path().join("b"));
    let export = |more: &[&str]| {
        support::gapferry().args(["export", &reference, "-o"]).arg(&out).args(more).assert().success();
        out.join("blobs").join(signature.digest().replace(':', "/")).exists()
    };
    assert!(!export(&["--no-referrers"]));
    assert!(export(&["--immutable-tags", "."]), "the bundle cannot be verified by cosign beyond the gap");
}

/// Options that change an image's lock entry. An entry made with other options would lack signatures, platforms, the
/// original index or layers, or include what is to be left out.
const OPTIONS: [&[&str]; 8] = [
    &[],
    &["--no-referrers"],
    &["--foreign-layers"],
    &["--platform", "linux/amd64"],
    &["--platform", "linux/arm64"],
    &["--platform", "linux/amd64", "--platform", "linux/arm64"],
    &["--platform", "linux/amd64", "--index", "sparse"],
    &["--platform", "linux/amd64", "--index", "single"],
];

#[test]
fn an_images_entry_follows_the_options_of_this_run_and_not_of_an_earlier_one() {
    let registry = Registry::start();
    let signed = images::oci_index("team/signed", "1.0", "signed");
    signed.push(&registry);
    images::cosign_signature(&signed).push(&registry);
    images::cosign_signature(&signed.children[0]).push(&registry);
    images::docker_list("team/bare", "1.0", "bare").push(&registry);
    images::with_foreign_layer("team/windows", "1.0").push(&registry);
    let directory = support::tempdir();
    let names = ["team/signed:1.0", "team/bare:1.0", "team/windows:1.0 platform=linux/amd64"];
    let list = allowlist(directory.path(), registry.host(), &names);
    let locks: Vec<_> = (0..OPTIONS.len()).map(|n| directory.path().join(format!("{n}.lock"))).collect();
    for (lock, options) in locks.iter().zip(OPTIONS) {
        support::gapferry().args(["lock", "-f", &list, "-o"]).arg(lock).args(options).assert().success();
    }
    for (lock, now) in locks.iter().zip(OPTIONS) {
        let wanted = images_of(&std::fs::read(lock).unwrap());
        for (earlier, before) in locks.iter().zip(OPTIONS) {
            let plan = ["export", "--dry-run", "--json", "-f", &list, "--immutable-tags", ".", "-o"];
            let mut run = support::gapferry();
            let run = run.args(plan).arg(directory.path().join("b")).arg("--lock").arg(earlier).args(now);
            let got = images_of(&run.assert().success().get_output().stdout);
            // The form of an index is kept until an option requests another; otherwise its digest would change for no
            // reason.
            let is_kept = before.strip_suffix(&["--index", "sparse"]) == Some(now);
            let wanted = if is_kept { images_of(&std::fs::read(earlier).unwrap()) } else { wanted.clone() };
            assert_eq!(got, wanted, "wanted {now:?}, the earlier lock was made with {before:?}");
        }
    }
}

fn images_of(json: &[u8]) -> Vec<serde_json::Value> {
    let json: serde_json::Value = serde_json::from_slice(json).unwrap();
    let mut images = json["images"].as_array().unwrap().clone();
    // A plan always says whether there may be more companions; a lock says so only if there may be.
    for image in &mut images {
        if image["attachedUnknown"] == false {
            image.as_object_mut().unwrap().remove("attachedUnknown");
        }
    }
    // A plan names the kind of each companion; a lock does not.
    for companion in images.iter_mut().filter_map(|image| image.get_mut("attached")?.as_array_mut()).flatten() {
        companion.as_object_mut().unwrap().remove("kind");
    }
    images
}

#[test]
fn an_invalid_pattern_is_refused_before_any_request() {
    let output = support::gapferry().args(["lock", "nobody.invalid/a:1", "--immutable-tags", "("]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(all_output(&output).contains("invalid pattern"), "{}", all_output(&output));
}
