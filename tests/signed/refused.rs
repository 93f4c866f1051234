//! Bundles that are refused, each in its own words and before any blob is looked at.

use std::path::{Path, PathBuf};

use super::keys::{Ground, Key, Kind, text};

/// The first blob of a directory.
fn blob(bundle: &Path) -> PathBuf {
    let entries = std::fs::read_dir(bundle.join("blobs/sha256")).unwrap();
    entries.map(|entry| entry.unwrap().path()).min().unwrap()
}

/// What verify and import say, which is the same.
#[track_caller]
fn is_refused(ground: &Ground, bundle: &Path, key: &Key, words: &[&str]) {
    let refused = ground.verify(bundle, key).ended(3).said(words);
    assert!(refused.stdout.is_empty(), "{refused:#?}");
    // Nobody listens on port 9.
    let args = ["import", text(bundle), "--to", "127.0.0.1:9", "--key", text(&key.public)];
    ground.run(&args).ended(3).said(words).said(&["nothing was pushed"]);
}

#[test]
fn an_unsigned_bundle_or_one_of_another_key_is_refused_and_nothing_is_pushed() {
    let ground = Ground::new();
    let (ours, theirs) = (ground.key("ours", Kind::P256), ground.key("theirs", Kind::Ed25519));
    for out in ["bundle", "bundle.tar"] {
        ground.export(out, &[]).ended(0);
        let bundle = ground.path().join(out);
        is_refused(&ground, &bundle, &ours, &["is not signed"]);
        ground.export(out, &["--sign-key", text(&theirs.private)]).ended(0);
        is_refused(&ground, &bundle, &ours, &["does not fit the key", &ours.fingerprint()]);
        let both = ["verify", out, "--key", text(&ours.public), "--key", text(&theirs.public)];
        assert!(ground.run(&both).ended(0).stdout.contains(&theirs.fingerprint()));
        let unasked = ground.run(&["verify", out]).ended(0).said(&["is signed", "not checked"]);
        assert!(!unasked.stdout.contains("signed by"), "{unasked:#?}");
    }
}

#[test]
fn what_was_altered_after_signing_is_refused_before_any_blob_is_read() {
    let ground = Ground::new();
    let key = ground.key("ours", Kind::P256);
    let bundle = ground.signed("bundle", &key);
    // Reading it would wait for ever.
    let blob = blob(&bundle);
    std::fs::remove_file(&blob).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &blob, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for (file, words) in [
        ("SHA256SUMS", &["does not fit the key", "was altered"][..]),
        ("SHA256SUMS.sig", &["does not fit the key", "was altered"]),
        ("bundle.json", &["bundle.json was altered"]),
    ] {
        let path = bundle.join(file);
        let whole = std::fs::read(&path).unwrap();
        let mut altered = whole.clone();
        let at = altered.len() - 4;
        altered[at] ^= 1;
        std::fs::write(&path, altered).unwrap();
        is_refused(&ground, &bundle, &key, words);
        std::fs::remove_file(&path).unwrap();
        is_refused(&ground, &bundle, &key, &[&format!("no {file}")]);
        std::fs::write(&path, whole).unwrap();
    }
    // The signature is good, so what is wrong is said as it always is.
    ground.verify(&bundle, &key).ended(3);
}
