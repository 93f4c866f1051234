//! A lock, after its image was signed again at the source: the old signature has no tag there and is deleted in the end.

use std::path::PathBuf;

use super::{Source, ends_with, json, stderr, succeed};
use crate::support::images::{self, Image};

/// A signed image, its lock and its bundle; then another signature has the tag, and the registry has deleted the first.
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
fn a_replaced_signature_is_named_and_the_user_goes_on_with_todays_or_without() {
    let ground = Replaced::new();
    let out = ground.source.path("again").display().to_string();
    let output = ends_with(4, &["export", "--locked", &ground.lock, "-o", &out]);
    let tag = ground.second.tag.as_deref().unwrap();
    let says =
        [&format!("its signature (tag {tag}) was replaced since"), "--companions today", &ground.second.digest()];
    let said = stderr(&output);
    assert!(says.iter().all(|words| said.contains(*words)) && !said.contains("check the spelling"), "{said}");

    let lock = ground.source.path("new.lock").display().to_string();
    let today = ["--companions", "today", "--lock", &lock];
    let said = stderr(&succeed(&[&["export", "--locked", &ground.lock, "-o", &out], &today[..]].concat()));
    assert!(said.contains("of the lock's companions left out: 1 signature; new: 1 signature"), "{said}");
    succeed(&["verify", &out]);
    assert_eq!(ground.attached(&out), [ground.second.digest()]);
    // The new lock is one that can be followed.
    let third = ground.source.path("third").display().to_string();
    succeed(&["export", "--locked", &lock, "-o", &third]);
    assert_eq!(ground.attached(&third), ground.attached(&out));

    for (at, without) in [&["--companions", "none"][..], &["--no-referrers"]].into_iter().enumerate() {
        let out = ground.source.path(&format!("without-{at}")).display().to_string();
        succeed(&[&["export", "--locked", &ground.lock, "-o", &out], without].concat());
        succeed(&["verify", &out]);
        assert_eq!(ground.attached(&out), Vec::<String>::new());
    }
    // A volume repeats the lock and all manifests: it is of its set only with the companions of that.
    let volumes = ground.source.path("v.tar").display().to_string();
    let (first, sized) = (ground.source.path("v.001.tar"), ["-o", &volumes, "--volume-size", "4GB"]);
    let again = [&sized[..], &["--only-volume", "1", "--companions", "today"]].concat();
    let output = ends_with(2, &[&["export", "--locked", &ground.lock], &again[..]].concat());
    assert!(stderr(&output).contains("volume of another set"), "{}", stderr(&output));
    succeed(&[&["export", "--locked", &lock], &sized[..]].concat());
    let before = std::fs::read(&first).unwrap();
    std::fs::remove_file(&first).unwrap();
    succeed(&[&["export", "--locked", &lock], &again[..]].concat());
    assert!(std::fs::read(&first).unwrap() == before);
}

#[test]
fn a_repair_needs_only_what_the_bundle_lacks() {
    let ground = Replaced::new();
    let manifest: serde_json::Value = serde_json::from_slice(&ground.app.manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    std::fs::remove_file(ground.bundle.join("blobs").join(layer)).unwrap();
    let bundle = ground.bundle.to_str().unwrap();
    let (missing, repair) = (ground.source.path("missing.json"), ground.source.path("repair.tar"));
    let (missing, repair) = (missing.to_str().unwrap(), repair.to_str().unwrap());
    ends_with(3, &["verify", bundle, "--missing", missing]);
    succeed(&["export", "--repair", missing, "--locked", &ground.lock, "-o", repair]);
    succeed(&["repair", bundle, repair]);
    succeed(&["verify", bundle]);
}

#[test]
fn a_foreign_file_or_layout_is_called_what_it_is() {
    let ground = Replaced::new();
    let (bundle, key) = (ground.bundle.to_str().unwrap(), ground.source.path("key.pem").display().to_string());
    let made = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", &key]).status();
    assert!(made.unwrap().success());
    std::fs::write(ground.bundle.join("notes.txt"), "mine").unwrap();
    let said = stderr(&ends_with(2, &["sign", bundle, "--key", &key]));
    assert!(said.contains("notes.txt in ") && said.contains("no part of the bundle"), "{said}");
    assert!(!said.contains("the source itself is damaged"), "{said}");
    for file in ["bundle.json", "SHA256SUMS"] {
        std::fs::remove_file(ground.bundle.join(file)).unwrap();
    }
    let said = stderr(&ends_with(2, &["import", bundle, "--to", "127.0.0.1:9"]));
    assert!(said.contains("OCI image layout, but not a bundle") && said.contains("gapferry serve LAYOUT"), "{said}");
}
