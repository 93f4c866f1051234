//! Bases of increments: receipts, whatever the outcome of their import, and inventories; and the order in which bundles
//! may follow each other.

use std::path::PathBuf;

use super::fixture::Sides;
use crate::support::embedded::Embedded;
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::{gapferry, sha256, skopeo};

fn app(name: &str) -> Image {
    images::oci(&format!("team/{name}"), "1", &["a base that all share", &format!("of {name}")])
}

#[test]
fn the_next_increment_contains_what_a_failed_import_did_not_push() {
    let sides = Sides::new();
    let (good, bad) = (app("good"), app("bad"));
    [&good, &bad].iter().for_each(|image| image.push(&sides.source));
    let names = ["team/good:1", "team/bad:1"];
    sides.export("first", &names, &[]);
    images::oci("team/bad", "1", &["in the way"]).push(&sides.target);
    sides.import("first", &["--on-existing", "fail", "--receipt", "first.receipt"]).ended(1);
    sides.export("second", &names, &["--since", "first.receipt"]);
    let carried = sides.carried("second");
    // Its blobs may even be present, but nothing confirmed that.
    for blob in [&bad.blobs[0], &bad.blobs[2], &bad.manifest] {
        assert!(carried.contains(&sha256(blob)), "{carried:?}");
    }
    assert_eq!(carried.len(), 3, "nothing of the image that arrived");
    sides.deliver("second");
    assert_eq!(sides.target.digest("team/bad", "1"), Some(bad.digest()));
}

#[test]
fn an_older_bundle_is_refused_after_a_newer_one() {
    let sides = Sides::new();
    app("good").push(&sides.source);
    sides.export_at(1_700_000_000, "old", &["team/good:1"], &[]);
    sides.export_at(1_800_000_000, "new", &["team/good:1"], &[]);
    sides.deliver("new");
    let refused = sides.import("old", &["--newer-than", "new.receipt"]).ended(3);
    refused.reported(&[
        "nothing was pushed",
        "is not later than the bundle of new.receipt",
        "hint: this bundle is older than the last one",
    ]);
    sides.import("new", &["--newer-than", "new.receipt"]).ended(0);
    sides.export_at(1_800_000_001, "newer", &["team/good:1"], &["--since", "new.receipt"]);
    sides.import("newer", &["--newer-than", "new.receipt"]).ended(0);
}

/// The platform of a single image is in its config, and a forged lock could claim any platform for an image that the
/// target has.
#[test]
fn the_platform_of_an_image_not_in_the_increment_is_read_from_the_target() {
    let sides = Sides::new();
    images::oci_for("arm64", "team/app", "1", &["arm"]).push(&sides.source);
    sides.export("first", &["team/app:1"], &[]);
    sides.deliver("first");
    let increment = |name: &str| {
        let mut command = gapferry();
        let reference = format!("{}/team/app:1", sides.source.host());
        command.current_dir(sides.stick.path()).args(["export", &reference, "--since", "first.receipt", "-o", name]);
        Ran::of(&mut command).ended(0);
        let read = |file: &str| std::fs::read_to_string(sides.path(name).join(file)).unwrap();
        (read("bundle.json"), read("SHA256SUMS"))
    };
    let (json, sums) = increment("honest");
    increment("forged");
    let forged = json.replace("arm64", "amd64");
    let sums = sums.replace(&sha256(json.as_bytes())[7..], &sha256(forged.as_bytes())[7..]);
    std::fs::write(sides.path("forged/bundle.json"), forged).unwrap();
    std::fs::write(sides.path("forged/SHA256SUMS"), sums).unwrap();
    let import = |bundle: &str, platform: &str| {
        std::fs::write(sides.path("allow"), format!("{}/team/app:1 platform={platform}", sides.source.host())).unwrap();
        let mut command = gapferry();
        command.current_dir(sides.stick.path()).args([
            "import",
            bundle,
            "--to",
            sides.target.host(),
            "--allow",
            "allow",
        ]);
        Ran::of(&mut command)
    };
    import("forged", "linux/amd64")
        .ended(3)
        .reported(&["(linux/arm64), which allow:1 does not allow", "nothing was pushed"]);
    import("honest", "linux/arm64").ended(0);
}

fn inventory(sides: &Sides, allowlist: &str) -> Ran {
    std::fs::write(sides.path("images.txt"), allowlist).expect("the allowlist");
    let mut command = gapferry();
    command.current_dir(sides.stick.path()).args(["inventory", sides.target.host(), "-f", "images.txt"]);
    Ran::of(command.args(["-o", "inventory.json"]))
}

#[test]
fn an_inventory_replaces_a_receipt_and_confirms_only_complete_images() {
    let sides = Sides::new();
    let (one, two, three) = (app("one"), images::oci_index("team/two", "1", "two"), app("three"));
    [&one, &two, &three].iter().for_each(|image| image.push(&sides.source));
    for name in ["team/one:1", "team/two:1"] {
        let (from, to) = (format!("docker://{}/{name}", sides.source.host()), sides.target.host());
        skopeo::copy(&from, &format!("docker://{to}/{name}"));
    }
    let host = sides.source.host();
    let allowlist = format!("{host}/team/one\n{host}/team/two:1\n{host}/team/three:1\n{host}/team/none\n");
    inventory(&sides, &allowlist)
        .ended(0)
        .reported(&["team/none has no tag that matches", "2 of 3 images are complete"]);
    let names = ["team/one:1", "team/two:1", "team/three:1"];
    sides.export("next", &names, &["--since", "inventory.json"]).reported(&["builds on an inventory of"]);
    assert_eq!(sides.carried("next").len(), 3, "the third image without its base");
    sides.deliver("next").reported(&["1 image pushed, 2 present"]);

    // The target loses a layer.
    lose(&sides, &sha256(&one.blobs[2]));
    inventory(&sides, &allowlist).ended(0).reported(&["2 of 3 images are complete"]);
    let report = sides.read("inventory.json");
    let failed: Vec<&str> = report["images"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|image| image["outcome"] == "failed")
        .map(|image| image["source"].as_str().unwrap())
        .collect();
    assert_eq!(failed, [format!("{host}/team/one:1")]);
}

/// A nightly script could not tell how much of its list is at the target without matching text for people.
#[test]
fn an_inventory_with_json_counts_what_is_there_and_names_what_could_not_be_read() {
    let sides = Sides::new();
    let one = app("one");
    one.push(&sides.source);
    let (from, to) = (format!("docker://{}/team/one:1", sides.source.host()), sides.target.host());
    skopeo::copy(&from, &format!("docker://{to}/team/one:1"));
    std::fs::write(sides.path("images.txt"), format!("{0}/team/one:1\n{0}/team/two:1\n", sides.source.host())).unwrap();
    let inventory = |more: &[&str]| {
        let mut command = gapferry();
        command.current_dir(sides.stick.path()).args(["inventory", to, "-f", "images.txt", "--json"]);
        Ran::of(command.args(more))
    };
    let ran = inventory(&["-o", "inventory.json"]).ended(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        report,
        serde_json::json!({
            "version": 1, "ok": true, "output": "inventory.json", "target": to,
            "imageCount": 2, "present": 1, "confirmedCount": one.blobs.len() + 1, "unreadable": [],
        })
    );
    // The inventory itself would go to standard output.
    inventory(&[]).ended(2);
}

/// Removes a blob's data from the target's storage.
pub fn lose(sides: &Sides, digest: &str) {
    std::fs::remove_dir_all(data_of(sides, digest).parent().expect("a directory")).expect("the blob");
}

/// The file in which the target has a blob.
pub fn data_of(sides: &Sides, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    let blobs = sides.target.storage().join("docker/registry/v2/blobs/sha256");
    blobs.join(&hex[..2]).join(hex).join("data")
}

#[test]
fn a_base_that_is_neither_receipt_nor_bundle_is_refused_before_any_request() {
    let sides = Sides::new();
    std::fs::write(sides.path("odd.json"), "{\"version\": 7}").unwrap();
    std::fs::write(sides.path("odd.bin"), "something").unwrap();
    let requests = sides.source.requests().len();
    sides.try_export("b", &["team/app:1"], &["--since", "odd.json"]).ended(2).reported(&["version 7"]);
    sides.try_export("b", &["team/app:1"], &["--since", "odd.bin"]).ended(2).reported(&["not a receipt"]);
    sides.try_export("b", &["team/app:1"], &["--since", "absent"]).ended(2).reported(&["absent"]);
    assert_eq!(sides.source.requests().len(), requests);
}

#[test]
fn a_receipt_can_be_a_pipe_and_one_volume_stands_for_its_set_as_a_base() {
    let sides = Sides::new();
    app("old").push(&sides.source);
    sides.export("first", &["team/old:1"], &["--volume-size", "64KiB"]);
    let mut import = gapferry();
    import.current_dir(sides.stick.path()).args(["import", "first.001.tar", "--to", sides.target.host()]);
    Ran::of(import.args(["--receipt", "first.receipt"])).ended(0);
    app("new").push(&sides.source);
    let names = ["team/old:1", "team/new:1"];
    let receipt = std::fs::read(sides.path("first.receipt")).unwrap();
    let mut piped = sides.export_command("piped", &names, &["--since", "-"]);
    Ran::of(piped.write_stdin(receipt)).ended(0).reported(&["builds on a receipt of"]);
    // As a shell passes it: `--since <(ssh inside cat receipt.json)`.
    let (fifo, receipt) = (sides.path("fifo"), sides.path("first.receipt"));
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let feeding = std::thread::spawn(move || std::fs::copy(receipt, fifo));
    sides.export("fifo", &names, &["--since", "fifo"]).reported(&["builds on a receipt of"]);
    feeding.join().unwrap().unwrap();
    let twice = ["--since", "first.001.tar", "--since", "first.001.tar"];
    sides.export("volume", &names, &twice).reported(&["builds on the bundle", "assuming that"]);
    assert_eq!(sides.json("volume").parents.len(), 1);
    for name in ["piped", "fifo", "volume"] {
        assert_eq!(sides.carried(name).len(), 3, "{name}: the new image without its base");
    }
}

#[test]
fn only_complete_images_of_an_increment_are_served() {
    let sides = Sides::new();
    let (old, new) = (app("old"), images::oci("team/new", "1", &["nothing shared"]));
    old.push(&sides.source);
    sides.export("first", &["team/old:1"], &[]);
    sides.deliver("first");
    new.push(&sides.source);
    sides.export("second", &["team/old:1", "team/new:1"], &["--since", "first.receipt"]);
    let served = Embedded::serve(&sides.path("second.tar"));
    assert!(served.references().iter().all(|name| name.contains("team/new")), "{:?}", served.references());
    skopeo::inspect_raw(&format!("docker://{}/team/new:1", served.host()));
}

#[test]
fn an_increment_may_cross_in_volumes() {
    let sides = Sides::new();
    app("old").push(&sides.source);
    sides.export("first", &["team/old:1"], &[]);
    sides.deliver("first");
    let new = images::oci("team/new", "1", &["a base that all share", &images::noise(7, 300_000)]);
    new.push(&sides.source);
    sides.export("second", &["team/old:1", "team/new:1"], &["--since", "first.receipt"]);
    let mut split = gapferry();
    split.current_dir(sides.stick.path()).args(["split", "second.tar", "-o", "v", "--volume-size", "100KiB"]);
    Ran::of(&mut split).ended(0);
    let mut import = gapferry();
    let files = std::fs::read_dir(sides.stick.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let volumes = files.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with("v."));
    let volumes: Vec<String> = volumes.collect();
    assert!(volumes.len() > 1, "{volumes:?}");
    import.current_dir(sides.stick.path()).arg("import").args(volumes).args(["--to", sides.target.host()]);
    Ran::of(&mut import).ended(0).reported(&["1 image pushed, 1 present"]);
    assert_eq!(sides.target.digest("team/new", "1"), Some(new.digest()));
}
