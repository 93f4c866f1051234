//! Signatures that are written, and that others verify; and the other way round.

use std::path::Path;
use std::process::Command;

use super::keys::{Ground, Kind, text, unpacked};

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
    // The times are those of two exports.
    let names = |tar: &[u8]| -> Vec<Vec<u8>> { tar.chunks(512).map(|block| block[..14].to_vec()).collect() };
    assert_eq!(names(&one)[..=header / 512], names(&other)[..=header / 512]);
    assert_eq!(one.len(), ground.path().join("one.tar").metadata().unwrap().len() as usize);
    ground.export("plain.tar", &[]).ended(0);
    assert_eq!(bytes(&ground.path().join("plain.tar")).len() + 1024, one.len());
}

#[test]
fn an_unchanged_export_gets_the_signature_it_lacks_and_keeps_its_identity() {
    let ground = Ground::new();
    let (first, second) = (ground.key("first", Kind::P256), ground.key("second", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        let identity =
            |ran: super::support::ran::Ran| ran.stderr.lines().find(|l| l.contains("identity")).map(str::to_owned);
        let bundle = ground.path().join(out);
        let plain = identity(ground.export(out, &[]).ended(0));
        assert!(plain.is_some());
        for key in [&first, &second] {
            let again =
                ground.export(out, &["--sign-key", text(&key.private)]).ended(0).said(&["unchanged", "signed by"]);
            assert_eq!(identity(again), plain);
            ground.verify(&bundle, key).ended(0);
            key.is_verified_by_openssl(unpacked(&bundle).path());
        }
        ground.verify(&bundle, &first).ended(3);
        // Without a key nothing is taken away.
        ground.export(out, &[]).ended(0).said(&["unchanged"]);
        ground.verify(&bundle, &second).ended(0);
    }
}
