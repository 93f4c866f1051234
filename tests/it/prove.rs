//! `gapferry prove` and `import --prove`: a user without access to a registry's storage learns whether the images of a
//! receipt can be pulled.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::signed::keys::{Key, Kind};
use crate::support;
use crate::support::faulty::{After, Fault, Proxy};
use crate::support::images::{self, Image};
use crate::support::registry::{Options, Registry};
use crate::support::{cosign, gapferry, sha256, tempdir};

/// Imported images and their receipt.
struct Imported {
    target: Registry,
    bundle: PathBuf,
    receipt: PathBuf,
    directory: tempfile::TempDir,
}

impl Imported {
    fn new(images: &[&Image]) -> Imported {
        let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
        images.iter().for_each(|image| image.push(&source));
        let (bundle, receipt) = (directory.path().join("bundle.tar"), directory.path().join("receipt.json"));
        let is_named = |image: &&&Image| image.tag.as_deref().is_some_and(|tag| !tag.starts_with("sha256-"));
        let references = images.iter().filter(is_named).map(|image| format!("{}/{}", source.host(), image.name()));
        gapferry().arg("export").args(references).arg("-o").arg(&bundle).assert().success();
        let it = Imported { target, bundle, receipt, directory };
        it.import(&[]).assert().success();
        it
    }

    fn import(&self, options: &[&str]) -> assert_cmd::Command {
        let mut command = gapferry();
        command.arg("import").arg(&self.bundle).args(["--to", self.target.host(), "--receipt"]).arg(&self.receipt);
        command.args(options);
        command
    }

    fn prove(&self, options: &[&str]) -> Proof {
        prove(&self.receipt, options)
    }

    fn data(&self, blob: &[u8]) -> PathBuf {
        let hex = sha256(blob)[7..].to_owned();
        self.target.storage().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }

    /// Changes one byte of a blob in the registry's storage, as years on a disk may.
    fn rot(&self, blob: &[u8]) {
        let mut rotten = blob.to_vec();
        rotten[0] ^= 1;
        std::fs::write(self.data(blob), rotten).unwrap();
    }

    /// The number of reads of a blob, whole or partial, with this status.
    fn reads(&self, blob: &[u8], status: u16) -> usize {
        self.target.count("GET", &format!("/blobs/{}", sha256(blob)), status)
    }
}

struct Proof {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn prove(receipt: &Path, options: &[&str]) -> Proof {
    let output = gapferry().arg("prove").arg(receipt).args(options).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Proof { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Proof {
    /// Each image's tag and verdict.
    fn verdicts(&self) -> Vec<(String, String)> {
        let json: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", self.stdout, self.stderr));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let images = json["images"].as_array().unwrap().iter();
        let short = |reference: String| reference.split_once('/').unwrap().1.to_owned();
        images.map(|image| (short(text(&image["reference"])), text(&image["verdict"]))).collect()
    }
}

fn two_apps() -> (Image, Image) {
    (images::oci("team/app", "1", &["shared", "one"]), images::oci("team/other", "1", &["shared", "two"]))
}

#[test]
fn intact_images_are_proven_and_shared_content_is_read_once() {
    let (one, two) = two_apps();
    let it = Imported::new(&[
        &one,
        &two,
        &images::oci_index("team/index", "1", "index"),
        &images::with_foreign_layer("team/win", "1"),
    ]);
    let proof = it.prove(&[]);
    assert_eq!(proof.code, Some(0), "{}", proof.stderr);
    assert!(proof.stderr.contains("to read: ") && proof.stderr.contains("4 images proven"), "{}", proof.stderr);
    let shared = &one.blobs[1];
    assert_eq!(
        (it.reads(shared, 200), it.reads(shared, 206)),
        (1, 3),
        "once in full, and its last byte after the upload, after the mount, and in the other repository"
    );
    assert!(!it.receipt.with_file_name("receipt.json.proving").exists());
    assert_eq!(it.prove(&["--every-repository"]).code, Some(0));
    assert_eq!(it.reads(shared, 200), 3);
}

#[test]
fn a_corrupted_byte_is_found_and_blamed_on_the_images_that_need_it() {
    let (one, two) = two_apps();
    let it = Imported::new(&[&one, &two]);
    it.rot(one.blobs.last().unwrap());
    let proof = it.prove(&["--json"]);
    assert_eq!(proof.code, Some(3), "{}", proof.stderr);
    let expect = |one: &str, two: &str| {
        vec![("team/app:1".to_owned(), one.to_owned()), ("team/other:1".to_owned(), two.to_owned())]
    };
    assert_eq!(proof.verdicts(), expect("damaged", "proven"));
    assert!(proof.stdout.contains("wrong digest") && proof.stdout.contains(&sha256(one.blobs.last().unwrap())));
    // Removes a file that both images need.
    std::fs::remove_file(it.data(&one.blobs[1])).unwrap();
    let proof = it.prove(&["--json"]);
    assert_eq!((proof.code, proof.verdicts()), (Some(3), expect("damaged", "damaged")));
    let plain = it.prove(&[]);
    assert!(plain.stdout.contains("damaged: ") && plain.stdout.contains(&sha256(&one.blobs[1])), "{}", plain.stdout);
}

#[test]
fn a_missing_manifest_below_a_tag_is_damage() {
    let index = images::oci_index("team/app", "1", "index");
    let it = Imported::new(&[&index]);
    let child = index.children[0].digest();
    it.target.request("DELETE", &format!("/v2/team/app/manifests/{child}")).send().expect(202);
    let proof = it.prove(&["--json"]);
    assert_eq!((proof.code, proof.verdicts()[0].1.as_str()), (Some(3), "damaged"), "{}", proof.stderr);
    assert!(proof.stdout.contains(&format!("manifest {child} is not in")), "{}", proof.stdout);
}

#[test]
fn a_moved_or_deleted_tag_is_reported_and_not_as_damage() {
    let (one, two) = two_apps();
    let three = images::oci("team/three", "1", &["three"]);
    let it = Imported::new(&[&one, &two, &three]);
    let newer = images::oci("team/app", "1", &["newer"]);
    newer.push(&it.target);
    it.target.request("DELETE", &format!("/v2/team/other/manifests/{}", two.digest())).send().expect(202);
    let proof = it.prove(&["--json"]);
    let verdicts: Vec<String> = proof.verdicts().into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!((proof.code, &*verdicts.join(" ")), (Some(1), "moved missing proven"), "{}", proof.stderr);
    assert!(proof.stdout.contains(&newer.digest()), "the report gives the tag's current digest: {}", proof.stdout);
}

#[test]
fn a_signature_and_an_attached_artifact_are_proven_with_their_image() {
    let image = images::oci("team/app", "1", &["one"]);
    let (signature, sbom) =
        (images::cosign_signature(&image), images::referrer(&image, "application/spdx+json", b"an SBOM"));
    let list = images::referrers_tag(&image, std::slice::from_ref(&sbom));
    let it = Imported::new(&[&image, &signature, &sbom, &list]);
    let proof = it.prove(&["--json"]);
    assert_eq!(proof.code, Some(0), "{} {}", proof.stdout, proof.stderr);
    for payload in [signature.blobs.last().unwrap(), sbom.blobs.last().unwrap()] {
        it.rot(payload);
        let proof = it.prove(&["--json"]);
        assert_eq!((proof.code, proof.verdicts()[0].1.as_str()), (Some(3), "damaged"), "{}", proof.stderr);
        std::fs::write(it.data(payload), payload).unwrap();
    }
}

#[test]
fn signatures_added_by_the_isolated_side_do_not_make_a_proof_incomplete() {
    let image = images::oci("team/app", "1", &["one"]);
    let (upstream, own) = (cosign::signature(&image, "upstream"), cosign::signature(&image, "own"));
    let it = Imported::new(&[&image, &cosign::list(&image, "sig", std::slice::from_ref(&upstream))]);
    let both = cosign::list(&image, "sig", &[upstream, own]);
    both.push(&it.target);
    // With the earlier receipt, and with that of an import that found the longer list.
    for _ in 0..2 {
        let proof = it.prove(&[]);
        assert_eq!(proof.code, Some(0), "{} {}", proof.stdout, proof.stderr);
        it.import(&[]).assert().success();
    }
    assert_eq!(it.target.digest("team/app", &cosign::tag(&image, "sig")), Some(both.digest()));
    it.target.request("DELETE", &format!("/v2/team/app/manifests/{}", both.digest())).send().expect(202);
    let proof = it.prove(&["--json"]);
    assert_eq!((proof.code, proof.verdicts()[0].1.as_str()), (Some(1), "missing"), "{}", proof.stderr);
}

#[test]
fn a_dry_run_gives_the_bytes_to_read_and_reads_none() {
    let (one, two) = two_apps();
    let it = Imported::new(&[&one, &two]);
    let proof = it.prove(&["--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&proof.stdout).unwrap();
    let mut blobs: Vec<&Vec<u8>> = one.blobs.iter().chain(&two.blobs).collect();
    blobs.sort();
    blobs.dedup();
    let bytes: usize = blobs.iter().map(|blob| blob.len()).sum();
    assert_eq!((proof.code, &json["bytes"], &json["read"]), (Some(0), &bytes.into(), &0.into()), "{}", proof.stderr);
    let reads = |status| blobs.iter().map(|blob| it.reads(blob, status)).sum::<usize>();
    let pushed = blobs.len() + 1;
    assert_eq!(
        (reads(200), reads(206)),
        (0, pushed),
        "the last byte after each upload and the mount, and nothing more"
    );
}

#[test]
fn a_proof_ended_by_a_rate_limit_resumes_with_the_remaining_blobs() {
    let (one, two) = two_apps();
    let it = Imported::new(&[&one, &two]);
    let proxy = Proxy::before(it.target.host());
    proxy.when("GET", "/blobs/sha256").nth(3).always().fault(Fault::TooMany(After::Seconds(100_000)));
    let to = ["--to", &*proxy.address, "--max-wait", "1s", "-j", "1"];
    let first = it.prove(&to);
    assert_eq!(first.code, Some(4), "{}", first.stderr);
    proxy.heal();
    let before = proxy.seen().len();
    let second = it.prove(&to);
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert!(second.stderr.contains("were proven before"), "{}", second.stderr);
    let whole = |request: &&support::faulty::Seen| {
        request.method == "GET" && request.target.contains("/blobs/") && request.header("range").is_empty()
    };
    let reads = proxy.seen().split_off(before).iter().filter(whole).count();
    assert_eq!(reads, 5 - 2, "two of five had been read");
    let third = it.prove(&to);
    assert!(third.code == Some(0) && !third.stderr.contains("proven before"), "the next proof reads everything");
}

#[test]
fn the_state_of_another_proof_is_not_used() {
    let it = Imported::new(&[&images::oci("team/app", "1", &["one"])]);
    let state = it.directory.path().join("state");
    std::fs::write(&state, "gapferry-prove 1 elsewhere:5000 2026-11-01T00:00:00Z\n").unwrap();
    let proof = it.prove(&["--state", state.to_str().unwrap()]);
    assert!(proof.code == Some(2) && proof.stderr.contains("elsewhere:5000"), "{}", proof.stderr);
    std::fs::write(&state, "a shopping list\n").unwrap();
    let proof = it.prove(&["--state", state.to_str().unwrap()]);
    assert_eq!(proof.code, Some(2), "{}", proof.stderr);
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "a shopping list\n");
}

#[test]
fn a_renamed_registry_can_be_proven_by_its_new_name() {
    let it = Imported::new(&[&images::oci("team/app", "1", &["one"])]);
    let copy = Registry::with(Options { storage: Some(it.target.storage()), ..Options::default() });
    let proof = it.prove(&["--to", copy.host()]);
    assert_eq!(proof.code, Some(0), "{}", proof.stderr);
    let proof = it.prove(&["--to", &format!("{}/elsewhere", copy.host()), "--json"]);
    assert_eq!(
        (proof.code, proof.verdicts()),
        (Some(1), vec![("elsewhere/team/app:1".to_owned(), "missing".to_owned())])
    );
}

#[test]
fn an_image_whose_signature_or_sbom_was_replaced_is_named() {
    let image = images::oci("team/app", "1", &["one"]);
    let signed = |key| cosign::list(&image, "sig", &[cosign::signature(&image, key)]);
    let sbom = |text: &[u8]| {
        images::oci_raw("team/app", &cosign::tag(&image, "sbom"), b"{}", &[("text/spdx+json", text.to_vec())])
    };
    for (ours, theirs) in [(signed("upstream"), signed("own")), (sbom(b"upstream's"), sbom(b"another"))] {
        let it = Imported::new(&[&image, &ours]);
        theirs.push(&it.target);
        let proof = it.prove(&["--json"]);
        assert_eq!((proof.code, proof.verdicts()[0].1.as_str()), (Some(1), "moved"), "{}", proof.stderr);
        assert!(proof.stdout.contains(ours.tag.as_deref().unwrap()), "{}", proof.stdout);
    }
}

#[test]
fn an_import_can_prove_images_it_found_in_place() {
    let (one, two) = two_apps();
    let it = Imported::new(&[&one, &two]);
    it.import(&["--prove"]).assert().success();
    it.rot(one.blobs.last().unwrap());
    let ended = it.import(&["--prove"]).assert().code(3);
    let stderr = String::from_utf8_lossy(&ended.get_output().stderr).into_owned();
    assert!(stderr.contains("reading it back") && stderr.contains("1 present, 1 failed"), "{stderr}");
    let receipt: Value = serde_json::from_slice(&std::fs::read(&it.receipt).unwrap()).unwrap();
    let message: Vec<(&str, Option<bool>)> = receipt["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (image["outcome"].as_str().unwrap(), image["proven"].as_bool()))
        .collect();
    assert_eq!(message, [("failed", Some(false)), ("present", Some(true))]);
    let confirmed = receipt["confirmed"].to_string();
    assert!(!confirmed.contains(&sha256(one.blobs.last().unwrap())), "the next increment must not build on it");
}

#[test]
fn each_image_of_an_import_says_whether_it_was_read_back() {
    let (one, two) = two_apps();
    let it = Imported::new(&[&one, &two]);
    let proven = |options: &[&str]| -> Vec<Value> {
        let output = it.import(&[options, &["--json"]].concat()).output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).expect("a receipt");
        json["images"].as_array().unwrap().iter().map(|image| image["proven"].clone()).collect()
    };
    assert_eq!(proven(&["--prove"]), [true, true]);
    assert_eq!(proven(&[]), [Value::Null, Value::Null], "nothing was checked");
}

#[test]
fn a_receipt_is_proven_only_if_the_right_key_signed_it() {
    let it = Imported::new(&[&images::oci("team/app", "1", &["one"])]);
    let (ours, theirs) =
        (Key::new(it.directory.path(), "ours", Kind::P256), Key::new(it.directory.path(), "theirs", Kind::P256));
    let by = |key: &Key| it.prove(&["--key", key.public.to_str().unwrap()]);
    let unsigned = by(&ours);
    assert!(unsigned.code == Some(3) && unsigned.stderr.contains("it is not signed"), "{}", unsigned.stderr);
    it.import(&["--sign-key", ours.private.to_str().unwrap()]).assert().success();
    assert_eq!(by(&ours).code, Some(0));
    let refused = by(&theirs);
    assert!(refused.code == Some(3) && refused.stderr.contains("matches none of the keys"), "{}", refused.stderr);
    let unasked = it.prove(&[]);
    assert!(unasked.code == Some(0) && unasked.stderr.contains("without --key"), "{}", unasked.stderr);
    let mut text = std::fs::read_to_string(&it.receipt).unwrap();
    text.push('\n');
    std::fs::write(&it.receipt, text).unwrap();
    assert_eq!(by(&ours).code, Some(3), "the receipt was altered");
}

#[test]
fn an_unreachable_registry_gives_no_verdict_about_its_images() {
    let it = Imported::new(&[&images::oci("team/app", "1", &["one"])]);
    let proof = it.prove(&["--to", "127.0.0.1:1", "--retries", "0"]);
    assert_eq!((proof.code, &*proof.stdout), (Some(5), ""), "{}", proof.stderr);
}

#[test]
fn a_migration_and_an_import_from_a_pipe_can_be_proven_too() {
    let image = images::oci("team/app", "1", &["one"]);
    let it = Imported::new(&[&image]);
    let reads = |target: &Registry| {
        let blobs = image.blobs.iter().map(|blob| target.count("GET", &format!("/blobs/{}", sha256(blob)), 200));
        blobs.sum::<usize>()
    };
    let (migrated, piped) = (Registry::start(), Registry::start());
    let ended = gapferry()
        .arg("migrate")
        .arg(it.target.storage())
        .args(["--to", migrated.host(), "--reupload", "--prove"])
        .assert()
        .success();
    let stderr = String::from_utf8_lossy(&ended.get_output().stderr).into_owned();
    assert!(stderr.contains("1 image proven") && reads(&migrated) == image.blobs.len(), "{stderr}");
    let mut import = gapferry();
    import.args(["import", "-", "--to", piped.host(), "--prove"]);
    import.write_stdin(std::fs::read(&it.bundle).unwrap()).assert().success();
    assert_eq!(reads(&piped), image.blobs.len());
}
