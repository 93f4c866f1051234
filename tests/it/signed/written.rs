//! Signatures written by gapferry and verified by others, and the reverse.

use std::path::Path;
use std::process::Command;

use super::keys::{Fixture, Key, Kind, take_all_signatures, text, unpacked};
use crate::bundle::fixture::two_images;
use crate::support::ran::Ran;
use crate::support::{gapferry, images, tempdir};

const KINDS: [Kind; 2] = [Kind::P256, Kind::Ed25519];

#[test]
fn openssl_and_sha256sum_alone_can_verify_a_bundle_and_its_signer() {
    let fixture = Fixture::new();
    for kind in KINDS {
        let key = fixture.key(&format!("{kind:?}"), kind);
        for out in [format!("{kind:?}"), format!("{kind:?}.tar")] {
            let bundle = fixture.signed(&out, &key);
            let files = unpacked(&bundle);
            key.is_verified_by_openssl(files.path());
            let sums = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(files.path()).status();
            assert!(sums.unwrap().success());
            let verified = fixture.verify(&bundle, &key).ended(0);
            assert!(verified.stdout.contains(&format!("signed by {}", key.fingerprint())), "{verified:#?}");
        }
    }
}

#[test]
fn signatures_made_by_openssl_or_cosign_are_accepted() {
    let fixture = Fixture::new();
    fixture.export("bundle", &[]).ended(0);
    let bundle = fixture.path().join("bundle");
    for kind in KINDS {
        let key = fixture.key(&format!("{kind:?}"), kind);
        key.signs_by_openssl(&bundle);
        fixture.verify(&bundle, &key).ended(0);
        // cosign sign-blob writes base64.
        let raw = std::fs::read(bundle.join("SHA256SUMS.sig")).unwrap();
        let base64 = super::keys::openssl(&bundle, &["base64", "-A", "-in", "SHA256SUMS.sig"]);
        assert_ne!(raw, base64);
        std::fs::write(bundle.join("SHA256SUMS.sig"), base64).unwrap();
        fixture.verify(&bundle, &key).ended(0);
    }
    // Appended to the tar by tar itself.
    fixture.export("bundle.tar", &[]).ended(0);
    let (tar, key) = (fixture.path().join("bundle.tar"), fixture.key("later", Kind::P256));
    let files = unpacked(&tar);
    key.signs_by_openssl(files.path());
    let append = Command::new("tar").args(["-rf", text(&tar), "-C", text(files.path()), "SHA256SUMS.sig"]).status();
    assert!(append.unwrap().success());
    fixture.verify(&tar, &key).ended(0);
}

#[test]
fn a_signature_of_any_length_moves_no_other_byte_of_a_tar() {
    let fixture = Fixture::new();
    let (short, long) = (fixture.key("ed", Kind::Ed25519), fixture.key("ec", Kind::P256));
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    let (one, other) = (bytes(&fixture.signed("one.tar", &short)), bytes(&fixture.signed("other.tar", &long)));
    assert_eq!(one.len(), other.len());
    let header = 512 * (0..one.len() / 512).find(|at| one[at * 512..].starts_with(b"SHA256SUMS.sig\0")).unwrap();
    // The signature of chunks.b3 is at the very end.
    let end = one.len() - 2 * 1024;
    assert!(one[end..].starts_with(b"chunks.b3.sig\0"));
    assert!(one[..header] == other[..header] && one[header + 1024..end] == other[header + 1024..end]);
    assert_eq!(one.len(), fixture.path().join("one.tar").metadata().unwrap().len() as usize);
    fixture.export("plain.tar", &[]).ended(0);
    assert_eq!(bytes(&fixture.path().join("plain.tar")).len() + 2 * 1024, one.len());
}

/// How the blobs are verified for the holder of the public key.
fn proof(fixture: &Fixture, bundle: &str, key: &Key) -> String {
    let verified = fixture.run(&["verify", bundle, "--key", text(&key.public), "--json"]).ended(0);
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).unwrap();
    report["proof"].as_str().unwrap().to_owned()
}

/// Without a signature of `chunks.b3`, a reader that requires one must compute all digests, and the user of
/// `--sign-key` would not know.
#[test]
fn an_unchanged_export_adds_a_missing_signature_of_chunks_b3() {
    let fixture = Fixture::new();
    let key = fixture.key("key", Kind::Ed25519);
    for out in ["bundle", "bundle.tar"] {
        fixture.export(out, &[]).ended(0);
        fixture.run(&["sign", out, "--sign-key", text(&key.private)]).ended(0);
        assert_eq!(proof(&fixture, out, &key), "digest");
        for _ in 0..2 {
            fixture.export(out, &["--sign-key", text(&key.private)]).ended(0).reported(&["unchanged", "signed by"]);
            assert_eq!(proof(&fixture, out, &key), "blake3-signed");
        }
    }
}

/// The bundle would cross the gap and be refused there.
#[test]
fn a_failed_signature_is_not_reported_as_signed() {
    let fixture = Fixture::new();
    let (key, other) = (fixture.key("key", Kind::Ed25519), fixture.key("other", Kind::Ed25519));
    take_all_signatures(&fixture.signed("bundle", &other));
    let failed = fixture.export("bundle", &["--sign-key", text(&key.private)]).ended(2);
    let failed = failed.reported(&["SHA256SUMS already has 16 signatures"]);
    assert!(!failed.stderr.contains("signed by"), "{}", failed.stderr);
}

#[test]
fn an_unchanged_export_adds_a_missing_signature_and_keeps_its_identity() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.key("first", Kind::P256), fixture.key("second", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        let identity =
            |ran: crate::support::ran::Ran| ran.stderr.lines().find(|l| l.contains("identity")).map(str::to_owned);
        let bundle = fixture.path().join(out);
        let plain = identity(fixture.export(out, &[]).ended(0));
        assert!(plain.is_some());
        for key in [&first, &second] {
            let again =
                fixture.export(out, &["--sign-key", text(&key.private)]).ended(0).reported(&["unchanged", "signed by"]);
            assert_eq!(identity(again), plain);
            assert_eq!(proof(&fixture, out, key), "blake3-signed");
        }
        first.is_verified_by_openssl(unpacked(&bundle).path());
        // The second signature has not replaced the first.
        fixture.verify(&bundle, &first).ended(0);
        // An export without a key removes no signature.
        let again = fixture.export(out, &[]).ended(0).reported(&["unchanged"]);
        assert!(!again.stderr.contains("was signed"), "{}", again.stderr);
        fixture.verify(&bundle, &second).ended(0);
    }
}

/// The medium would cross the gap and be refused there.
#[test]
fn replacing_a_signed_bundle_with_an_unsigned_one_is_reported() {
    let fixture = Fixture::new();
    let key = fixture.key("key", Kind::Ed25519);
    for (out, more) in [("bundle", &[][..]), ("bundle.tar", &[]), ("volumes.tar", &["--volume-size", "1GB"])] {
        let export = |key: &[&str]| fixture.export(out, &[more, key].concat()).ended(0);
        let sign = ["--sign-key", text(&key.private)];
        let push = |content: &str| images::oci("team/app", "1", &[content]).push(&fixture.registry);
        push(&format!("the first content of {out}"));
        export(&sign);
        push(&format!("the second content of {out}"));
        let message =
            |ran: &crate::support::ran::Ran| ran.stderr.contains("the replaced bundle was signed, and this one is not");
        assert!(!message(&export(&[&sign[..], &["--dry-run"]].concat())) && !message(&export(&["--dry-run"])));
        let replaced = export(&[]);
        assert!(message(&replaced), "{out}: {}", replaced.stderr);
        assert!(!message(&export(&sign)), "{out}");
    }
}

#[test]
fn leftovers_of_a_killed_sign_do_not_block_signing_a_directory() {
    let fixture = Fixture::new();
    let key = fixture.key("ed", Kind::Ed25519);
    fixture.export("bundle", &[]).ended(0);
    let bundle = fixture.path().join("bundle");
    std::fs::create_dir(bundle.join("tools")).unwrap();
    for left in ["SHA256SUMS.sig.partial", "tools/gapferry.partial"] {
        std::fs::write(bundle.join(left), "half").unwrap();
    }
    fixture.run(&["sign", "bundle", "--sign-key", text(&key.private)]).ended(0);
    fixture.verify(&bundle, &key).ended(0);
}

/// An earlier version, killed while it replaced a signature in a tar, left bytes of both.
#[test]
fn remains_of_a_signature_do_not_block_signing_a_tar() {
    let fixture = Fixture::new();
    let key = fixture.key("ec", Kind::P256);
    let bundle = fixture.signed("bundle.tar", &key);
    let mut bytes = std::fs::read(&bundle).unwrap();
    let name = b"SHA256SUMS.sig\0";
    let header = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[header + 512 + 500] = 7;
    std::fs::write(&bundle, bytes).unwrap();
    fixture.verify(&bundle, &key).ended(3);
    fixture.run(&["sign", "bundle.tar", "--sign-key", text(&key.private)]).ended(0);
    fixture.verify(&bundle, &key).ended(0);
}

/// A volume has files that are not part of the bundle; removing them is not the way to sign it.
#[test]
fn signing_a_volume_is_refused_with_the_way_to_sign_its_bundle() {
    let fixture = Fixture::new();
    let key = fixture.key("ed", Kind::Ed25519);
    fixture.export("bundle.tar", &["--volume-size", "1MB"]).ended(0);
    let refused = fixture.run(&["sign", "bundle.001.tar", "--sign-key", text(&key.private)]).ended(2);
    refused.reported(&["volumes cannot be signed", "gapferry join"]);
    fixture.export("bundle.001.tar", &[]).ended(2).reported(&["it is a volume of a bundle"]);
}

/// A bundle may be renamed in transit. Its name says nothing about its form.
#[test]
fn a_tar_can_be_signed_under_any_file_name() {
    let fixture = Fixture::new();
    let (ec, ed) = (fixture.key("ec", Kind::P256), fixture.key("ed", Kind::Ed25519));
    fixture.export("bundle.tar", &[]).ended(0);
    let carried = fixture.path().join("carried");
    std::fs::rename(fixture.path().join("bundle.tar"), &carried).unwrap();
    for key in [&ec, &ed] {
        fixture.run(&["sign", "carried", "--full", "--key", text(&key.private)]).ended(0);
    }
    assert!(carried.is_file());
    fixture.verify(&carried, &ec).ended(0);
    fixture.verify(&carried, &ed).ended(0);
}

#[test]
fn a_bundle_can_be_signed_on_another_machine_than_it_was_exported_on() {
    let fixture = Fixture::new();
    let (ec, ed) = (fixture.key("ec", Kind::P256), fixture.key("ed", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        fixture.export(out, &[]).ended(0);
        let bundle = fixture.path().join(out);
        let identity = fixture.run(&["fingerprint", out]).ended(0).stdout;
        for key in [&ec, &ed, &ec] {
            fixture
                .run(&["sign", out, "--sign-key", text(&key.private)])
                .ended(0)
                .reported(&["signed by", &key.fingerprint()]);
            fixture.verify(&bundle, key).ended(0);
        }
        ec.is_verified_by_openssl(unpacked(&bundle).path());
        fixture.verify(&bundle, &ed).ended(0);
        let names: Vec<String> =
            crate::support::files_below(unpacked(&bundle).path()).into_iter().map(|it| it.0).collect();
        let signatures: Vec<&String> = names.iter().filter(|name| name.ends_with(".sig")).collect();
        assert_eq!(signatures.len(), 2, "one signature per key: {signatures:?}");
        assert_eq!(fixture.run(&["fingerprint", out]).ended(0).stdout, identity);
        // The signature is at the beginning, as if the bundle had been exported with it.
        let names = Command::new("tar").args(["-tf", text(&bundle)]).output().unwrap().stdout;
        let sixth = String::from_utf8_lossy(&names).lines().nth(5).map(str::to_owned);
        assert!(bundle.is_dir() || sixth.as_deref() == Some("SHA256SUMS.sig"), "{sixth:?}");
        let left: Vec<_> = std::fs::read_dir(fixture.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".gapferry-")), "{left:?}");
    }
    let damaged = fixture.path().join("bundle/SHA256SUMS");
    std::fs::write(&damaged, "something else\n").unwrap();
    fixture.run(&["sign", "bundle", "--key", text(&ec.private)]).ended(3).reported(&["damaged and was not signed"]);
}

#[test]
fn an_encrypted_cosign_key_can_sign_and_its_passphrase_is_never_shown() {
    const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys");
    let (private, public) = (format!("{KEYS}/cosign-format.key"), format!("{KEYS}/cosign-format.pub"));
    let fixture = Fixture::new();
    let directory = fixture.path().to_owned();
    fixture.export("bundle", &[]).ended(0);
    let sign = |more: &[&str], variable: Option<&str>| {
        let mut command = crate::support::gapferry();
        command.current_dir(&directory).args(["sign", "bundle", "-vv", "--key", &private]).args(more);
        variable.map(|passphrase| command.env("COSIGN_PASSWORD", passphrase));
        crate::support::ran::Ran::of(&mut command)
    };
    let is_secret = |ran: crate::support::ran::Ran| assert!(!format!("{ran:?}").contains("correct horse"), "{ran:?}");
    sign(&[], None).ended(2).reported(&["has a passphrase", "--sign-passphrase-file FILE or COSIGN_PASSWORD"]);
    sign(&[], Some("incorrect horse")).ended(2).reported(&["the passphrase is wrong"]);
    is_secret(sign(&[], Some("correct horse")).ended(0));
    std::fs::write(fixture.path().join("passphrase"), "correct horse\n").unwrap();
    let signed = sign(&["--sign-passphrase-file", "passphrase"], Some("wrong")).ended(0);
    is_secret(signed.reported(&["chmod 600 passphrase", "cosign-format.key: run `chmod 600 "]));
    fixture.run(&["verify", "bundle", "--key", &public]).ended(0);
}

#[test]
fn a_fingerprint_is_the_same_for_every_form_of_a_bundle() {
    let fixture = Fixture::new();
    let lock = ["--lock", "images.lock"];
    fixture.export("bundle", &lock).ended(0);
    let args = ["export", "--locked", "images.lock", "-o", "again.tar"];
    fixture.run(&args).ended(0);
    let message = fixture.run(&["fingerprint", "bundle"]).ended(0).stdout;
    assert_eq!(fixture.run(&["fingerprint", "again.tar"]).ended(0).stdout, message);
    assert_eq!(message.split_whitespace().count(), 10, "{message}");
    let json: serde_json::Value =
        serde_json::from_str(&fixture.run(&["fingerprint", "bundle", "--json"]).stdout).unwrap();
    assert_eq!(json["fingerprint"].as_str(), Some(message.trim_end()));
    let sum = crate::support::sha256(&std::fs::read(fixture.path().join("bundle/bundle.json")).unwrap());
    assert_eq!(json["identity"].as_str(), Some(&*sum));
}

#[test]
fn since_key_accepts_only_a_base_signed_by_that_key() {
    let fixture = Fixture::new();
    let (ours, other) = (fixture.key("ours", Kind::P256), fixture.key("other", Kind::Ed25519));
    let (public, others) = (text(&ours.public), text(&other.public));
    let first = fixture.signed("first.tar", &ours);
    let import = ["import", text(&first), "--to", fixture.registry.host()];
    let sign = ["--sign-key", text(&ours.private), "--receipt", "receipt.json"];
    fixture.run(&[&import[..], &sign].concat()).ended(0);
    let list = format!("{}/team/app:1", fixture.registry.host());
    std::fs::write(fixture.path().join("images.txt"), list).unwrap();
    let inventory = ["inventory", fixture.registry.host(), "-f", "images.txt"];
    let signing = ["-o", "inventory.json", "--sign-key", text(&ours.private)];
    fixture.run(&[&inventory[..], &signing].concat()).ended(0);
    fixture.run(&[&inventory[..], &["--sign-key", text(&ours.private)]].concat()).ended(2).reported(&["-o FILE"]);

    let export = |file: &str, keys: &[&str]| fixture.export("next.tar", &[&["--since", file], keys].concat());
    for file in ["receipt.json", "inventory.json", "first.tar"] {
        export(file, &["--since-key", others, "--since-key", public])
            .ended(0)
            .reported(&["signed by", &ours.fingerprint()]);
        export(file, &["--since-key", others]).ended(3).reported(&[file, "is refused", "another key"]);
    }
    export("receipt.json", &[]).ended(0).reported(&["without --since-key the signature is not checked"]);
    let requests = fixture.registry.requests().len();
    for file in ["receipt.json", "inventory.json"] {
        let path = fixture.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\n", " \n", 1)).unwrap();
        export(file, &["--since-key", public]).ended(3).reported(&[file, "it was altered"]);
        std::fs::remove_file(fixture.path().join(format!("{file}.sig"))).unwrap();
        export(file, &["--since-key", public]).ended(3).reported(&[file, "is not signed"]);
    }
    assert_eq!(fixture.registry.requests().len(), requests, "refused before any request");
}

#[test]
fn openssl_can_verify_a_signed_receipt() {
    let fixture = Fixture::new();
    let key = fixture.key("here", Kind::P256);
    fixture.export("bundle", &[]).ended(0);
    let to = format!("{}/mirror", fixture.registry.host());
    let import = ["import", "bundle", "--plain-http", "--to", &to, "--sign-key", text(&key.private)];
    fixture.run(&import).ended(2).reported(&["--receipt"]);
    fixture.run(&[&import[..], &["--receipt", "receipt.json"]].concat()).ended(0);
    let args = ["dgst", "-sha256", "-verify", text(&key.public), "-signature", "receipt.json.sig", "receipt.json"];
    super::keys::openssl(fixture.path(), &args);
}

#[test]
fn a_bundle_migrated_from_storage_can_be_signed() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::Ed25519);
    let storage = fixture.registry.storage();
    for _ in 0..2 {
        let args = ["migrate", text(&storage), "--to-bundle", "old.tar", "--sign-key", text(&key.private)];
        fixture.run(&args).ended(0).reported(&["signed by", &key.fingerprint()]);
        fixture.verify(&fixture.path().join("old.tar"), &key).ended(0);
    }
}

/// BLAKE3 values are only as trustworthy as their signature: a forger's values must not count where a key is required.
#[test]
fn with_a_required_key_chunks_b3_counts_only_if_signed_by_an_accepted_key() {
    let fixture = Fixture::new();
    let (ours, theirs) = (fixture.key("ours", Kind::P256), fixture.key("theirs", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        fixture.export(out, &[]).ended(0);
        let proof = |key: &super::keys::Key| {
            let args = ["verify", out, "--json", "--key", text(&key.public)];
            let json: serde_json::Value = serde_json::from_str(&fixture.run(&args).ended(0).stdout).unwrap();
            (json["proof"].as_str().unwrap().to_owned(), json["proofReason"].as_str().map(str::to_owned))
        };
        let sign = |key: &super::keys::Key, more: &[&str]| {
            fixture.run(&[&["sign", out, "--sign-key", text(&key.private)], more].concat()).ended(0);
        };
        sign(&ours, &[]);
        let unsigned = ("digest".to_owned(), Some("chunks.b3 is not signed by an accepted key".to_owned()));
        assert_eq!(proof(&ours), unsigned);
        sign(&theirs, &["--full"]);
        assert_eq!((proof(&theirs).0.as_str(), proof(&ours)), ("blake3-signed", unsigned.clone()));
        sign(&ours, &["--full"]);
        assert_eq!(proof(&ours).0, "blake3-signed");
        // `--full` does not create a missing signature.
        let bundle = fixture.path().join(out);
        if bundle.is_dir() {
            let blob = std::fs::read_dir(bundle.join("blobs/sha256")).unwrap().next().unwrap().unwrap().path();
            let mut bytes = std::fs::read(&blob).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&blob, bytes).unwrap();
            let args = ["sign", out, "--full", "--key", text(&ours.private)];
            fixture.run(&args).ended(3).reported(&["damaged and was not signed"]);
        }
    }
}

#[test]
fn invalid_or_too_many_signatures_are_a_problem() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::Ed25519);
    let bundle = fixture.signed("bundle", &key);
    let verify = || fixture.run(&["verify", "bundle"]);
    std::fs::write(bundle.join("SHA256SUMS.0123456789abcdef.sig"), "no signature").unwrap();
    assert!(verify().ended(3).stdout.contains("SHA256SUMS.0123456789abcdef.sig: malformed"));
    // A signature by an unknown key is not a problem.
    std::fs::write(bundle.join("SHA256SUMS.0123456789abcdef.sig"), [7; 64]).unwrap();
    verify().ended(0);
    fixture.verify(&bundle, &key).ended(0);
    for number in 0..16 {
        std::fs::write(bundle.join(format!("SHA256SUMS.{number:016x}.sig")), [7; 64]).unwrap();
    }
    assert!(verify().ended(3).stdout.contains("at most 16"));
    fixture.verify(&bundle, &key).ended(3).reported(&["the maximum is 16"]);
    std::fs::write(bundle.join("SHA256SUMS.ABCDEF0123456789.sig"), [7; 64]).unwrap();
    assert!(verify().ended(3).stdout.contains("SHA256SUMS.ABCDEF0123456789.sig: not declared"));
}

/// A signing pipeline must know what it signed without parsing text.
#[test]
fn sign_prints_identity_and_fingerprint_as_json() {
    let directory = tempdir();
    let key = Key::new(directory.path(), "ours", Kind::Ed25519);
    let bundle = directory.path().join("b.tar");
    let identity = two_images().write(&bundle).unwrap().identity;
    let ran = Ran::of(gapferry().arg("sign").arg(&bundle).arg("--key").arg(&key.private).arg("--json")).ended(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["version"], &report["ok"]), (&1.into(), &true.into()));
    assert_eq!(report["identity"], identity.to_string());
    assert_eq!(report["signedBy"], key.fingerprint());
}

/// Scripts with the earlier spelling keep working and learn the new one.
#[test]
fn sign_accepts_key_for_a_private_key_and_warns() {
    let fixture = Fixture::new();
    let key = fixture.key("ours", Kind::P256);
    fixture.export("bundle", &[]).ended(0);
    let old = fixture.run(&["sign", "bundle", "--key", text(&key.private)]).ended(0);
    old.reported(&["warning: sign --key is deprecated: use --sign-key"]);
    let now = fixture.run(&["sign", "bundle", "--sign-key", text(&key.private)]).ended(0);
    assert!(!now.stderr.contains("warning"), "{}", now.stderr);
    fixture.run(&["sign", "bundle"]).ended(2).reported(&["--sign-key"]);
}
