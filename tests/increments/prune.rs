//! Tags of images that nobody wants any more.

use super::ground::{Sides, import_to};
use super::support::embedded::Embedded;
use super::support::ran::Ran;
use super::support::{gapferry, images, tempdir};

/// Images 1 to 3 have arrived at `host`; the next bundle has only the first, and at `host` 3 means something else by now.
fn outdated(sides: &Sides, host: &str) {
    for tag in ["1", "2", "3"] {
        images::oci("team/app", tag, &[tag]).push(&sides.source);
    }
    sides.export("first", &["team/app:1", "team/app:2", "team/app:3"], &[]);
    import_to(host, sides.stick.path(), "first", &["--receipt", "first.receipt"]).ended(0);
    sides.export("next", &["team/app:1"], &["--since", "first.receipt"]).said(&["2 images of before", "team/app:2"]);
    let removed: Vec<String> = sides.json("next").removed.iter().map(|image| image.reference.to_string()).collect();
    assert_eq!(removed, [2, 3].map(|tag| format!("{}/team/app:{tag}", sides.source.host())));
}

#[test]
fn a_tag_goes_only_with_prune_and_yes_and_only_if_it_is_what_it_was() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    outdated(&sides, target.host());
    images::oci("team/app", "3", &["made here since"]).push(&target);
    let import = |options: &[&str]| import_to(target.host(), sides.stick.path(), "next", options).ended(0);
    let there = |tag: &str| target.get(&format!("/v2/team/app/manifests/{tag}")).status == 200;
    import(&[]);
    import(&["--prune"]).said(&["would delete", "team/app:2", "1 tag to prune; --yes deletes"]);
    assert!(there("2"), "a look changes nothing");
    import(&["--prune", "--yes"]).said(&["deleted", "1 of 1 tag deleted"]);
    assert!(there("1") && !there("2") && there("3"));
    import(&["--prune", "--yes"]).said(&["nothing to prune"]);
}

#[test]
fn a_registry_that_cannot_delete_a_tag_alone_keeps_it_and_that_is_told() {
    let sides = Sides::new();
    outdated(&sides, sides.target.host());
    sides.import("next", &["--prune", "--yes"]).ended(0).said(&["cannot delete a tag without its manifest"]);
    assert!(sides.target.digest("team/app", "2").is_some());
}

#[test]
fn a_signature_that_was_an_image_of_its_own_stays_with_the_image_it_signs() {
    let (sides, layout) = (Sides::new(), tempdir());
    let target = Embedded::writable(&layout.path().join("layout"));
    let image = images::oci("team/signed", "v1", &["signed"]);
    let signature = images::cosign_signature(&image);
    [&image, &signature, &image.named("team/signed", "v0")].iter().for_each(|image| image.push(&sides.source));
    // All tags, of which that of the signature is one.
    sides.export("first", &["team/signed"], &[]);
    import_to(target.host(), sides.stick.path(), "first", &["--receipt", "first.receipt"]).ended(0);
    sides.export("next", &["team/signed:v1"], &["--since", "first.receipt"]).said(&["1 image of before"]);
    import_to(target.host(), sides.stick.path(), "next", &["--prune", "--yes"]).ended(0).said(&["1 of 1 tag deleted"]);
    let there = |tag: &str| target.get(&format!("/v2/team/signed/manifests/{tag}")).status == 200;
    assert!(there("v1") && !there("v0") && there(signature.tag.as_deref().unwrap()));
}

#[test]
fn out_of_a_pipe_an_old_bundle_is_refused_and_pruning_comes_last() {
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
    import("next", &["--prune", "--receipt", "next.receipt"]).ended(0).said(&["would delete", "2 tags to prune"]);
    assert!(there("2") && there("3"));
    import("next", &["--prune", "--yes"]).ended(0).said(&["2 of 2 tags deleted"]);
    assert!(there("1") && !there("2") && !there("3"));
    sides.export_at(1_600_000_000, "old", &["team/app:1", "team/app:2"], &[]);
    let refused = import("old", &["--newer-than", "next.receipt"]).ended(3);
    refused.said(&["nothing was pushed", "is not later than the bundle of next.receipt"]);
    assert!(!there("2"));
}
