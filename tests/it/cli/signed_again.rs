//! A lock whose image was signed again at the source: the old signature has lost its tag there and is finally deleted.

use std::path::PathBuf;

use super::{Source, ends_with, json, stderr, succeed};
use crate::support::images::{self, Image};

/// A signed image, its lock and its bundle. Then another signature takes the tag, and the registry deletes the first.
struct Replaced {
    source: Source,
    app: Image,
    /// The signature that has the tag now.
    second: Image,
    lock: String,
    bundle: PathBuf,
}

impl Replaced {
    fn new() -> Replaced {
        let app = images::oci("team/app", "1.0", &["app"]);
        let first = images::cosign_signature(&app);
        let source = Source::of(&[app.clone(), first.clone()]);
        let (lock, bundle) = (source.path("l.lock").display().to_string(), source.path("b"));
        let reference = format!("{}/team/app:1.0", source.host());
        succeed(&["export", &reference, "-o", bundle.to_str().unwrap(), "--lock", &lock]);
        let second = images::oci("team/app", first.tag.as_deref().unwrap(), &["signed again"]);
        second.push(&source.registry);
        let path = format!("/v2/team/app/manifests/{}", first.digest());
        source.registry.request("DELETE", &path).send().expect(202);
        Replaced { source, app, second, lock, bundle }
    }

    fn attached(&self, bundle: &str) -> Vec<String> {
        let listed = json(&succeed(&["list", bundle, "--json"]));
        let attached = listed["images"][0]["attached"].as_array().cloned().unwrap_or_default();
        attached.iter().map(|attached| attached["digest"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_replaced_signature_is_named_and_the_user_can_continue_with_or_without_todays() {
    let fixture = Replaced::new();
    let out = fixture.source.path("again").display().to_string();
    let output = ends_with(4, &["export", "--locked", &fixture.lock, "-o", &out]);
    let tag = fixture.second.tag.as_deref().unwrap();
    let says = [&format!("its signature (tag {tag}) was replaced: "), "--companions today", &fixture.second.digest()];
    let message = stderr(&output);
    assert!(says.iter().all(|words| message.contains(*words)) && !message.contains("check the spelling"), "{message}");

    let lock = fixture.source.path("new.lock").display().to_string();
    let today = ["--companions", "today", "--lock", &lock];
    let message = stderr(&succeed(&[&["export", "--locked", &fixture.lock, "-o", &out], &today[..]].concat()));
    assert!(message.contains("companions of the lock left out: 1 signature; new: 1 signature"), "{message}");
    succeed(&["verify", &out]);
    assert_eq!(fixture.attached(&out), [fixture.second.digest()]);
    // The new lock can be exported.
    let third = fixture.source.path("third").display().to_string();
    succeed(&["export", "--locked", &lock, "-o", &third]);
    assert_eq!(fixture.attached(&third), fixture.attached(&out));

    for (at, without) in [&["--companions", "none"][..], &["--no-referrers"]].into_iter().enumerate() {
        let out = fixture.source.path(&format!("without-{at}")).display().to_string();
        succeed(&[&["export", "--locked", &fixture.lock, "-o", &out], without].concat());
        succeed(&["verify", &out]);
        assert_eq!(fixture.attached(&out), Vec::<String>::new());
    }
    // Every volume repeats the lock and all manifests, so it belongs to its set only with the same companions.
    let volumes = fixture.source.path("v.tar").display().to_string();
    let (first, sized) = (fixture.source.path("v.001.tar"), ["-o", &volumes, "--volume-size", "4GB"]);
    let again = [&sized[..], &["--only-volume", "1", "--companions", "today"]].concat();
    let output = ends_with(2, &[&["export", "--locked", &fixture.lock], &again[..]].concat());
    assert!(stderr(&output).contains("volume of another set"), "{}", stderr(&output));
    succeed(&[&["export", "--locked", &lock], &sized[..]].concat());
    let before = std::fs::read(&first).unwrap();
    std::fs::remove_file(&first).unwrap();
    succeed(&[&["export", "--locked", &lock], &again[..]].concat());
    assert!(std::fs::read(&first).unwrap() == before);
}

#[test]
fn a_repair_fetches_only_what_the_bundle_lacks() {
    let fixture = Replaced::new();
    let manifest: serde_json::Value = serde_json::from_slice(&fixture.app.manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    std::fs::remove_file(fixture.bundle.join("blobs").join(layer)).unwrap();
    let bundle = fixture.bundle.to_str().unwrap();
    let (missing, repair) = (fixture.source.path("missing.json"), fixture.source.path("repair.tar"));
    let (missing, repair) = (missing.to_str().unwrap(), repair.to_str().unwrap());
    ends_with(3, &["verify", bundle, "--missing", missing]);
    succeed(&["export", "--repair", missing, "--locked", &fixture.lock, "-o", repair]);
    succeed(&["repair", bundle, repair]);
    succeed(&["verify", bundle]);
}

#[test]
fn a_foreign_file_or_layout_is_identified_in_the_error() {
    let fixture = Replaced::new();
    let (bundle, key) = (fixture.bundle.to_str().unwrap(), fixture.source.path("key.pem").display().to_string());
    let made = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", &key]).status();
    assert!(made.unwrap().success());
    std::fs::write(fixture.bundle.join("notes.txt"), "mine").unwrap();
    let message = stderr(&ends_with(2, &["sign", bundle, "--key", &key]));
    assert!(message.contains("notes.txt in ") && message.contains("does not belong to the bundle"), "{message}");
    assert!(!message.contains("the source itself is damaged"), "{message}");
    for file in ["bundle.json", "SHA256SUMS"] {
        std::fs::remove_file(fixture.bundle.join(file)).unwrap();
    }
    let message = stderr(&ends_with(2, &["import", bundle, "--to", "127.0.0.1:9"]));
    assert!(
        message.contains("OCI image layout and not a bundle") && message.contains("gapferry serve LAYOUT"),
        "{message}"
    );
}
