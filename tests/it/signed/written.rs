//! Signatures that are written, and that others verify; and the other way round.

use std::path::Path;
use std::process::Command;

use super::keys::{Ground, Key, Kind, text, unpacked};
use crate::bundle::ground::two_images;
use crate::support::ran::Ran;
use crate::support::{gapferry, images, tempdir};

const KINDS: [Kind; 2] = [Kind::P256, Kind::Ed25519];

#[test]
fn whoever_has_only_openssl_and_sha256sum_can_prove_a_bundle_and_who_made_it() {
    let ground = Ground::new();
    for kind in KINDS {
        let key = ground.key(&format!("{kind:?}"), kind);
        for out in [format!("{kind:?}"), format!("{kind:?}.tar")] {
            let bundle = ground.signed(&out, &key);
            let files = unpacked(&bundle);
            key.is_verified_by_openssl(files.path());
            let sums = Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(files.path()).status();
            assert!(sums.unwrap().success());
            let verified = ground.verify(&bundle, &key).ended(0);
            assert!(verified.stdout.contains(&format!("signed by {}", key.fingerprint())), "{verified:#?}");
        }
    }
}

#[test]
fn a_signature_that_openssl_or_cosign_made_is_as_good_as_ours() {
    let ground = Ground::new();
    ground.export("bundle", &[]).ended(0);
    let bundle = ground.path().join("bundle");
    for kind in KINDS {
        let key = ground.key(&format!("{kind:?}"), kind);
        key.signs_by_openssl(&bundle);
        ground.verify(&bundle, &key).ended(0);
        // cosign sign-blob writes base64.
        let raw = std::fs::read(bundle.join("SHA256SUMS.sig")).unwrap();
        let base64 = super::keys::openssl(&bundle, &["base64", "-A", "-in", "SHA256SUMS.sig"]);
        assert_ne!(raw, base64);
        std::fs::write(bundle.join("SHA256SUMS.sig"), base64).unwrap();
        ground.verify(&bundle, &key).ended(0);
    }
    // Appended to a tar by tar itself.
    ground.export("bundle.tar", &[]).ended(0);
    let (tar, key) = (ground.path().join("bundle.tar"), ground.key("later", Kind::P256));
    let files = unpacked(&tar);
    key.signs_by_openssl(files.path());
    let append = Command::new("tar").args(["-rf", text(&tar), "-C", text(files.path()), "SHA256SUMS.sig"]).status();
    assert!(append.unwrap().success());
    ground.verify(&tar, &key).ended(0);
}

#[test]
fn a_signature_moves_no_other_byte_of_a_tar_however_long_it_is() {
    let ground = Ground::new();
    let (short, long) = (ground.key("ed", Kind::Ed25519), ground.key("ec", Kind::P256));
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    let (one, other) = (bytes(&ground.signed("one.tar", &short)), bytes(&ground.signed("other.tar", &long)));
    assert_eq!(one.len(), other.len());
    let header = 512 * (0..one.len() / 512).find(|at| one[at * 512..].starts_with(b"SHA256SUMS.sig\0")).unwrap();
    // That of chunks.b3 stands at the very end.
    let end = one.len() - 2 * 1024;
    assert!(one[end..].starts_with(b"chunks.b3.sig\0"));
    assert!(one[..header] == other[..header] && one[header + 1024..end] == other[header + 1024..end]);
    assert_eq!(one.len(), ground.path().join("one.tar").metadata().unwrap().len() as usize);
    ground.export("plain.tar", &[]).ended(0);
    assert_eq!(bytes(&ground.path().join("plain.tar")).len() + 2 * 1024, one.len());
}

#[test]
fn an_unchanged_export_gets_the_signature_it_lacks_and_keeps_its_identity() {
    let ground = Ground::new();
    let (first, second) = (ground.key("first", Kind::P256), ground.key("second", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        let identity =
            |ran: crate::support::ran::Ran| ran.stderr.lines().find(|l| l.contains("identity")).map(str::to_owned);
        let bundle = ground.path().join(out);
        let plain = identity(ground.export(out, &[]).ended(0));
        assert!(plain.is_some());
        for key in [&first, &second] {
            let again =
                ground.export(out, &["--sign-key", text(&key.private)]).ended(0).said(&["unchanged", "signed by"]);
            assert_eq!(identity(again), plain);
            ground.verify(&bundle, key).ended(0);
        }
        first.is_verified_by_openssl(unpacked(&bundle).path());
        // The second one has not taken the place of the first.
        ground.verify(&bundle, &first).ended(0);
        // Without a key nothing is taken away.
        let again = ground.export(out, &[]).ended(0).said(&["unchanged"]);
        assert!(!again.stderr.contains("was signed"), "{}", again.stderr);
        ground.verify(&bundle, &second).ended(0);
    }
}

/// The medium would be carried over, and refused there.
#[test]
fn an_export_that_replaces_a_signed_bundle_by_one_without_a_signature_says_so() {
    let ground = Ground::new();
    let key = ground.key("key", Kind::Ed25519);
    for (out, more) in [("bundle", &[][..]), ("bundle.tar", &[]), ("volumes.tar", &["--volume-size", "1GB"])] {
        let export = |key: &[&str]| ground.export(out, &[more, key].concat()).ended(0);
        let sign = ["--sign-key", text(&key.private)];
        let push = |content: &str| images::oci("team/app", "1", &[content]).push(&ground.registry);
        push(&format!("the first content of {out}"));
        export(&sign);
        push(&format!("the second content of {out}"));
        let said =
            |ran: &crate::support::ran::Ran| ran.stderr.contains("that was replaced was signed, and this one is not");
        assert!(!said(&export(&[&sign[..], &["--dry-run"]].concat())) && !said(&export(&["--dry-run"])));
        let replaced = export(&[]);
        assert!(said(&replaced), "{out}: {}", replaced.stderr);
        assert!(!said(&export(&sign)), "{out}");
    }
}

/// Whoever carries a bundle may rename it. What it is called says nothing of its form.
#[test]
fn a_tar_is_signed_whatever_it_is_called() {
    let ground = Ground::new();
    let (ec, ed) = (ground.key("ec", Kind::P256), ground.key("ed", Kind::Ed25519));
    ground.export("bundle.tar", &[]).ended(0);
    let carried = ground.path().join("carried");
    std::fs::rename(ground.path().join("bundle.tar"), &carried).unwrap();
    for key in [&ec, &ed] {
        ground.run(&["sign", "carried", "--full", "--key", text(&key.private)]).ended(0);
    }
    assert!(carried.is_file());
    ground.verify(&carried, &ec).ended(0);
    ground.verify(&carried, &ed).ended(0);
}

#[test]
fn a_bundle_is_signed_where_the_key_is_and_not_where_it_was_exported() {
    let ground = Ground::new();
    let (ec, ed) = (ground.key("ec", Kind::P256), ground.key("ed", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        ground.export(out, &[]).ended(0);
        let bundle = ground.path().join(out);
        let identity = ground.run(&["fingerprint", out]).ended(0).stdout;
        for key in [&ec, &ed, &ec] {
            ground.run(&["sign", out, "--key", text(&key.private)]).ended(0).said(&["signed by", &key.fingerprint()]);
            ground.verify(&bundle, key).ended(0);
        }
        ec.is_verified_by_openssl(unpacked(&bundle).path());
        ground.verify(&bundle, &ed).ended(0);
        let names: Vec<String> =
            crate::support::files_below(unpacked(&bundle).path()).into_iter().map(|it| it.0).collect();
        let signatures: Vec<&String> = names.iter().filter(|name| name.ends_with(".sig")).collect();
        assert_eq!(signatures.len(), 2, "each key has one: {signatures:?}");
        assert_eq!(ground.run(&["fingerprint", out]).ended(0).stdout, identity);
        // It stands at the beginning, as if it had been exported so.
        let names = Command::new("tar").args(["-tf", text(&bundle)]).output().unwrap().stdout;
        let sixth = String::from_utf8_lossy(&names).lines().nth(5).map(str::to_owned);
        assert!(bundle.is_dir() || sixth.as_deref() == Some("SHA256SUMS.sig"), "{sixth:?}");
        let left: Vec<_> = std::fs::read_dir(ground.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".gapferry-")), "{left:?}");
    }
    let damaged = ground.path().join("bundle/SHA256SUMS");
    std::fs::write(&damaged, "something else\n").unwrap();
    ground.run(&["sign", "bundle", "--key", text(&ec.private)]).ended(3).said(&["damaged, so it is not signed"]);
}

#[test]
fn an_encrypted_key_of_cosign_signs_and_its_passphrase_is_shown_to_nobody() {
    const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys");
    let (private, public) = (format!("{KEYS}/cosign-format.key"), format!("{KEYS}/cosign-format.pub"));
    let ground = Ground::new();
    let directory = ground.path().to_owned();
    ground.export("bundle", &[]).ended(0);
    let sign = |more: &[&str], variable: Option<&str>| {
        let mut command = crate::support::gapferry();
        command.current_dir(&directory).args(["sign", "bundle", "-vv", "--key", &private]).args(more);
        variable.map(|passphrase| command.env("COSIGN_PASSWORD", passphrase));
        crate::support::ran::Ran::of(&mut command)
    };
    let is_secret = |ran: crate::support::ran::Ran| assert!(!format!("{ran:?}").contains("correct horse"), "{ran:?}");
    sign(&[], None).ended(2).said(&["has a passphrase", "--sign-passphrase-file FILE or COSIGN_PASSWORD"]);
    sign(&[], Some("wrong")).ended(2).said(&["the passphrase is not the one"]);
    is_secret(sign(&[], Some("correct horse")).ended(0));
    std::fs::write(ground.path().join("passphrase"), "correct horse\n").unwrap();
    let told = sign(&["--sign-passphrase-file", "passphrase"], Some("wrong")).ended(0);
    is_secret(told.said(&["passphrase can be read by other users", "cosign-format.key can be read by other users"]));
    ground.run(&["verify", "bundle", "--key", &public]).ended(0);
}

#[test]
fn a_fingerprint_says_which_bundle_it_is_whatever_its_form() {
    let ground = Ground::new();
    let lock = ["--lock", "images.lock"];
    ground.export("bundle", &lock).ended(0);
    let args = ["export", "--locked", "images.lock", "-o", "again.tar"];
    ground.run(&args).ended(0);
    let said = ground.run(&["fingerprint", "bundle"]).ended(0).stdout;
    assert_eq!(ground.run(&["fingerprint", "again.tar"]).ended(0).stdout, said);
    assert_eq!(said.split_whitespace().count(), 10, "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&ground.run(&["fingerprint", "bundle", "--json"]).stdout).unwrap();
    assert_eq!(json["fingerprint"].as_str(), Some(said.trim_end()));
    let sum = crate::support::sha256(&std::fs::read(ground.path().join("bundle/bundle.json")).unwrap());
    assert_eq!(json["identity"].as_str(), Some(&*sum));
}

#[test]
fn an_export_that_names_a_key_builds_on_nothing_that_it_has_not_signed() {
    let ground = Ground::new();
    let (ours, other) = (ground.key("ours", Kind::P256), ground.key("other", Kind::Ed25519));
    let (public, others) = (text(&ours.public), text(&other.public));
    let first = ground.signed("first.tar", &ours);
    let import = ["import", text(&first), "--to", ground.registry.host()];
    let sign = ["--sign-key", text(&ours.private), "--receipt", "receipt.json"];
    ground.run(&[&import[..], &sign].concat()).ended(0);
    let list = format!("{}/team/app:1", ground.registry.host());
    std::fs::write(ground.path().join("images.txt"), list).unwrap();
    let inventory = ["inventory", ground.registry.host(), "-f", "images.txt"];
    let signing = ["-o", "inventory.json", "--sign-key", text(&ours.private)];
    ground.run(&[&inventory[..], &signing].concat()).ended(0);
    ground.run(&[&inventory[..], &["--sign-key", text(&ours.private)]].concat()).ended(2).said(&["-o FILE"]);

    let export = |file: &str, keys: &[&str]| ground.export("next.tar", &[&["--since", file], keys].concat());
    for file in ["receipt.json", "inventory.json", "first.tar"] {
        export(file, &["--since-key", others, "--since-key", public])
            .ended(0)
            .said(&["signed by", &ours.fingerprint()]);
        export(file, &["--since-key", others]).ended(3).said(&[file, "is refused", "another key"]);
    }
    export("receipt.json", &[]).ended(0).said(&["without --since-key that is not checked"]);
    let requests = ground.registry.requests().len();
    for file in ["receipt.json", "inventory.json"] {
        let path = ground.path().join(file);
        let told = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, told.replacen("\n", " \n", 1)).unwrap();
        export(file, &["--since-key", public]).ended(3).said(&[file, "it was altered"]);
        std::fs::remove_file(ground.path().join(format!("{file}.sig"))).unwrap();
        export(file, &["--since-key", public]).ended(3).said(&[file, "is not signed"]);
    }
    assert_eq!(ground.registry.requests().len(), requests, "told before anything is asked");
}

#[test]
fn a_receipt_that_is_signed_is_verified_by_openssl() {
    let ground = Ground::new();
    let key = ground.key("here", Kind::P256);
    ground.export("bundle", &[]).ended(0);
    let to = format!("{}/mirror", ground.registry.host());
    let import = ["import", "bundle", "--plain-http", "--to", &to, "--sign-key", text(&key.private)];
    ground.run(&import).ended(2).said(&["--receipt"]);
    ground.run(&[&import[..], &["--receipt", "receipt.json"]].concat()).ended(0);
    let args = ["dgst", "-sha256", "-verify", text(&key.public), "-signature", "receipt.json.sig", "receipt.json"];
    super::keys::openssl(ground.path(), &args);
}

#[test]
fn what_a_registry_left_behind_is_signed_as_a_bundle_too() {
    let ground = Ground::new();
    let key = ground.key("ours", Kind::Ed25519);
    let storage = ground.registry.storage();
    for _ in 0..2 {
        let args = ["migrate", text(&storage), "--to-bundle", "old.tar", "--sign-key", text(&key.private)];
        ground.run(&args).ended(0).said(&["signed by", &key.fingerprint()]);
        ground.verify(&ground.path().join("old.tar"), &key).ended(0);
    }
}

/// BLAKE3 is as good as a signature of it: what a forger wrote does not count where a key is demanded.
#[test]
fn where_a_key_is_demanded_chunks_b3_counts_only_if_an_accepted_key_has_signed_it() {
    let ground = Ground::new();
    let (ours, theirs) = (ground.key("ours", Kind::P256), ground.key("theirs", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        ground.export(out, &[]).ended(0);
        let proof = |key: &super::keys::Key| {
            let args = ["verify", out, "--json", "--key", text(&key.public)];
            let json: serde_json::Value = serde_json::from_str(&ground.run(&args).ended(0).stdout).unwrap();
            (json["proof"].as_str().unwrap().to_owned(), json["proofReason"].as_str().map(str::to_owned))
        };
        let sign = |key: &super::keys::Key, more: &[&str]| {
            ground.run(&[&["sign", out, "--key", text(&key.private)], more].concat()).ended(0);
        };
        sign(&ours, &[]);
        let unsigned = ("digest".to_owned(), Some("no accepted key has signed chunks.b3".to_owned()));
        assert_eq!(proof(&ours), unsigned);
        sign(&theirs, &["--full"]);
        assert_eq!((proof(&theirs).0.as_str(), proof(&ours)), ("blake3-signed", unsigned.clone()));
        sign(&ours, &["--full"]);
        assert_eq!(proof(&ours).0, "blake3-signed");
        // With --full nobody signs what is not there.
        let bundle = ground.path().join(out);
        if bundle.is_dir() {
            let blob = std::fs::read_dir(bundle.join("blobs/sha256")).unwrap().next().unwrap().unwrap().path();
            let mut bytes = std::fs::read(&blob).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&blob, bytes).unwrap();
            let args = ["sign", out, "--full", "--key", text(&ours.private)];
            ground.run(&args).ended(3).said(&["damaged, so it is not signed"]);
        }
    }
}

#[test]
fn what_cannot_be_a_signature_is_a_problem_and_so_are_too_many_of_them() {
    let ground = Ground::new();
    let key = ground.key("ours", Kind::Ed25519);
    let bundle = ground.signed("bundle", &key);
    let verify = || ground.run(&["verify", "bundle"]);
    std::fs::write(bundle.join("SHA256SUMS.0123456789abcdef.sig"), "no signature").unwrap();
    assert!(verify().ended(3).stdout.contains("SHA256SUMS.0123456789abcdef.sig: malformed"));
    // One by a key that nobody here has is none.
    std::fs::write(bundle.join("SHA256SUMS.0123456789abcdef.sig"), [7; 64]).unwrap();
    verify().ended(0);
    ground.verify(&bundle, &key).ended(0);
    for number in 0..16 {
        std::fs::write(bundle.join(format!("SHA256SUMS.{number:016x}.sig")), [7; 64]).unwrap();
    }
    assert!(verify().ended(3).stdout.contains("at most 16"));
    ground.verify(&bundle, &key).ended(3).said(&["at most 16"]);
    std::fs::write(bundle.join("SHA256SUMS.ABCDEF0123456789.sig"), [7; 64]).unwrap();
    assert!(verify().ended(3).stdout.contains("SHA256SUMS.ABCDEF0123456789.sig: not declared"));
}

/// A pipeline that signs has to know what it has signed, without reading text.
#[test]
fn signing_gives_the_identity_and_the_fingerprint_as_json() {
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
