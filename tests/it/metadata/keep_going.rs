//! `--keep-going` and `--skip-missing-platform`: one unavailable image does not cost the others.

use serde_json::{Value, json};

use super::*;
use crate::support::embedded::Embedded;
use crate::support::faulty::{After, Fault, Stage};
use crate::support::registry::Registry;
use crate::support::tempdir;

struct TestSite {
    source: Source,
    directory: tempfile::TempDir,
}

impl TestSite {
    async fn new() -> TestSite {
        TestSite { source: Source::start().await, directory: tempdir() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// An allowlist of these images.
    fn list(&self, images: &[&str]) -> String {
        let lines: Vec<String> = images.iter().map(|image| self.source.name(image) + "\n").collect();
        std::fs::write(self.path("list.txt"), lines.concat()).unwrap();
        self.path("list.txt")
    }
}

fn references(images: &Value) -> Vec<&str> {
    let all = images.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|image| image["reference"].as_str().unwrap().rsplit('/').next().unwrap()).collect()
}

#[tokio::test]
async fn other_images_are_carried_and_the_lock_says_what_is_missing_and_why() {
    let (site, target) = (TestSite::new().await, Registry::start());
    site.source.put_image("a", "1", "amd64");
    site.source.put_image("c", "1", "amd64");
    site.source.put_manifest("d", "1", OCI_MANIFEST, &json!({"schemaVersion": 2}));
    let (list, bundle, lock) = (site.list(&["a:1", "b:1", "c:1", "d:1", "e"]), site.path("b"), site.path("lock"));
    let output = ends_with(4, &["export", "-f", &list, "-o", &bundle]);
    // Listing the tags fails first.
    assert!(stderr(&output).contains("list.txt:5"), "the message names the line of the allowlist: {}", stderr(&output));
    assert!(!std::path::Path::new(&bundle).exists());
    let output = ends_with(1, &["export", "-f", &list, "-o", &bundle, "--keep-going", "--lock", &lock]);
    assert!(
        stderr(&output).contains("list.txt:2") && stderr(&output).contains("b:1 (not found)"),
        "{}",
        stderr(&output)
    );
    let json = lock_of(&bundle);
    assert_eq!(references(&json["images"]), ["a:1", "c:1"]);
    let mut missing: Vec<(&str, &str)> = references(&json["missing"])
        .into_iter()
        .zip(json["missing"].as_array().unwrap())
        .map(|(name, one)| (name, one["reason"].as_str().unwrap()))
        .collect();
    missing.sort_unstable();
    assert_eq!(missing, [("b:1", "not-found"), ("d:1", "damaged"), ("e", "not-found")]);
    for command in [&["verify", "--full", &bundle][..], &["list", &bundle]] {
        assert!(stdout(&ends_with(0, command)).contains("b:1 (not found)"));
    }
    let output = ends_with(0, &["import", &bundle, "--to", target.host()]);
    assert!(stderr(&output).contains("b:1 (not found)"), "{}", stderr(&output));
    // The lock gives the same bundle again, with the same gaps.
    let again = site.path("again");
    ends_with(0, &["export", "--locked", &lock, "-o", &again]);
    let bytes = |bundle: &str| std::fs::read(format!("{bundle}/bundle.json")).unwrap();
    assert_eq!(bytes(&again), bytes(&bundle));
    // Both have the same time, so the incomplete bundle's receipt admits the complete one.
    site.source.put_image("b", "1", "amd64");
    let (all, lacking) = (site.path("all.lock"), site.path("lacking"));
    let whole = site.list(&["a:1", "b:1"]);
    ends_with(0, &["lock", "-f", &whole, "-o", &all]);
    site.source.remove(&sha256(b"layer of b:1 for amd64"));
    let mut command = gapferry();
    command.env("SOURCE_DATE_EPOCH", "4000000000");
    command.args(["export", "--locked", &all, "-o", &lacking, "--keep-going"]).assert().code(1);
    let created: Value = serde_json::from_slice(&std::fs::read(&all).unwrap()).unwrap();
    assert_eq!(lock_of(&lacking)["created"], created["created"]);
    site.list(&["a:1", "b:1", "c:1", "d:1", "e"]);
    site.source.remove("/v2/b/manifests/1");
    let output = ends_with(1, &["lock", "-f", &list, "--keep-going"]);
    assert_eq!(references(&serde_json::from_str::<Value>(&stdout(&output)).unwrap()["images"]), ["a:1", "c:1"]);
}

#[tokio::test]
async fn images_that_fail_while_fetching_are_left_out_in_every_form() {
    for out in ["b", "b.tar"] {
        let site = TestSite::new().await;
        site.source.put_image("a", "1", "amd64");
        site.source.put_image("b", "1", "amd64");
        site.source.remove(&sha256(b"layer of b:1 for amd64"));
        let (list, bundle) = (site.list(&["a:1", "b:1"]), site.path(out));
        let output = ends_with(4, &["export", "-f", &list, "-o", &bundle]);
        assert!(stderr(&output).contains("list.txt:2"), "{}", stderr(&output));
        let output = ends_with(1, &["export", "-f", &list, "-o", &bundle, "--keep-going", "--json"]);
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(references(&report["missing"]), ["b:1"]);
        ends_with(0, &["verify", "--full", &bundle]);
    }
}

#[tokio::test]
async fn volumes_are_planned_again_without_images_that_fail_while_fetching() {
    let site = TestSite::new().await;
    site.source.put_image("a", "1", "amd64");
    site.source.put_image("b", "1", "amd64");
    let large = "a".repeat(1_500_000);
    let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": typed(site.source.put_blob("c", br#"{"os":"linux","architecture":"amd64"}"#), OCI_CONFIG),
        "layers": [typed(site.source.put_blob("c", large.as_bytes()), OCI_LAYER)]});
    site.source.put_manifest("c", "1", OCI_MANIFEST, &image);
    site.source.remove(&sha256(b"layer of b:1 for amd64"));
    let (list, out, lock) = (site.list(&["a:1", "b:1", "c:1"]), site.path("v.tar"), site.path("lock"));
    let export = ["export", "-f", &list, "-o", &out, "--volume-size", "1MB"];
    ends_with(4, &export);
    let output = ends_with(1, &[&export[..], &["--keep-going", "--json", "--lock", &lock]].concat());
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let volumes: Vec<&str> =
        report["volumes"].as_array().unwrap().iter().map(|volume| volume["path"].as_str().unwrap()).collect();
    assert_eq!((references(&report["missing"]), volumes.len() > 1), (vec!["b:1"], true), "{report}");
    ends_with(0, &[&["verify", "--full"], &volumes[..]].concat());
    // One volume again, from the lock that lacks the image.
    let before = std::fs::read(volumes[1]).unwrap();
    std::fs::remove_file(volumes[1]).unwrap();
    let again = ["export", "--locked", &lock, "-o", &out, "--volume-size", "1MB", "--only-volume", "2"];
    ends_with(0, &again);
    assert!(std::fs::read(volumes[1]).unwrap() == before);
    let target = Registry::start();
    ends_with(0, &[&["import", "--to", target.host()], &volumes[..]].concat());
}

#[tokio::test]
async fn keep_going_cannot_finish_a_stream() {
    let site = TestSite::new().await;
    site.source.put_image("a", "1", "amd64");
    site.source.put_image("b", "1", "amd64");
    site.source.remove(&sha256(b"layer of b:1 for amd64"));
    let list = site.list(&["a:1", "b:1"]);
    let output = ends_with(4, &["export", "-f", &list, "-o", "-", "--keep-going"]);
    assert!(stderr(&output).contains("unfinished"), "{}", stderr(&output));
    std::fs::write(site.path("cut.tar"), &output.stdout).unwrap();
    // A blob that fails at once may end the output before its first byte: then it is no tar at all.
    ends_with(if output.stdout.is_empty() { 2 } else { 3 }, &["verify", &site.path("cut.tar")]);
}

#[tokio::test]
async fn an_increment_does_not_prune_an_image_that_is_only_missing() {
    let site = TestSite::new().await;
    site.source.put_image("a", "1", "amd64");
    site.source.put_image("c", "1", "amd64");
    let gone = site.source.put_image("b", "1", "amd64");
    let (list, first, next) = (site.list(&["a:1", "b:1", "c:1"]), site.path("first"), site.path("next"));
    ends_with(0, &["export", "-f", &list, "-o", &first]);
    site.source.remove(gone["digest"].as_str().unwrap());
    site.source.remove("/v2/b/manifests/1");
    // c is no longer wanted; b is wanted but unavailable.
    let list = site.list(&["a:1", "b:1"]);
    ends_with(1, &["export", "-f", &list, "--since", &first, "-o", &next, "--keep-going"]);
    let json: Value = serde_json::from_slice(&std::fs::read(format!("{next}/bundle.json")).unwrap()).unwrap();
    assert_eq!(references(&json["removed"]), ["c:1"]);
}

#[tokio::test]
async fn a_receipt_says_what_was_missing_and_the_next_increment_brings_it() {
    let (site, target) = (TestSite::new().await, Registry::start());
    site.source.put_image("a", "1", "amd64");
    site.source.put_image("b", "1", "amd64");
    let (list, whole, lock) = (site.list(&["a:1", "b:1"]), site.path("whole"), site.path("lock"));
    ends_with(0, &["lock", "-f", &list, "-o", &lock]);
    let layer = "layer of b:1 for amd64";
    site.source.remove(&sha256(layer.as_bytes()));
    let (first, receipt, next) = (site.path("first"), site.path("receipt"), site.path("next"));
    ends_with(1, &["export", "--locked", &lock, "-o", &first, "--keep-going"]);
    let import = ["import", &first, "--to", target.host(), "--json"];
    for more in [&["--dry-run"][..], &["--receipt", &receipt]] {
        let output = ends_with(0, &[&import[..], more].concat());
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(references(&report["missing"]), ["b:1"], "{report}");
        assert_eq!(report["missing"][0]["reason"], "not-found");
    }
    for command in [&["inspect", &first, "--json"][..], &["list", &first, "--json"]] {
        let shown: Value = serde_json::from_str(&stdout(&ends_with(0, command))).unwrap();
        assert_eq!(references(&shown["missing"]), ["b:1"], "{shown}");
    }
    assert!(stdout(&ends_with(0, &["inspect", &first])).contains("b:1 (not found)"));
    let output = ends_with(2, &["inspect", &format!("{first}#{}", site.source.name("b:1"))]);
    assert!(stderr(&output).contains("could not be fetched: not found"), "{}", stderr(&output));

    site.source.put_image("b", "1", "amd64");
    for since in [&receipt, &first] {
        ends_with(0, &["export", "-f", &list, "--since", since, "-o", &next]);
        let json: Value = serde_json::from_slice(&std::fs::read(format!("{next}/bundle.json")).unwrap()).unwrap();
        let carried = json["files"].to_string();
        assert!(carried.contains(&sha256(layer.as_bytes())[7..]), "{carried}");
        assert_eq!(json["lock"].get("missing"), None);
    }
    // It has the same lock, and so the same time, as the bundle that lacks the image.
    ends_with(0, &["export", "--locked", &lock, "-o", &whole]);
    ends_with(0, &["import", &whole, "--to", target.host(), "--newer-than", &receipt, "--receipt", &receipt]);
    ends_with(3, &["import", &first, "--to", target.host(), "--newer-than", &receipt]);
}

#[tokio::test]
async fn skip_missing_platform_takes_the_platforms_that_exist() {
    let site = TestSite::new().await;
    site.source.put_image("amd64", "1", "amd64");
    let platform = |architecture: &str| json!({"platform": {"os": "linux", "architecture": architecture}});
    let children = ["amd64", "arm64"].map(|one| with(site.source.put_image("both", "", one), platform(one)));
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children});
    site.source.put_manifest("both", "1", OCI_INDEX, &index);
    let (list, bundle) = (site.list(&["both:1", "amd64:1"]), site.path("b"));
    let wanted = ["export", "-f", &list, "-o", &bundle, "--platform", "linux/arm64", "--platform", "linux/s390x"];
    let output = ends_with(2, &wanted);
    assert!(stderr(&output).contains("linux/s390x") && stderr(&output).contains("list.txt:"), "{}", stderr(&output));
    ends_with(0, &[&wanted[..], &["--skip-missing-platform"]].concat());
    let json = lock_of(&bundle);
    assert_eq!(references(&json["images"]), ["both:1"]);
    assert_eq!(json["images"][0]["platforms"], json!([{"os": "linux", "architecture": "arm64"}]));
    assert_eq!(json["missing"][0]["reason"], "platform-missing");
    ends_with(0, &["verify", "--full", &bundle]);
}

/// An image with one layer, and a signature with its own layer under cosign's tag; returns that layer's digest.
fn put_signed(site: &TestSite, repository: &str) -> String {
    let image = site.source.put_image(repository, "1", "amd64");
    let payload = format!("payload of {repository}");
    let signature = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": typed(site.source.put_blob(repository, b"{}"), OCI_CONFIG),
        "layers": [typed(site.source.put_blob(repository, payload.as_bytes()), OCI_LAYER)]});
    let tag = image["digest"].as_str().unwrap().replace(':', "-") + ".sig";
    site.source.put_manifest(repository, &tag, OCI_MANIFEST, &signature);
    sha256(payload.as_bytes())
}

#[tokio::test]
async fn a_companion_with_a_lost_blob_is_left_out_and_its_image_kept() {
    for out in ["b", "b.tar"] {
        let site = TestSite::new().await;
        let lost = put_signed(&site, "a");
        put_signed(&site, "b");
        site.source.remove(&lost);
        let (list, bundle, lock) = (site.list(&["a:1", "b:1"]), site.path(out), site.path("lock"));
        let export = ["export", "-f", &list, "-o", &bundle, "--lock", &lock];
        ends_with(4, &[&export[..], &["--require-referrers"]].concat());
        let output = ends_with(0, &export);
        assert!(stderr(&output).contains("attached to it") && stderr(&output).contains(&lost), "{}", stderr(&output));
        let json: Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
        assert_eq!(references(&json["images"]), ["a:1", "b:1"]);
        let attached = |at: usize| json["images"][at]["attached"].as_array().unwrap().len();
        assert_eq!((attached(0), attached(1)), (0, 1), "{json}");
        assert_eq!(json["images"][0]["attachedUnknown"], true, "{json}");
        ends_with(0, &["verify", "--full", &bundle]);
        let target = Registry::start();
        ends_with(0, &["import", &bundle, "--to", target.host()]);
        // With required signatures, the image is left out together with its signature.
        ends_with(1, &[&export[..], &["--keep-going", "--require-referrers"]].concat());
        let json: Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
        assert_eq!((references(&json["images"]), references(&json["missing"])), (vec!["b:1"], vec!["a:1"]));
    }
}

/// Otherwise one broken signature costs every image of the night.
#[tokio::test]
async fn a_signature_that_the_registry_cannot_deliver_is_left_out() {
    let site = TestSite::new().await;
    let broken = put_signed(&site, "a");
    put_signed(&site, "b");
    site.source.server.when("GET", &broken).always().fault(Fault::Status(500));
    let (list, bundle) = (site.list(&["a:1", "b:1"]), site.path("b"));
    let export = ["export", "-f", &list, "-o", &bundle, "--retries", "1"];
    let message = stderr(&ends_with(0, &export));
    assert!(message.contains("attached to it could not be read, so it is left out"), "{message}");
    let lock = lock_of(&bundle);
    assert_eq!(references(&lock["images"]), ["a:1", "b:1"]);
    assert_eq!(lock["images"][0]["attachedUnknown"], true, "{lock}");
}

/// The bundle would count as complete until somebody has to prove where the image came from.
#[tokio::test]
async fn one_wrong_answer_does_not_lose_a_signature() {
    for fault in [Fault::ExtraBytes(87), Fault::WrongDigest, Fault::WrongLength(-1), Fault::Page] {
        for part in ["payload", "manifest"] {
            let site = TestSite::new().await;
            let payload = put_signed(&site, "a");
            let of = if part == "payload" { payload } else { ".sig".to_owned() };
            site.source.server.when("GET", &of).fault(fault.clone());
            let (list, bundle) = (site.list(&["a:1"]), site.path("b"));
            let message = stderr(&ends_with(0, &["export", "-f", &list, "-o", &bundle]));
            assert!(!message.contains("warning"), "{fault:?} of the {part}: {message}");
            let lock = lock_of(&bundle);
            assert_eq!(lock["images"][0]["attached"].as_array().unwrap().len(), 1, "{fault:?} of the {part}: {lock}");
            ends_with(0, &["verify", "--full", &bundle]);
        }
    }
}

/// A defective signature may be left out. One that an outage or a limit made unavailable must not be dropped with exit
/// code 0.
#[tokio::test]
async fn a_signature_unreachable_in_an_outage_is_not_left_out() {
    let limit = || Fault::TooMany(After::Seconds(7200));
    for (fault, code, reason) in [(Fault::Reset(Stage::Request), 5, "unreachable"), (limit(), 4, "rate-limited")] {
        let site = TestSite::new().await;
        let kept_away = put_signed(&site, "a");
        put_signed(&site, "b");
        site.source.server.when("GET", &kept_away).always().fault(fault.clone());
        let (list, bundle) = (site.list(&["a:1", "b:1"]), site.path("b"));
        let export = ["export", "-f", &list, "-o", &bundle, "--retries", "1", "--retry-budget", "1s"];
        let output = ends_with(code, &export);
        assert!(!std::path::Path::new(&bundle).exists(), "{fault:?}: {}", stderr(&output));
        // The image is incomplete: lock and exit code say so.
        ends_with(1, &[&export[..], &["--keep-going"]].concat());
        let lock = lock_of(&bundle);
        assert_eq!((references(&lock["images"]), references(&lock["missing"])), (vec!["b:1"], vec!["a:1"]));
        assert_eq!(lock["missing"][0]["reason"], reason, "{fault:?}: {lock}");
        site.source.server.heal();
        ends_with(0, &export);
        assert_eq!(lock_of(&bundle)["images"][0]["attached"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_export_with_no_image_left_does_not_replace_a_bundle() {
    let site = TestSite::new().await;
    let image = |name: &str, more: u64| {
        let layer = site.source.put_blob(name, b"a layer that both have");
        let size = layer["size"].as_u64().unwrap() + more;
        let config = json!({"os": "linux", "architecture": "amd64", "x": name}).to_string();
        let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": typed(site.source.put_blob(name, config.as_bytes()), OCI_CONFIG),
            "layers": [with(typed(layer, OCI_LAYER), json!({"size": size}))]});
        site.source.put_manifest(name, "1", OCI_MANIFEST, &image);
    };
    site.source.put_image("good", "1", "amd64");
    for out in ["b", "b.tar", "b.tar.zst"] {
        let bundle = site.path(out);
        ends_with(0, &["export", "-f", &site.list(&["good:1"]), "-o", &bundle]);
        image("a", 2);
        image("c", 3);
        let list = site.list(&["a:1", "c:1"]);
        let output = ends_with(3, &["export", "-f", &list, "-o", &bundle, "--keep-going"]);
        let message = stderr(&output);
        assert!(
            ["list.txt:1", "list.txt:2", "its descriptor says"].iter().all(|words| message.contains(words)),
            "{message}"
        );
        let listed: Value = serde_json::from_str(&stdout(&ends_with(0, &["list", &bundle, "--json"]))).unwrap();
        assert_eq!(references(&listed["images"]), ["good:1"]);
    }
    // An empty lock is not an order to carry nothing either.
    let (lock, bundle) = (site.path("lock"), site.path("b"));
    ends_with(0, &["lock", "-f", &site.list(&["good:1"]), "-o", &lock]);
    let mut empty: Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
    empty["images"] = json!([]);
    std::fs::write(&lock, empty.to_string()).unwrap();
    let output = ends_with(2, &["export", "--locked", &lock, "-o", &bundle]);
    assert!(stderr(&output).contains("--allow-empty"), "{}", stderr(&output));
    ends_with(0, &["export", "--locked", &lock, "-o", &bundle, "--allow-empty"]);
}

#[tokio::test]
async fn the_complete_bundle_of_a_lock_is_accepted_after_an_incomplete_one() {
    for (lost, reference) in [("layer", None), ("manifest", None), ("signature", Some("attachedUnknown"))] {
        let (site, target) = (TestSite::new().await, Registry::start());
        let signature = put_signed(&site, "a");
        site.source.put_image("b", "1", "amd64");
        let (list, lock) = (site.list(&["a:1", "b:1"]), site.path("lock"));
        ends_with(0, &["lock", "-f", &list, "-o", &lock]);
        match lost {
            "layer" => site.source.remove(&sha256(b"layer of b:1 for amd64")),
            "signature" => site.source.remove(&signature),
            _ => site.source.content.lock().unwrap().retain(|path, _| !path.contains("/b/manifests/")),
        }
        let (lacking, whole, receipt) = (site.path("lacking"), site.path("whole"), site.path("receipt"));
        // Some time after the lock was made.
        let mut command = gapferry();
        command.env("SOURCE_DATE_EPOCH", "4000000000");
        // The bundle lacks something the lock promises, whatever it is.
        command.args(["export", "--locked", &lock, "-o", &lacking, "--keep-going"]).assert().code(1);
        ends_with(0, &["import", &lacking, "--to", target.host(), "--receipt", &receipt]);
        let report: Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
        assert_eq!(report["images"][0].get("attachedUnknown").is_some(), reference.is_some(), "{lost}: {report}");
        // It is not older than the complete bundle and adds nothing to it.
        put_signed(&site, "a");
        site.source.put_image("b", "1", "amd64");
        ends_with(0, &["export", "--locked", &lock, "-o", &whole]);
        let import = |bundle: &str, code| {
            let newer = ["--to", target.host(), "--newer-than", &receipt, "--receipt", &receipt];
            ends_with(code, &[&["import", bundle], &newer[..]].concat());
        };
        import(&whole, 0);
        import(&lacking, 3);
        import(&whole, 0);
    }
}

#[tokio::test]
async fn only_the_image_that_gives_a_shared_layer_another_size_is_left_out() {
    for (wrong_first, out) in [(true, "b"), (false, "b.tar"), (false, "-")] {
        let site = TestSite::new().await;
        let names = if wrong_first { ["a", "c"] } else { ["c", "a"] };
        for (name, more) in [("a", 3), ("c", 0)] {
            let layer = site.source.put_blob(name, b"a layer that both have");
            let size = layer["size"].as_u64().unwrap() + more;
            let config = json!({"os": "linux", "architecture": "amd64", "x": name}).to_string();
            let image = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
                "config": typed(site.source.put_blob(name, config.as_bytes()), OCI_CONFIG),
                "layers": [with(typed(layer, OCI_LAYER), json!({"size": size}))]});
            site.source.put_manifest(name, "1", OCI_MANIFEST, &image);
        }
        let (list, lock) =
            (site.list(&names.map(|name| format!("{name}:1")).each_ref().map(String::as_str)), site.path("lock"));
        let bundle = if out == "-" { out.to_owned() } else { site.path(out) };
        let export = ["export", "-f", &list, "-o", &bundle, "--lock", &lock];
        ends_with(3, &export);
        let output = ends_with(1, &[&export[..], &["--keep-going"]].concat());
        assert!(stderr(&output).contains("bytes instead of"), "{}", stderr(&output));
        let json: Value = serde_json::from_slice(&std::fs::read(&lock).unwrap()).unwrap();
        assert_eq!((references(&json["images"]), references(&json["missing"])), (vec!["c:1"], vec!["a:1"]));
        assert_eq!(json["missing"][0]["reason"], "damaged");
        if out != "-" {
            ends_with(0, &["verify", "--full", &bundle]);
        }
    }
}

#[tokio::test]
async fn of_two_entries_with_one_name_only_the_second_is_left_out() {
    let site = TestSite::new().await;
    let first = site.source.put_image("a", "1", "amd64");
    site.source.put_image("a", "1", "arm64");
    let (pinned, bundle) = (format!("a:1@{}", first["digest"].as_str().unwrap()), site.path("b"));
    let list = site.list(&["a:1", &pinned]);
    let export = ["export", "-f", &list, "-o", &bundle];
    ends_with(2, &export);
    ends_with(1, &[&export[..], &["--keep-going"]].concat());
    let json = lock_of(&bundle);
    assert_eq!((references(&json["images"]), references(&json["missing"])), (vec!["a:1"], vec![&pinned[..]]));
    ends_with(0, &["verify", "--full", &bundle]);
}

/// Deletion is permanent: a tag missing from a cut list may still be wanted.
#[tokio::test]
async fn a_possibly_incomplete_tag_list_is_recorded_and_prunes_nothing() {
    let (site, layout) = (TestSite::new().await, tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    for tag in ["1", "2", "3"] {
        site.source.put_image("app", tag, "amd64");
    }
    let list_tags = |tags: Value| {
        let page = json!({"name": "app", "tags": tags}).to_string();
        site.source.put("/v2/app/tags/list?n=1000".to_owned(), "application/json", page.as_bytes());
    };
    let (list, first, next, lock) = (site.list(&["app"]), site.path("first"), site.path("next"), site.path("lock"));
    let receipt = site.path("first.receipt");
    list_tags(json!(["1", "2", "3"]));
    ends_with(0, &["export", "-f", &list, "-o", &first]);
    ends_with(0, &["import", &first, "--to", target.host(), "--receipt", &receipt]);
    // An unreadable entry may have been any tag.
    list_tags(json!(["1", null]));
    ends_with(1, &["export", "-f", &list, "-o", &next, "--since", &receipt]);
    let entry = json!([{"reference": site.source.name("app"), "reason": "tags-incomplete"}]);
    assert_eq!(lock_of(&next)["missing"], entry);
    let prune = ["import", &next, "--to", target.host(), "--prune", "--yes", "--arrived", &receipt];
    let output = ends_with(0, &prune);
    let short = "1 list of tags may be incomplete; images that it lacks were left out: ";
    assert!(stderr(&output).contains(&format!("{short}{}", site.source.name("app"))), "{}", stderr(&output));
    assert_eq!(target.get("/v2/app/manifests/2").status, 200);
    // The doubt survives the way through a lock.
    ends_with(1, &["lock", "-f", &list, "-o", &lock]);
    let again = site.path("again");
    let output = ends_with(0, &["export", "--locked", &lock, "-o", &again, "--since", &receipt]);
    assert!(stderr(&output).contains("1 list of tags may be incomplete"), "{}", stderr(&output));
    assert_eq!(lock_of(&again)["missing"], entry);
    for command in [&["verify", &again][..], &["list", &again]] {
        assert!(stdout(&ends_with(0, command)).contains("1 list of tags may be incomplete"));
    }
    let reference = format!("{again}#{}:2", site.source.name("app"));
    assert!(stderr(&ends_with(2, &["inspect", &reference])).contains("may have been incomplete"));
    // A tag of the repository named in full is not in doubt, and entries removed from the allowlist may be pruned.
    let list = site.list(&["app:1"]);
    ends_with(0, &["export", "-f", &list, "-o", &next, "--since", &receipt]);
    assert!(lock_of(&next).get("missing").is_none());
    ends_with(0, &prune);
    assert_eq!(target.get("/v2/app/manifests/2").status, 404);
}
