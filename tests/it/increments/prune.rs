//! Pruning tags of images that are no longer wanted.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::fixture::{Sides, import_to};
use crate::signed::keys::{Key, Kind};
use crate::support::barrier::Barrier;
use crate::support::embedded::Embedded;
use crate::support::ran::Ran;
use crate::support::registry::{Options, Registry};
use crate::support::{gapferry, gapferry_process, images, tempdir};

/// Images 1 to 3 have arrived at `host`. The next bundle contains only the first, and tag 3 has a new digest at `host`.
fn outdated(sides: &Sides, host: &str) {
    for tag in ["1", "2", "3"] {
        images::oci("team/app", tag, &[tag]).push(&sides.source);
    }
    sides.export("first", &["team/app:1", "team/app:2", "team/app:3"], &[]);
    import_to(host, sides.stick.path(), "first", &["--receipt", "first.receipt"]).ended(0);
    sides
        .export("next", &["team/app:1"], &["--since", "first.receipt"])
        .reported(&["2 images no longer wanted", "team/app:2"]);
    let removed: Vec<String> = sides.json("next").removed.iter().map(|image| image.reference.to_string()).collect();
    assert_eq!(removed, [2, 3].map(|tag| format!("{}/team/app:{tag}", sides.source.host())));
}

#[test]
fn a_tag_is_pruned_only_with_prune_and_yes_and_only_if_unchanged() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    outdated(&sides, target.host());
    images::oci("team/app", "3", &["made here since"]).push(&target);
    let import = |options: &[&str]| import_to(target.host(), sides.stick.path(), "next", options).ended(0);
    let there = |tag: &str| target.get(&format!("/v2/team/app/manifests/{tag}")).status == 200;
    import(&[]);
    import(&["--prune"]).reported(&["would delete", "team/app:2", "1 tag to prune; --yes deletes", "--arrived FILE"]);
    import(&["--prune", "--arrived", "first.receipt"])
        .reported(&["would delete", "1 tag to prune; --yes deletes them"]);
    assert!(there("2"), "without --yes nothing is deleted");
    import(&["--prune", "--yes", "--arrived", "first.receipt"]).reported(&["deleted", "1 of 1 tag deleted"]);
    assert!(there("1") && !there("2") && there("3"));
    import(&["--prune", "--yes", "--arrived", "first.receipt"]).reported(&["nothing to prune"]);
}

/// Without it, nobody could tell later what is gone.
#[test]
fn the_receipt_of_a_stopped_import_lists_what_was_deleted() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    let barrier = Barrier::before(target.host(), "DELETE /v2/team/app/manifests/3 ");
    outdated(&sides, barrier.host());
    let options = ["--prune", "--yes", "--arrived", "first.receipt", "--receipt", "next.receipt"];
    let mut command = gapferry_process();
    command.current_dir(sides.stick.path()).args(["import", "next.tar", "--to", barrier.host()]).args(options);
    let mut process = command.stderr(Stdio::null()).spawn().unwrap();
    barrier.wait();
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(130));
    let receipt = sides.read("next.receipt");
    assert_eq!(receipt["images"].as_array().map(Vec::len), Some(1), "{receipt}");
    let pruned = receipt["pruned"].as_array().unwrap().iter();
    let pruned: Vec<_> =
        pruned.map(|one| (one["reference"].as_str().unwrap(), one["outcome"].as_str().unwrap())).collect();
    assert_eq!(pruned, [(&*format!("{}/team/app:2", barrier.host()), "deleted")]);
}

#[test]
fn a_registry_that_cannot_delete_just_a_tag_keeps_it_with_a_report() {
    let sides = Sides::new();
    outdated(&sides, sides.target.host());
    sides
        .import("next", &["--prune", "--yes", "--arrived", "first.receipt"])
        .ended(1)
        .reported(&["cannot delete a tag without its manifest"]);
    assert!(sides.target.digest("team/app", "2").is_some());
}

#[test]
fn disabled_deletion_is_not_reported_as_unsupported() {
    let sides = Sides { target: Registry::with(Options { no_deletion: true, ..Options::default() }), ..Sides::new() };
    outdated(&sides, sides.target.host());
    let deleting = ["--prune", "--yes", "--arrived", "first.receipt"];
    sides.import("next", &deleting).ended(1).reported(&["deletion is switched off", "0 of 2 tags deleted"]);
}

#[test]
fn a_signature_once_carried_as_an_image_stays_with_the_image_it_signs() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    let image = images::oci("team/signed", "v1", &["signed"]);
    let signature = images::cosign_signature(&image);
    [&image, &signature, &image.named("team/signed", "v0")].iter().for_each(|image| image.push(&sides.source));
    // All tags, including the signature's.
    sides.export("first", &["team/signed"], &[]);
    import_to(target.host(), sides.stick.path(), "first", &["--receipt", "first.receipt"]).ended(0);
    sides.export("next", &["team/signed:v1"], &["--since", "first.receipt"]).reported(&["1 image no longer wanted"]);
    let prune = ["--prune", "--yes", "--arrived", "first.receipt"];
    import_to(target.host(), sides.stick.path(), "next", &prune).ended(0).reported(&["1 of 1 tag deleted"]);
    let there = |tag: &str| target.get(&format!("/v2/team/signed/manifests/{tag}")).status == 200;
    assert!(there("v1") && !there("v0") && there(signature.tag.as_deref().unwrap()));
}

#[test]
fn from_a_pipe_an_older_bundle_is_refused_and_pruning_runs_last() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    outdated(&sides, target.host());
    let import = |name: &str, options: &[&str]| {
        let bundle = std::fs::read(sides.path(&format!("{name}.tar"))).unwrap();
        let mut command = gapferry();
        command.current_dir(sides.stick.path()).args(["import", "-", "--to", target.host()]).args(options);
        Ran::of(command.write_stdin(bundle))
    };
    let there = |tag: &str| target.get(&format!("/v2/team/app/manifests/{tag}")).status == 200;
    import("next", &["--prune", "--receipt", "next.receipt"]).ended(0).reported(&["would delete", "2 tags to prune"]);
    assert!(there("2") && there("3"));
    import("next", &["--prune", "--yes", "--arrived", "first.receipt"]).ended(0).reported(&["2 of 2 tags deleted"]);
    assert!(there("1") && !there("2") && !there("3"));
    sides.export_at(1_600_000_000, "old", &["team/app:1", "team/app:2"], &[]);
    let refused = import("old", &["--newer-than", "next.receipt"]).ended(3);
    refused.reported(&["nothing was pushed", "is not later than the bundle of next.receipt"]);
    assert!(!there("2"));
}

/// A receipt claiming that gapferry pushed an image to `host`.
fn forged(sides: &Sides, host: &str, digest: &str) {
    let receipt = json!({
        "version": 1, "target": host, "finished": "2026-11-21T00:00:00Z", "confirmed": [],
        "images": [{"source": format!("{}/prod/db:1", sides.source.host()), "reference": format!("{host}/prod/db:1"),
            "digest": digest, "outcome": "present"}],
    });
    std::fs::write(sides.path("forged.receipt"), receipt.to_string()).unwrap();
}

#[test]
fn a_forged_receipt_cannot_delete_what_gapferry_did_not_push() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    let database = images::oci("prod/db", "1", &["pushed by somebody else"]);
    database.push(&target);
    images::oci("team/app", "1", &["app"]).push(&sides.source);
    sides.export("first", &["team/app:1"], &[]);
    let import = |name: &str, options: &[&str]| import_to(target.host(), sides.stick.path(), name, options);
    import("first", &["--receipt", "first.receipt"]).ended(0);
    forged(&sides, target.host(), &database.digest());
    // Signed by the connected side, which trusted the receipt.
    let key = Key::new(sides.stick.path(), "own", Kind::P256);
    let (key, public) = (key.private.to_str().unwrap(), key.public.to_str().unwrap());
    let increment = sides.export("next", &["team/app:1"], &["--since", "forged.receipt", "--sign-key", key]);
    increment.reported(&["1 image no longer wanted", "prod/db:1"]);
    let there = || target.get("/v2/prod/db/manifests/1").status == 200;
    let alone = import("next", &["--key", public, "--prune", "--yes"]).ended(1);
    alone.reported(&["would delete", "prod/db:1", "--arrived FILE"]);
    assert!(there());
    let known = import("next", &["--key", public, "--prune", "--yes", "--arrived", "first.receipt"]).ended(0);
    known.reported(&["prod/db:1 is left: no receipt of --arrived lists", "nothing to prune"]);
    assert!(there());
}

#[test]
fn an_inventory_or_unsigned_receipt_proves_nothing_where_a_signature_is_required() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    outdated(&sides, target.host());
    let import = |options: &[&str]| import_to(target.host(), sides.stick.path(), "next", options);
    let there = || target.get("/v2/team/app/manifests/2").status == 200;
    let mut inventory = sides.read("first.receipt");
    inventory["kind"] = json!("inventory");
    std::fs::write(sides.path("inventory.json"), inventory.to_string()).unwrap();
    import(&["--prune", "--yes", "--arrived", "inventory.json"]).ended(2).reported(&["inventory.json is an inventory"]);
    let key = Key::new(sides.stick.path(), "own", Kind::P256);
    let (key, public) = (key.private.to_str().unwrap(), key.public.to_str().unwrap());
    let prune = ["--prune", "--yes", "--arrived", "first.receipt", "--arrived-key", public];
    import(&prune).ended(3).reported(&["first.receipt is refused: it is not signed"]);
    assert!(there());
    // An unsigned receipt proves nothing to a signed one: another program may have pushed what it found.
    let receipt = ["--receipt", "first.receipt", "--sign-key", key];
    import_to(target.host(), sides.stick.path(), "first", &receipt).ended(0);
    import(&prune).ended(0).reported(&["is left: no receipt of --arrived lists", "nothing to prune"]);
    assert!(there());
    let second = Embedded::writable(&layout.path().join("second"));
    for present in [0, 3] {
        let ran = import_to(second.host(), sides.stick.path(), "first", &receipt).ended(0);
        assert_eq!(ran.stderr.contains("3 present"), present == 3, "{}", ran.stderr);
    }
    import_to(second.host(), sides.stick.path(), "next", &prune).ended(0).reported(&["2 of 2 tags deleted"]);
    assert_eq!(second.get("/v2/team/app/manifests/2").status, 404);
}

/// Someone on the isolated side may have pushed the same image earlier.
#[test]
fn images_an_import_found_in_place_are_never_pruned() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    images::oci("team/app", "2", &["2"]).push(&target);
    outdated(&sides, target.host());
    let import = |name: &str, options: &[&str]| import_to(target.host(), sides.stick.path(), name, options).ended(0);
    let there = |tag: &str| target.get(&format!("/v2/team/app/manifests/{tag}")).status == 200;
    // A rerun with another receipt proves nothing. A rerun with the same receipt or with --arrived knows what the first
    // run pushed.
    import("first", &["--receipt", "alone.receipt"]).reported(&["3 present"]);
    import("next", &["--prune", "--yes", "--arrived", "alone.receipt"]).reported(&["nothing to prune"]);
    assert!(there("2") && there("3"));
    import("first", &["--receipt", "again.receipt", "--prune", "--arrived", "first.receipt"]).reported(&["3 present"]);
    import("first", &["--receipt", "again.receipt"]).reported(&["3 present"]);
    let stays = "team/app:2 is left: no receipt of --arrived lists";
    import("next", &["--prune", "--yes", "--arrived", "again.receipt"]).reported(&[stays, "1 of 1 tag deleted"]);
    assert!(there("1") && there("2") && !there("3"));
}
