//! Signatures from both sides of the gap. cosign's `.sig` and `.att` tags are lists, and an import must keep what the
//! isolated side added to them, or its admission policy refuses the image.

mod shared;
mod unreadable;

use std::path::Path;

use serde_json::Value;

use crate::support;
use crate::support::barrier::Barrier;
use crate::support::cosign::{self, Signed, attestation, list, listed, signature};
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

/// An image signed by the vendor and exported to a bundle, and a registry on the other side.
struct TestSite {
    source: Registry,
    target: Registry,
    app: Image,
    vendor: Signed,
    own: Signed,
    directory: tempfile::TempDir,
}

impl TestSite {
    /// Imports the bundle once.
    fn imported() -> TestSite {
        let site = TestSite::exported();
        site.import(&[]).ended(0);
        site
    }

    fn exported() -> TestSite {
        let app = images::oci("team/app", "1", &["signed on both sides"]);
        let (vendor, own) = (signature(&app, "vendor"), signature(&app, "own"));
        let (source, target) = (Registry::start(), Registry::start());
        app.push(&source);
        list(&app, "sig", std::slice::from_ref(&vendor)).push(&source);
        let site = TestSite { source, target, app, vendor, own, directory: tempdir() };
        site.export(&[]);
        site
    }

    fn export(&self, more: &[&str]) {
        let reference = format!("{}/team/app:1", self.source.host());
        let mut command = gapferry();
        command.current_dir(self.path()).args(["export", &reference, "-o", "bundle.tar"]).args(more);
        Ran::of(&mut command).ended(0);
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn import(&self, more: &[&str]) -> Ran {
        self.import_to(self.target.host(), more)
    }

    fn import_to(&self, host: &str, more: &[&str]) -> Ran {
        let mut command = gapferry();
        command.current_dir(self.path()).args(["import", "bundle.tar", "--to", host]).args(more);
        Ran::of(&mut command)
    }

    /// Sets the target's list to exactly these signatures.
    fn sign_there(&self, signatures: &[&Signed]) -> String {
        let signatures: Vec<Signed> = signatures.iter().map(|signed| (*signed).clone()).collect();
        let list = list(&self.app, "sig", &signatures);
        list.push(&self.target);
        list.digest()
    }

    fn json(&self, more: &[&str]) -> Value {
        let ran = self.import(&[&["--json"], more].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
    }

    #[track_caller]
    fn assert_there(&self, signatures: &[&Signed]) {
        let there = listed(&self.target, &self.app, "sig").unwrap();
        let expected: Vec<&Value> = signatures.iter().map(|signed| &signed.descriptor).collect();
        assert_eq!(there.iter().collect::<Vec<_>>(), expected);
    }

    fn tag_there(&self) -> String {
        self.target.digest("team/app", &cosign::tag(&self.app, "sig")).unwrap()
    }

    /// The number of an import's requests that change the target.
    fn changes(&self, more: &[&str]) -> usize {
        let before = self.target.requests().len();
        self.import(more).ended(0);
        let since = self.target.requests().split_off(before);
        since.iter().filter(|request| !matches!(&*request.method, "GET" | "HEAD")).count()
    }
}

#[test]
fn a_signature_list_extended_on_the_isolated_side_is_left_unchanged() {
    let site = TestSite::imported();
    let own = site.sign_there(&[&site.vendor, &site.own]);
    let plan = site.json(&["--dry-run"]);
    assert_eq!(plan["images"][0]["action"], "nothing", "{plan}");
    assert_eq!(site.changes(&[]), 0);
    for policy in ["skip", "fail"] {
        assert_eq!(
            site.changes(&["--on-existing", policy]),
            0,
            "{policy}: the list contains every signature of the bundle"
        );
    }
    assert_eq!(site.tag_there(), own);
}

#[test]
fn a_list_that_contains_all_signatures_of_the_target_replaces_its_list() {
    let site = TestSite::imported();
    let second = signature(&site.app, "the vendor's second key");
    list(&site.app, "sig", &[site.vendor.clone(), second.clone()]).push(&site.source);
    site.export(&[]);
    site.import(&[]).ended(0).reported(&["is overwritten; it was"]);
    site.assert_there(&[&site.vendor, &second]);
    assert_eq!(site.changes(&[]), 0);
}

#[test]
fn signatures_of_both_sides_are_joined_once_and_reported_in_plan_and_receipt() {
    let site = TestSite::exported();
    site.app.push(&site.target);
    let before = site.sign_there(&[&site.own]);
    let plan = site.json(&["--dry-run"]);
    site.assert_there(&[&site.own]);
    let companion = &plan["images"][0]["companions"][0];
    assert_eq!((&companion["kind"], &companion["action"]), (&"signature".into(), &"join".into()), "{plan}");
    assert_eq!(companion["tag"]["digest"], before);
    assert_eq!(companion["subject"], site.app.digest());
    let row = site.import(&["--dry-run"]).ended(0).stdout;
    let tag = cosign::tag(&site.app, "sig");
    assert!(row.lines().any(|line| line.contains(&tag) && line.contains("join")), "{row}");

    let receipt = site.json(&[]);
    site.assert_there(&[&site.own, &site.vendor]);
    let joined = site.tag_there();
    let report = &receipt["images"][0]["companions"][0];
    assert_eq!(companion["joined"], joined, "the plan shows it in advance");
    assert_eq!(
        (&report["outcome"], &report["joined"], &report["found"]),
        (&"joined".into(), &joined.clone().into(), &before.into())
    );
    let ours = list(&site.app, "sig", std::slice::from_ref(&site.vendor)).digest();
    assert_eq!(report["digest"], ours);
    let confirmed = |digest: &str| receipt["confirmed"].as_array().unwrap().iter().any(|known| known == digest);
    assert!(confirmed(&joined) && !confirmed(&ours), "only present content: {receipt}");
    assert_eq!(site.changes(&[]), 0, "importing again changes nothing");
    assert_eq!(site.tag_there(), joined);
}

#[test]
fn two_tags_of_one_image_share_its_signatures() {
    let site = TestSite::exported();
    site.app.named("team/app", "latest").push(&site.source);
    let references = ["1", "latest"].map(|tag| format!("{}/team/app:{tag}", site.source.host()));
    let mut command = gapferry();
    command.current_dir(site.path()).arg("export").args(references).args(["-o", "bundle.tar"]);
    Ran::of(&mut command).ended(0);
    site.app.push(&site.target);
    site.sign_there(&[&site.own]);
    site.import(&[]).ended(0);
    site.assert_there(&[&site.own, &site.vendor]);
    assert_eq!(site.changes(&[]), 0);
}

#[test]
fn attestations_are_joined_and_the_bundles_sbom_replaces_the_targets() {
    let site = TestSite::exported();
    let (there, here) = (attestation(&site.app, "own"), attestation(&site.app, "vendor"));
    list(&site.app, "att", std::slice::from_ref(&here)).push(&site.source);
    let sbom = |text: &[u8]| {
        let layer = ("text/spdx+json", text.to_vec());
        images::oci_raw("team/app", &cosign::tag(&site.app, "sbom"), b"{}", &[layer])
    };
    sbom(b"the vendor's").push(&site.source);
    site.export(&[]);
    site.app.push(&site.target);
    list(&site.app, "att", std::slice::from_ref(&there)).push(&site.target);
    sbom(b"an older one").push(&site.target);
    site.import(&[]).ended(0);
    assert_eq!(listed(&site.target, &site.app, "att").unwrap(), [there.descriptor, here.descriptor]);
    let tag = cosign::tag(&site.app, "sbom");
    assert_eq!(site.target.digest("team/app", &tag), Some(sbom(b"the vendor's").digest()));
}

#[test]
fn signatures_added_during_an_import_are_kept() {
    let site = TestSite::exported();
    let barrier = Barrier::before(site.target.host(), "PUT /v2/team/app/manifests/sha256:");
    let host = barrier.host();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| site.import_to(host, &[]));
        barrier.wait();
        // The plan was made before this tag existed.
        site.sign_there(&[&site.own]);
        barrier.open();
        importing.join().unwrap().ended(0);
    });
    site.assert_there(&[&site.own, &site.vendor]);
}

#[test]
fn a_list_deleted_during_an_import_is_replaced_by_the_bundles() {
    let site = TestSite::exported();
    site.app.push(&site.target);
    let own = site.sign_there(&[&site.own]);
    // Content that is always uploaded, so that the test can wait for it.
    list(&site.app, "att", &[attestation(&site.app, "vendor")]).push(&site.source);
    site.export(&[]);
    let barrier = Barrier::before(site.target.host(), "POST /v2/team/app/blobs/uploads/");
    let host = barrier.host();
    std::thread::scope(|scope| {
        let importing = scope.spawn(|| site.import_to(host, &[]));
        barrier.wait();
        site.target.request("DELETE", &format!("/v2/team/app/manifests/{own}")).send().expect(202);
        barrier.open();
        importing.join().unwrap().ended(0);
    });
    site.assert_there(&[&site.vendor]);
}

#[test]
fn on_existing_skip_keeps_a_different_list_and_fail_fails_the_image() {
    let site = TestSite::imported();
    let own = site.sign_there(&[&site.own]);
    let skipped = site.json(&["--on-existing", "skip"]);
    assert_eq!(skipped["images"][0]["outcome"], "present");
    assert_eq!(skipped["images"][0]["companions"][0]["outcome"], "skipped");
    site.import(&["--on-existing", "skip"]).ended(0).reported(&["is not changed"]);
    assert_eq!(site.tag_there(), own);
    let plan = site.import(&["--on-existing", "fail", "--dry-run"]).ended(0).stdout;
    let tag = cosign::tag(&site.app, "sig");
    assert!(plan.lines().any(|line| line.contains(&tag) && line.contains("fail")), "{plan}");
    site.import(&["--on-existing", "fail"]).ended(1).reported(&[&tag, "already means something else", "1 failed"]);
    assert_eq!(site.tag_there(), own);
}

#[test]
fn on_existing_skip_brings_an_image_without_its_conflicting_companion() {
    let site = TestSite::exported();
    let own = site.sign_there(&[&site.own]);
    // Content that was not pushed is not proven, and does not affect the image.
    let receipt = site.json(&["--on-existing", "skip", "--prove"]);
    assert_eq!((&receipt["images"][0]["outcome"], &receipt["images"][0]["proven"]), (&"pushed".into(), &true.into()));
    assert_eq!(site.target.digest("team/app", "1"), Some(site.app.digest()));
    assert_eq!(site.tag_there(), own);
    assert_eq!(site.changes(&["--on-existing", "skip", "--prove"]), 0);
}

#[test]
fn an_image_under_a_signature_tag_is_kept_and_only_the_signatures_fail() {
    let site = TestSite::exported();
    let other = images::oci("team/other", "1", &["another image"]);
    other.push(&site.source);
    let references = ["app", "other"].map(|name| format!("{}/team/{name}:1", site.source.host()));
    let mut command = gapferry();
    command.current_dir(site.path()).arg("export").args(references).args(["-o", "bundle.tar"]);
    Ran::of(&mut command).ended(0);
    let tag = cosign::tag(&site.app, "sig");
    let strange = [images::oci("team/app", &tag, &["an image"]), images::oci_index("team/app", &tag, "an index")];
    for there in strange {
        let target = Registry::start();
        there.push(&target);
        let says = ["failed: companion", &*tag, "is not a list of signatures", "--on-existing skip", "2 images pushed"];
        let options = ["--prove", "--receipt", "receipt.json"];
        site.import_to(target.host(), &options).ended(1).reported(&says).reported(&["2 images proven"]);
        assert_eq!(target.digest("team/app", &tag), Some(there.digest()));
        assert_eq!(target.digest("team/other", "1"), Some(other.digest()));
        assert_eq!(target.digest("team/app", "1"), Some(site.app.digest()), "the image itself arrives");
        let receipt: Value = serde_json::from_slice(&std::fs::read(site.path().join("receipt.json")).unwrap()).unwrap();
        assert_eq!(receipt["images"][0]["companions"][0]["outcome"], "failed", "{receipt}");
        site.import_to(target.host(), &[]).ended(1).reported(&["failed: companion", "2 present"]);
        site.import_to(target.host(), &["--on-existing", "skip"]).ended(0);
        assert_eq!(target.digest("team/app", &tag), Some(there.digest()));
        assert_eq!(target.digest("team/app", "1"), Some(site.app.digest()));
    }
}

#[test]
fn an_increment_accepts_a_joined_list_whose_originals_were_garbage_collected() {
    let site = TestSite::exported();
    site.import(&["--receipt", "first.receipt"]).ended(0);
    let ours = list(&site.app, "sig", std::slice::from_ref(&site.vendor));
    let own = site.sign_there(&[&site.vendor, &site.own]);
    // As a garbage collection of untagged manifests does.
    let gone = [format!("manifests/{}", ours.digest()), format!("blobs/{}", support::sha256(&ours.blobs[0]))];
    for gone in gone {
        site.target.request("DELETE", &format!("/v2/team/app/{gone}")).send().expect(202);
    }
    site.export(&["--since", "first.receipt"]);
    for more in [&["--dry-run"][..], &[], &["--on-existing", "fail"]] {
        site.import(more).ended(0);
    }
    assert_eq!(site.tag_there(), own);
}

#[test]
fn companions_are_listed_with_their_subject() {
    let site = TestSite::exported();
    let index = images::oci_index("team/many", "1", "two platforms");
    let sbom = images::referrer(&index, "application/spdx+json", b"an SBOM");
    let list = images::referrers_tag(&index, std::slice::from_ref(&sbom));
    let signed = cosign::list(&index.children[1], "sig", &[signature(&index.children[1], "vendor")]);
    [&index, &sbom, &list, &signed].iter().for_each(|image| image.push(&site.source));
    let reference = format!("{}/team/many:1", site.source.host());
    let run = |arguments: &[&str]| {
        let mut command = gapferry();
        Ran::of(command.current_dir(site.path()).args(arguments)).ended(0)
    };
    let plan = run(&["export", &reference, "-o", "many.tar", "--dry-run"]).stdout;
    run(&["export", &reference, "-o", "many.tar"]);
    let listed = run(&["list", "many.tar"]).stdout;
    for table in [&plan, &listed] {
        assert!(table.contains("COMPANIONS") && table.contains("1 signature, 1 SBOM"), "{table}");
    }
    let json: Value = serde_json::from_str(&run(&["list", "many.tar", "--json"]).stdout).unwrap();
    let kinds: Vec<&str> = json["images"][0]["attached"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attached| attached["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds.len(), 2);
    assert!(kinds.contains(&"signature") && kinds.contains(&"sbom"), "{json}");
    for image in ["many.tar", &reference] {
        let shown = run(&["inspect", image]).stdout;
        let row = |words: &[&str]| shown.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(row(&["attestation of linux/amd64"]) && !row(&["unknown/unknown"]), "{shown}");
        assert!(row(&["SBOM", "the index", &sbom.digest(), "referrer"]), "{shown}");
        assert!(row(&["signature", "linux/arm64", signed.tag.as_deref().unwrap()]), "{shown}");
        let json: Value = serde_json::from_str(&run(&["inspect", image, "--json"]).stdout).unwrap();
        assert_eq!(json["companions"].as_array().unwrap().len(), 2, "{json}");
        assert_eq!(json["manifests"][2]["attestationOf"], "linux/amd64");
    }
}

#[test]
fn an_untagged_image_at_the_target_is_reported_as_at_risk_of_garbage_collection() {
    let site = TestSite::exported();
    let reference = format!("{}/team/app@{}", site.source.host(), site.app.digest());
    let mut command = gapferry();
    Ran::of(command.current_dir(site.path()).args(["export", &reference, "-o", "bundle.tar"])).ended(0);
    site.import(&[]).ended(0).reported(&["1 image gets no tag", "garbage collection", "as="]);
}

/// A repository of signatures only, as `COSIGN_REPOSITORY` makes one: it never contains the subject.
#[test]
fn a_signature_list_carried_as_an_image_is_joined_like_any_other() {
    let site = TestSite::exported();
    let tag = cosign::tag(&site.app, "sig");
    let elsewhere = |registry: &Registry, signatures: &[&Signed]| {
        let signatures: Vec<Signed> = signatures.iter().map(|signed| (*signed).clone()).collect();
        let list = list(&site.app, "sig", &signatures).named("team/signatures", &tag);
        list.push(registry);
        list.digest()
    };
    let export = || {
        let reference = format!("{}/team/signatures:{tag}", site.source.host());
        let mut command = gapferry();
        Ran::of(command.current_dir(site.path()).args(["export", &reference, "-o", "bundle.tar"])).ended(0);
    };
    let there = || listed(&site.target, &site.app.named("team/signatures", "1"), "sig").unwrap();
    let ours = elsewhere(&site.source, &[&site.vendor]);
    export();
    let before = elsewhere(&site.target, &[&site.own]);
    site.import(&["--on-existing", "fail"]).ended(1).reported(&["already means something else"]);
    site.import(&["--on-existing", "skip"]).ended(0);
    assert_eq!(there(), std::slice::from_ref(&site.own.descriptor));
    let plan = site.json(&["--dry-run"]);
    assert_eq!(plan["images"][0]["action"], "join", "{plan}");
    assert!(site.import(&["--dry-run"]).ended(0).stdout.contains("join"));
    let receipt = site.json(&["--receipt", "receipt.json", "--prove"]);
    assert_eq!(there(), [site.own.descriptor.clone(), site.vendor.descriptor.clone()]);
    let joined = site.target.digest("team/signatures", &tag).unwrap();
    let report = &receipt["images"][0];
    assert_eq!((&report["digest"], &report["found"]), (&Value::from(ours), &Value::from(before)), "{receipt}");
    assert_eq!((&report["joined"], &plan["images"][0]["joined"]), (&Value::from(&*joined), &Value::from(&*joined)));
    assert_eq!(site.changes(&[]), 0, "importing again changes nothing");
    let mut command = gapferry();
    Ran::of(command.current_dir(site.path()).args(["prove", "receipt.json"])).ended(0).reported(&["1 image proven"]);

    // A newer list from the vendor, and a target list that contains all of it.
    let second = signature(&site.app, "the vendor's second key");
    elsewhere(&site.source, &[&site.vendor, &second]);
    export();
    site.import(&[]).ended(0);
    assert_eq!(there().len(), 3);
    // A manifest that is not a list is not replaced.
    let strange = images::oci("team/signatures", &tag, &["an image"]);
    strange.push(&site.target);
    site.import(&[]).ended(1).reported(&["is not a list of signatures", "--on-existing skip"]);
    assert_eq!(site.target.digest("team/signatures", &tag), Some(strange.digest()));
}

#[test]
fn a_referrers_list_carried_as_an_image_loses_no_referrer_of_the_target() {
    let site = TestSite::exported();
    let [vendor, own] = ["vendor", "own"]
        .map(|by| images::referrer(&site.app, "application/spdx+json", by.as_bytes()).named("team/sboms", ""));
    let [vendor, own] = [vendor, own].map(|image| Image { tag: None, ..image });
    let lists = |referrers: &[Image]| {
        let list = images::referrers_tag(&site.app, referrers);
        let tag = list.tag.clone().unwrap();
        list.named("team/sboms", &tag)
    };
    let ours = lists(std::slice::from_ref(&vendor));
    ours.push(&site.source);
    lists(std::slice::from_ref(&own)).push(&site.target);
    let tag = ours.tag.clone().unwrap();
    let reference = format!("{}/team/sboms:{tag}", site.source.host());
    let mut command = gapferry();
    Ran::of(command.current_dir(site.path()).args(["export", &reference, "-o", "bundle.tar"])).ended(0);
    site.import(&["--receipt", "receipt.json"]).ended(0);
    let path = format!("/v2/team/sboms/manifests/{tag}");
    let there = site.target.request("GET", &path).header("Accept", &ours.media_type).send().expect(200).json();
    let mut listed: Vec<&str> =
        there["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    listed.sort_unstable();
    let (vendor, own) = (vendor.digest(), own.digest());
    let mut expected = [&*vendor, &*own];
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(site.changes(&[]), 0);
    // The same list in another tool's formatting.
    let manifest = serde_json::to_vec_pretty(&there).unwrap();
    Image { manifest, ..ours.clone() }.push(&site.target);
    let mut command = gapferry();
    Ran::of(command.current_dir(site.path()).args(["prove", "receipt.json"])).ended(0).reported(&["1 image proven"]);
    // With the bundle's list at the target, nothing is missing and nothing conflicts.
    let listed: Value = serde_json::from_slice(&ours.manifest).unwrap();
    let same = Image { manifest: serde_json::to_vec_pretty(&listed).unwrap(), ..ours };
    same.push(&site.target);
    for option in ["fail", "skip"] {
        site.import(&["--on-existing", option]).ended(0).reported(&["0 images pushed, 1 present"]);
        assert_eq!(site.target.digest("team/sboms", &tag), Some(same.digest()));
    }
}

#[test]
fn a_receipt_can_be_proven_after_the_isolated_side_signed() {
    let site = TestSite::exported();
    site.import(&["--receipt", "receipt.json"]).ended(0);
    let prove = || {
        let mut command = gapferry();
        Ran::of(command.current_dir(site.path()).args(["prove", "receipt.json"]))
    };
    prove().ended(0).reported(&["1 image proven"]);
    site.sign_there(&[&site.vendor, &site.own]);
    prove().ended(0).reported(&["1 image proven"]);
    // As a garbage collection of untagged manifests does.
    let ours = list(&site.app, "sig", std::slice::from_ref(&site.vendor));
    site.target.request("DELETE", &format!("/v2/team/app/manifests/{}", ours.digest())).send().expect(202);
    prove().ended(0).reported(&["1 image proven"]);
}
