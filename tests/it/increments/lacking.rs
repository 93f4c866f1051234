//! Targets that lack assumed content, or have it in another repository.

use super::baseline::{data_of, lose};
use super::fixture::Sides;
use crate::support::faulty::{Fault, Proxy};
use crate::support::images;
use crate::support::ran::Ran;
use crate::support::{gapferry, sha256};

#[test]
fn a_layer_left_only_in_a_removed_images_repository_is_mounted_from_there() {
    let sides = Sides::new();
    let old = images::oci("team/old", "1", &[&images::noise(3, 100_000)]);
    old.push(&sides.source);
    sides.export("first", &["team/old:1"], &[]);
    sides.deliver("first");
    let new = images::oci("apps/new", "1", &[&images::noise(3, 100_000), "on top"]);
    new.push(&sides.source);
    sides.export("second", &["apps/new:1"], &["--since", "first.receipt"]);
    assert!(!sides.carried("second").contains(&sha256(&new.blobs[1])), "the base has arrived");
    let uploads = sides.target.uploads();
    sides.deliver("second");
    assert_eq!(sides.target.digest("apps/new", "1"), Some(new.digest()));
    assert_eq!(sides.target.uploads() - uploads, 2, "config and layer; the base is mounted");
}

#[test]
fn content_lost_at_the_target_is_named_and_can_be_restored_by_a_repair() {
    let sides = Sides::new();
    let base = images::noise(4, 100_000);
    let old = images::oci("team/app", "1", &[&base]);
    old.push(&sides.source);
    sides.export("first", &["team/app:1"], &[]);
    sides.deliver("first");
    let new = images::oci("team/app", "2", &[&base, "on top"]);
    new.push(&sides.source);
    sides.export("second", &["team/app:1", "team/app:2"], &["--since", "first.receipt", "--lock", "second.lock"]);
    let lost = sha256(&old.blobs[1]);
    lose(&sides, &lost);
    sides.import("second", &["--missing", "missing.json"]).ended(7).reported(&[
        "missing.json: 1 blob, ",
        "lacks 1 blob",
        &lost,
    ]);
    assert_eq!(sides.target.digest("team/app", "2"), None);
    let missing = sides.read("missing.json");
    assert_eq!(missing["blobs"].as_array().unwrap().len(), 1);
    assert_eq!(missing["blobs"][0]["digest"], lost.as_str());

    let mut repair = gapferry();
    repair.current_dir(sides.stick.path()).args(["export", "--repair", "missing.json", "--locked", "second.lock"]);
    Ran::of(repair.args(["-o", "repair.tar"])).ended(0);
    sides.import("second", &["--repair", "repair.tar"]).ended(0);
    for image in [old, new] {
        assert_eq!(sides.target.digest("team/app", image.tag.as_deref().unwrap()), Some(image.digest()));
        for blob in &image.blobs {
            sides.target.request("GET", &format!("/v2/team/app/blobs/{}", sha256(blob))).send().expect(200);
        }
    }
}

/// A user who doubts the target's storage must neither hear that a healthy target lost everything, nor get images of
/// damaged layers.
#[test]
fn reupload_reads_in_full_what_an_increment_relies_on_at_the_target() {
    let sides = Sides::new();
    let base = images::noise(4, 100_000);
    images::oci("team/app", "1", &[&base]).push(&sides.source);
    sides.export("first", &["team/app:1"], &[]);
    sides.deliver("first");
    let new = ["team/app", "apps/new"].map(|name| images::oci(name, "2", &[&base, "on top"]));
    new.iter().for_each(|image| image.push(&sides.source));
    sides.export("second", &["team/app:2", "apps/new:2"], &["--since", "first.receipt"]);
    let layer = sha256(&new[0].blobs[1]);
    sides.import("second", &["--reupload"]).ended(0);
    for image in &new {
        assert_eq!(sides.target.digest(&image.repository, "2"), Some(image.digest()));
        sides.target.request("GET", &format!("/v2/{}/blobs/{layer}", image.repository)).send().expect(200);
    }
    // The same length as before, so the last byte proves nothing.
    let mut rotten = new[0].blobs[1].clone();
    rotten[0] ^= 1;
    std::fs::write(data_of(&sides, &layer), rotten).unwrap();
    let ran = sides.import("second", &["--reupload", "--missing", "missing.json"]).ended(7);
    ran.reported(&["nothing was pushed", &layer]);
    assert_eq!(sides.read("missing.json")["blobs"][0]["digest"], layer.as_str());
}

/// A proxy in between may refuse every redirect of the registry. That does not mean that content is lost.
#[test]
fn unreachable_storage_behind_the_registry_does_not_stop_an_increment() {
    let sides = Sides::new();
    let base = images::noise(4, 100_000);
    images::oci("team/app", "1", &[&base]).push(&sides.source);
    sides.export("first", &["team/app:1"], &[]);
    sides.deliver("first");
    let new = images::oci("team/app", "2", &[&base, "on top"]);
    new.push(&sides.source);
    sides.export("second", &["team/app:1", "team/app:2"], &["--since", "first.receipt"]);
    let proxy = Proxy::before(sides.target.host());
    proxy.when("GET", "/blobs/sha256").always().fault(Fault::Redirect(proxy.elsewhere().address.clone()));
    proxy.elsewhere().when("*", "/blobs/").always().fault(Fault::Status(403));
    let ran = super::fixture::import_to(&proxy.address, sides.stick.path(), "second", &[]).ended(0);
    ran.reported(&["cannot be read from here", "403"]);
    assert_eq!(sides.target.digest("team/app", "2"), Some(new.digest()));
}

#[test]
fn a_repair_is_fetched_from_one_registry_while_another_is_gone() {
    let sides = Sides::new();
    let gone = crate::support::registry::Registry::start();
    let (kept, other) = (images::oci("team/kept", "1", &["kept"]), images::oci("team/gone", "1", &["gone"]));
    kept.push(&sides.source);
    other.push(&gone);
    let run = |arguments: &[&str]| {
        let mut command = gapferry();
        Ran::of(command.current_dir(sides.stick.path()).args(arguments))
    };
    let references = [format!("{}/team/gone:1", gone.host()), format!("{}/team/kept:1", sides.source.host())];
    run(&["export", &references[0], &references[1], "-o", "bundle", "--lock", "bundle.lock"]).ended(0);
    let damage = |image: &images::Image| {
        let name = sha256(&image.blobs[1]).replacen(':', "/", 1);
        std::fs::write(sides.path("bundle/blobs").join(name), "rot").unwrap();
        run(&["verify", "bundle", "--missing", "missing.json"]).ended(3);
    };
    let repair =
        ["export", "--repair", "missing.json", "--locked", "bundle.lock", "-o", "repair.tar", "--retries", "0"];
    damage(&kept);
    drop(gone);
    run(&repair).ended(0);
    damage(&other);
    run(&repair).ended(5).reported(&["does not answer", &sha256(&other.blobs[1])]);
}

#[test]
fn an_increment_for_another_registry_than_its_receipt_pushes_nothing() {
    let sides = Sides::new();
    images::oci("team/app", "1", &["one"]).push(&sides.source);
    sides.export("first", &["team/app:1"], &[]);
    sides.deliver("first");
    images::oci("team/app", "2", &["two"]).push(&sides.source);
    sides.export("second", &["team/app:1", "team/app:2"], &["--since", "first.receipt"]);
    let other = crate::support::registry::Registry::start();
    super::fixture::import_to(other.host(), sides.stick.path(), "second", &[])
        .ended(7)
        .reported(&["nothing was pushed"]);
    assert_eq!(other.tags("team/app"), [""; 0]);
    // With receipts of both registries, the increment omits only what both have.
    super::fixture::import_to(other.host(), sides.stick.path(), "first", &["--receipt", "other.receipt"]).ended(0);
    sides.deliver("second");
    let since = ["--since", "second.receipt", "--since", "other.receipt"];
    sides.export("third", &["team/app:1", "team/app:2"], &since).reported(&["of 2 registries"]);
    assert_eq!(sides.carried("third").len(), 3);
    super::fixture::import_to(other.host(), sides.stick.path(), "third", &[]).ended(0);
    sides.deliver("third");
}

/// The number of repositories, with one image each.
const MANY: usize = 12;

/// Exports these repositories, with one image each, to `NAME.tar`; returns their names.
fn many(sides: &Sides, name: &str, repositories: std::ops::RangeInclusive<usize>, options: &[&str]) {
    let images = repositories.map(|n| images::oci(&format!("team/app{n}"), "1", &[&format!("only here: {n}")]));
    let names: Vec<String> = images.inspect(|image| image.push(&sides.source)).map(|image| image.name()).collect();
    sides.export(name, &names.iter().map(String::as_str).collect::<Vec<_>>(), options);
}

#[test]
fn an_empty_target_is_not_asked_for_every_blob_in_every_repository() {
    let sides = Sides::new();
    many(&sides, "first", 1..=MANY, &[]);
    many(&sides, "second", 1..=MANY, &["--since", "first.tar"]);
    let lacks = format!("lacks {0} blobs of the {0} (", 3 * MANY);
    sides.import("second", &["--missing", "missing.json"]).ended(7).reported(&["nothing was pushed", &lacks]);
    assert_eq!(sides.read("missing.json")["blobs"].as_array().unwrap().len(), 3 * MANY);
    // Twenty lookups in every repository and those in flight by then, the rest only where needed.
    let asked = sides.target.requests().len();
    assert!(asked < 30 * MANY, "{asked} for {} things in {MANY} repositories", 3 * MANY);
}

#[test]
fn one_lost_bundle_does_not_trigger_a_search_of_every_repository() {
    let sides = Sides::new();
    many(&sides, "first", 1..=MANY, &[]);
    sides.deliver("first");
    many(&sides, "lost", 1..=MANY + 1, &["--since", "first.receipt"]);
    many(&sides, "third", 1..=MANY + 2, &["--since", "first.receipt", "--since", "lost.tar"]);
    let before = sides.target.requests().len();
    sides.import("third", &[]).ended(7).reported(&["lacks 3 blobs of"]);
    let asked = sides.target.requests().len() - before;
    assert!(
        asked < 3 * MANY + 3 * (MANY + 2) + 10,
        "each blob where it is, three of them in every repository: {asked}"
    );
}

#[test]
fn blobs_that_were_found_are_not_looked_up_again() {
    let sides = Sides::new();
    many(&sides, "first", 1..=3, &[]);
    sides.deliver("first");
    many(&sides, "second", 1..=4, &["--since", "first.receipt"]);
    let before = sides.target.requests().len();
    sides.deliver("second");
    let asked = sides.target.requests().split_off(before);
    let heads = asked.iter().filter(|r| r.method == "HEAD" && r.path.contains("/blobs/"));
    let mut paths: Vec<&str> = heads.map(|r| &*r.path).filter(|path| !path.contains("app4")).collect();
    assert_eq!(paths.len(), 6, "{paths:?}");
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), 6, "{paths:?}");
}

#[test]
fn a_bundle_without_a_base_lacks_nothing_and_needs_no_repair() {
    let sides = Sides::new();
    many(&sides, "first", 1..=1, &[]);
    std::fs::write(sides.path("missing.json"), "from an earlier run").unwrap();
    let refused = sides.import("first", &["--repair", "first.tar"]).ended(2);
    refused.reported(&["first.tar expects nothing at the target"]);
    assert_eq!(sides.target.tags("team/app1"), [""; 0]);
    sides.import("first", &["--missing", "missing.json"]).ended(0);
    assert_eq!(sides.read("missing.json")["blobs"].as_array().unwrap().len(), 0);
}
