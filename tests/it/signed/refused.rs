//! Refused bundles, each with its own message and before any blob is read.

use std::path::{Path, PathBuf};

use super::keys::{Fixture, Key, Kind, text};
use crate::support::gapferry;
use crate::support::ran::Ran;

/// The first blob of a bundle directory.
fn blob(bundle: &Path) -> PathBuf {
    let entries = std::fs::read_dir(bundle.join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).min().unwrap()
}

/// Checks that verify and import refuse the bundle with the same words.
#[track_caller]
fn is_refused(fixture: &Fixture, bundle: &Path, key: &Key, words: &[&str]) {
    let refused = fixture.verify(bundle, key).ended(3).reported(words);
    assert!(refused.stdout.is_empty(), "{refused:#?}");
    // Nothing listens on port 9.
    let args = ["import", text(bundle), "--to", "127.0.0.1:9", "--key", text(&key.public)];
    fixture.run(&args).ended(3).reported(words).reported(&["nothing was pushed"]);
}

#[test]
fn an_unsigned_or_wrongly_signed_bundle_is_refused_and_not_pushed() {
    let fixture = Fixture::new();
    let (ours, theirs) = (fixture.key("ours", Kind::P256), fixture.key("theirs", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        fixture.export(out, &[]).ended(0);
        let bundle = fixture.path().join(out);
        is_refused(&fixture, &bundle, &ours, &["is not signed", "hint: sign the bundle where it was made"]);
        fixture.export(out, &["--sign-key", text(&theirs.private)]).ended(0);
        is_refused(
            &fixture,
            &bundle,
            &ours,
            &[
                "does not match the key",
                &ours.fingerprint(),
                "hint: ask the person who made the bundle for the fingerprint",
            ],
        );
        let both = ["verify", out, "--key", text(&ours.public), "--key", text(&theirs.public)];
        assert!(fixture.run(&both).ended(0).stdout.contains(&theirs.fingerprint()));
        let unasked = fixture.run(&["verify", out]).ended(0).reported(&["is signed", "not checked"]);
        assert!(!unasked.stdout.contains("signed by"), "{unasked:#?}");
    }
}

#[test]
fn a_bundle_altered_after_signing_is_refused_before_any_blob_is_read() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::P256);
    let bundle = fixture.signed("bundle", &key);
    // Reading the pipe would block forever.
    let blob = blob(&bundle);
    std::fs::remove_file(&blob).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &blob, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (file, words) in [
        ("SHA256SUMS", &["does not match the key", "was altered"][..]),
        ("SHA256SUMS.sig", &["does not match the key", "was altered"]),
        ("bundle.json", &["bundle.json was altered", "hint: find out who changed the bundle"]),
    ] {
        let path = bundle.join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut altered = whole.clone();
        let at = altered.len() - 4;
        altered[at] ^= 1;
        std::fs::write(&path, altered).unwrap();
        is_refused(&fixture, &bundle, &key, words);
        std::fs::remove_file(&path).unwrap();
        is_refused(&fixture, &bundle, &key, &[&format!("no {file}")]);
        std::fs::write(&path, whole).unwrap();
    }
    // The signature is valid, so the damage is reported as usual.
    fixture.verify(&bundle, &key).ended(3);
}

/// Runs a command with `text` as the user's configuration.
fn with_config(fixture: &Fixture, text: &str, args: &[&str]) -> Ran {
    let home = fixture.path().join("config");
    std::fs::create_dir_all(home.join("gapferry")).unwrap();
    std::fs::write(home.join("gapferry/config.toml"), text).unwrap();
    Ran::of(gapferry().current_dir(fixture.path()).env("XDG_CONFIG_HOME", home).args(args))
}

#[test]
fn require_signature_in_the_configuration_refuses_other_bundles_without_options() {
    let fixture = Fixture::new();
    let (ours, theirs) = (fixture.key("ours", Kind::P256), fixture.key("theirs", Kind::P256));
    let demand = "require-signature = true\nkeys = [\"../../ours.pub\"]\n";
    fixture.export("unsigned", &[]).ended(0);
    fixture.signed("theirs.tar", &theirs);
    let bundle = fixture.signed("ours", &ours);
    let verify = |config: &str, args: &[&str]| with_config(&fixture, config, &[&["verify"], args].concat());
    assert!(verify(demand, &["ours"]).ended(0).stdout.contains(&ours.fingerprint()));
    verify(demand, &["unsigned"]).ended(3).reported(&["is not signed"]);
    verify(demand, &["theirs.tar"]).ended(3).reported(&["does not match the key"]);
    // The command line adds keys.
    verify(demand, &["theirs.tar", "--key", text(&theirs.public)]).ended(0);
    for args in [&["import", "unsigned", "--to", "127.0.0.1:9"][..], &["serve", "unsigned", "--listen", "127.0.0.1:0"]]
    {
        with_config(&fixture, demand, args).ended(3).reported(&["is not signed"]);
    }
    let writable = ["serve", text(&bundle), "--listen", "127.0.0.1:0", "--writable"];
    with_config(&fixture, demand, &writable).ended(2).reported(&["demands a signature", "--writable"]);
    // Known keys without a requirement: a bad signature counts, a missing one does not.
    let known = "keys = [\"../../ours.pub\"]";
    verify(known, &["theirs.tar"]).ended(3).reported(&["does not match the key"]);
    verify(known, &["unsigned"]).ended(0).reported(&["is not signed"]);
    // An unintelligible setting might be a requirement.
    verify("require-signature = true", &["ours"]).ended(2).reported(&["neither `keys` in it nor --key names a key"]);
    verify("\nrequire-signatures = true", &["ours"])
        .ended(2)
        .reported(&["config.toml:2: `require-signatures` is unknown"]);
    verify("keys = [\"nowhere.pub\"]", &["ours"]).ended(2).reported(&["nowhere.pub"]);
}

/// Otherwise the user could make a set, or repair a bundle, that every command at the site refuses.
#[test]
fn configured_keys_apply_to_split_and_repair() {
    let fixture = Fixture::new();
    let (_ours, theirs) = (fixture.key("ours", Kind::P256), fixture.key("theirs", Kind::P256));
    let known = "keys = [\"../../ours.pub\"]";
    fixture.export("unsigned", &[]).ended(0);
    fixture.signed("theirs", &theirs);
    let split = |config: &str, more: &[&str]| {
        let split = ["split", "theirs", "-o", "v.tar", "--volume-size", "1MB"];
        with_config(&fixture, config, &[&split, more].concat())
    };
    split("require-signature = true\nkeys = [\"../../ours.pub\"]", &[]).ended(3).reported(&["does not match the key"]);
    split(known, &[]).ended(3).reported(&["does not match the key", "nothing was written"]);
    split(known, &["--key", text(&theirs.public)]).ended(0).reported(&["signed by"]);
    // The copy has no signature, which is no reason to trust the bundle's.
    let repair = with_config(&fixture, known, &["repair", "theirs", "unsigned"]).ended(3);
    repair.reported(&["does not match the key"]);
}

/// Otherwise the command would print "OK" for a bundle that the next command refuses.
#[test]
fn a_repair_without_the_required_signature_fails() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::Ed25519);
    fixture.export("unsigned.tar", &[]).ended(0);
    fixture.signed("signed.tar", &key);
    let run = |command: &[&str]| fixture.run(&[command, &["--key", text(&key.public)]].concat());
    let repaired = run(&["repair", "unsigned.tar", "signed.tar"]).ended(3);
    assert!(repaired.stdout.contains("SHA256SUMS.sig") && repaired.stdout.contains("gapferry convert"), "{repaired:?}");
    let report = run(&["repair", "unsigned.tar", "signed.tar", "--json"]).ended(3);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["ok"], &report["problems"][0]["code"]), (&false.into(), &"unsigned".into()));
    run(&["verify", "unsigned.tar"]).ended(3);
    // In a directory, the signature can be added.
    fixture.export("unsigned", &[]).ended(0);
    run(&["repair", "unsigned", "signed.tar"]).ended(0);
    run(&["verify", "unsigned"]).ended(0);
}

/// One bad block in the last entry, which no reader needs, must not make the whole tar unusable.
#[test]
fn a_tar_with_a_lost_header_of_its_last_signature_can_be_repaired() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::Ed25519);
    let bundle = fixture.signed("bundle.tar", &key);
    fixture.signed("copy", &key);
    let whole = std::fs::read(&bundle).unwrap();
    let header = whole.windows(14).rposition(|window| window == b"chunks.b3.sig\0").unwrap();
    let damaged = |at: std::ops::Range<usize>| {
        let mut tar = whole.clone();
        tar[at].fill(b'X');
        std::fs::write(&bundle, tar).unwrap();
        fixture.verify(&bundle, &key).ended(3);
        fixture.run(&["repair", "bundle.tar", "copy", "--key", text(&key.public)])
    };
    damaged(header..header + 4).ended(0);
    assert!(std::fs::read(&bundle).unwrap() == whole, "the tar still had the signature");
    damaged(header..header + 1024).ended(0);
    assert!(std::fs::read(&bundle).unwrap() == whole, "the copy has the signature");
    // From a copy without this key's signature of chunks.b3, the tar is complete without that signature.
    std::fs::remove_file(fixture.path().join("copy/chunks.b3.sig")).unwrap();
    damaged(header..header + 1024).ended(0);
    assert_eq!(std::fs::read(&bundle).unwrap().len(), whole.len() - 1024);
    fixture.verify(&bundle, &key).ended(0);
}

#[test]
fn an_invalid_signature_of_chunks_b3_is_restored_from_a_copy() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::Ed25519);
    fixture.signed("copy", &key);
    let run = |command: &[&str]| fixture.run(&[command, &["--key", text(&key.public)]].concat());
    let name = "chunks.b3.sig";
    let whole = std::fs::read(fixture.path().join("copy").join(name)).unwrap();
    fixture.signed("bundle", &key);
    std::fs::write(fixture.path().join("bundle").join(name), "x").unwrap();
    run(&["repair", "bundle", "copy"]).ended(0);
    assert!(std::fs::read(fixture.path().join("bundle").join(name)).unwrap() == whole);
}

#[test]
fn a_tar_altered_after_signing_and_an_invalid_key_are_refused() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::Ed25519);
    let bundle = fixture.signed("bundle.tar", &key);
    let whole = std::fs::read(&bundle).unwrap();
    let find = |text: &[u8]| whole.windows(text.len()).position(|window| window == text).unwrap();
    let signature = find(b"SHA256SUMS.sig\0") + 512;
    for (at, words) in [
        (find(b"gapferryBundle"), "bundle.json was altered"),
        (find(b"  oci-layout\n") - 1, "does not match the key"),
        (signature, "does not match the key"),
    ] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        std::fs::write(&bundle, altered).unwrap();
        is_refused(&fixture, &bundle, &key, &[words]);
    }
    std::fs::write(&bundle, &whole).unwrap();
    let swapped = Key { public: key.private.clone(), private: key.public.clone(), kind: key.kind };
    fixture.verify(&bundle, &swapped).ended(2).reported(&["it is a private key, which only the signer needs"]);
    fixture
        .run(&["sign", "bundle.tar", "--sign-key", text(&swapped.private)])
        .ended(2)
        .reported(&["it is a public key"]);
    fixture.verify(&bundle, &key).ended(0);
}
