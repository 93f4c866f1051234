//! Signatures, SBOMs and other companions of images whose tags were pruned.

use serde_json::{Value, json};

use super::fixture::{Sides, import_to};
use crate::support::embedded::Embedded;
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::tempdir;

/// An image that is pruned, with a signature and an SBOM, and an image that stays, with its own.
struct TestSite {
    sides: Sides,
    target: Embedded,
    _layout: tempfile::TempDir,
    going: [Image; 3],
    staying: [Image; 3],
}

const PRUNE: [&str; 4] = ["--prune", "--yes", "--arrived", "first.receipt"];

fn with_companions(tag: &str) -> [Image; 3] {
    let image = images::oci_index("team/app", tag, tag);
    let (signature, sbom) =
        (images::cosign_signature(&image), images::referrer(&image, "application/spdx+json", b"sbom"));
    [image, signature, sbom]
}

impl TestSite {
    /// Both have arrived; the next bundle contains only the one that stays.
    fn new() -> TestSite {
        let (sides, layout) = (Sides::new(), tempdir());
        let target = Embedded::writable(&layout.path().join("layout"));
        let (going, staying) = (with_companions("1"), with_companions("2"));
        for [image, signature, sbom] in [&going, &staying] {
            let list = images::referrers_tag(image, std::slice::from_ref(sbom));
            [image, signature, sbom, &list].iter().for_each(|pushed| pushed.push(&sides.source));
        }
        sides.export("first", &["team/app:1", "team/app:2"], &[]);
        import_to(target.host(), sides.stick.path(), "first", &["--receipt", "first.receipt"]).ended(0);
        sides.export("next", &["team/app:2"], &["--since", "first.receipt"]);
        let site = TestSite { sides, target, _layout: layout, going, staying };
        assert!(site.going.iter().chain(&site.staying).all(|image| site.has(image)));
        site
    }

    fn prune(&self, options: &[&str]) -> Ran {
        import_to(self.target.host(), self.sides.stick.path(), "next", options)
    }

    fn has(&self, image: &Image) -> bool {
        let name = image.tag.clone().unwrap_or_else(|| image.digest());
        self.target.get(&format!("/v2/{}/manifests/{name}", image.repository)).status == 200
    }
}

#[test]
fn pruning_an_image_removes_its_referrers_and_nothing_else() {
    let site = TestSite::new();
    let [image, signature, sbom] = &site.going;
    let look = site.prune(&["--prune", "--arrived", "first.receipt"]).ended(0);
    let tag = signature.tag.as_deref().unwrap();
    look.reported(&[
        "would delete",
        tag,
        "signature of",
        "SBOM of",
        "1 tag and 2 companions to prune; --yes deletes them",
    ]);
    assert!(site.has(image) && site.has(signature) && site.has(sbom), "without --yes nothing is deleted");
    let pruned = site.prune(&PRUNE).ended(0);
    pruned.reported(&["1 of 1 tag deleted, 2 of 2 companions", &sbom.digest()]);
    assert!(!site.has(image) && !site.has(signature) && !site.has(sbom));
    assert!(site.staying.iter().all(|image| site.has(image)), "the other image's companions are left alone");
    site.prune(&PRUNE).ended(0).reported(&["nothing to prune"]);
}

#[test]
fn pruned_content_is_listed_in_the_report_and_the_receipt() {
    let site = TestSite::new();
    let outcomes = |document: &Value| -> Vec<(bool, String)> {
        let pruned = document["pruned"].as_array().unwrap_or_else(|| panic!("{document}"));
        pruned.iter().map(|one| (one["subject"].is_string(), one["outcome"].as_str().unwrap().to_owned())).collect()
    };
    let all = |outcome: &str| [false, true, true].map(|is_companion| (is_companion, outcome.to_owned())).to_vec();
    let printed = |ran: &Ran| serde_json::from_str::<Value>(&ran.stdout).unwrap();
    let options = ["--prune", "--arrived", "first.receipt", "--json"];
    let look = site.prune(&[&options[..], &["--dry-run"]].concat()).ended(0);
    assert_eq!(outcomes(&printed(&look)), all("listed"));
    assert_eq!(outcomes(&printed(&site.prune(&options).ended(0))), all("listed"));
    let ran = site.prune(&[&options[..], &["--yes", "--receipt", "next.receipt"]].concat()).ended(0);
    assert_eq!(outcomes(&printed(&ran)), all("deleted"));
    assert_eq!(site.sides.read("next.receipt")["pruned"], printed(&ran)["pruned"]);
    let first = &site.sides.read("next.receipt")["pruned"][0];
    assert_eq!(first["reference"], json!(format!("{}/team/app:1", site.target.host())));
}

#[test]
fn signatures_made_on_the_isolated_side_are_not_pruned() {
    let site = TestSite::new();
    let [image, signature, sbom] = &site.going;
    // A joined list of both sides' signatures, and a signature of the SBOM.
    let joined = images::oci("team/app", signature.tag.as_deref().unwrap(), &["signed here"]);
    let own = images::referrer(sbom, "application/vnd.cncf.notary.signature", b"signed here");
    [&joined, &own].iter().for_each(|pushed| pushed.push(&site.target));
    let ran = site.prune(&PRUNE).ended(0);
    ran.reported(&["1 of 1 tag deleted", "stays: it refers to", "did not push refers to it"]);
    assert!(!site.has(image) && site.has(&joined) && site.has(sbom) && site.has(&own));
}

#[test]
fn an_image_still_tagged_elsewhere_keeps_its_companions() {
    let site = TestSite::new();
    let [image, signature, sbom] = &site.going;
    image.named("team/app", "kept-here").push(&site.target);
    site.prune(&PRUNE).ended(0).reported(&["1 of 1 tag deleted"]);
    assert!(!site.has(image) && site.has(signature) && site.has(sbom));
}

#[test]
fn companions_left_by_an_interrupted_prune_are_removed_by_the_next() {
    let site = TestSite::new();
    let [_, signature, sbom] = &site.going;
    site.target.request("DELETE", "/v2/team/app/manifests/1").send().expect(202);
    site.prune(&PRUNE).ended(0).reported(&["2 of 2 companions"]);
    assert!(!site.has(signature) && !site.has(sbom));
}
