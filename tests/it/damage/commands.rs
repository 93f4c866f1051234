//! Hostile bundles under read-only commands: nothing is written, and nothing that is not part of the bundle is served.

use std::path::Path;

use gapferry::base::progress::Event;
use tar::EntryType;

use super::bundle::{Fixture, Form, blob_path};
use super::forged::{entry, tar_with};
use crate::support::embedded::Embedded;
use crate::support::{files_below, gapferry, sha256, tempdir};

/// Entries that no bundle has, placed before everything a bundle has.
fn odd_entries() -> Vec<super::forged::Entry> {
    let regular = EntryType::Regular;
    vec![
        entry("../outside", regular, b"x"),
        entry("/tmp/gapferry-test-outside", regular, b"x"),
        entry("../up/", EntryType::Directory, b""),
        entry("link", EntryType::Symlink, b""),
        entry("hard", EntryType::Link, b""),
        entry("tty", EntryType::Char, b""),
        entry("pipe", EntryType::Fifo, b""),
        entry("sparse", EntryType::GNUSparse, b""),
        entry("index.json", regular, b"{}"),
        entry("Bundle.json", regular, b"{}"),
    ]
}

#[test]
fn a_hostile_bundle_makes_no_command_write_anything() {
    let fixture = Fixture::new();
    let (directory, elsewhere) = (tempdir(), tempdir());
    let bundle = directory.path().join("b.tar");
    std::fs::write(&bundle, tar_with(&fixture.parts, &odd_entries())).unwrap();
    let before = files_below(directory.path());
    let path = bundle.to_str().unwrap();
    let image = format!("{path}#{}", fixture.images_of("bundle.json").first().unwrap());
    for arguments in
        [&["verify", path][..], &["list", path], &["inspect", &image], &["import", path, "--to", "127.0.0.1:9"]]
    {
        for current in [directory.path(), elsewhere.path()] {
            let output = gapferry().args(arguments).current_dir(current).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code().is_some() && !stderr.contains("panicked"), "{stderr}");
        }
    }
    assert!(files_below(directory.path()) == before, "the bundle's directory is unchanged");
    assert_eq!(files_below(elsewhere.path()), []);
    assert!(!Path::new("/tmp/gapferry-test-outside").exists());
    assert!(!directory.path().parent().unwrap().join("outside").exists());
}

#[test]
fn undeclared_content_of_a_bundle_is_reported_and_not_served() {
    let fixture = Fixture::new();
    let secret = tempdir();
    std::fs::write(secret.path().join("file"), b"of the machine").unwrap();
    let of_machine = blob_path(&sha256(b"of the machine"));
    for form in [Form::Directory, Form::Tar] {
        let directory = tempdir();
        let bundle = fixture.parts.write(directory.path(), form);
        match form {
            Form::Tar => std::fs::write(&bundle, tar_with(&fixture.parts, &odd_entries())).unwrap(),
            Form::Directory => {
                std::os::unix::fs::symlink(secret.path().join("file"), bundle.join(&of_machine)).unwrap();
            }
        }
        let served = Embedded::serve(&bundle);
        let image = &fixture.images[0];
        let manifest = served.get(&format!("/v2/{}/manifests/1", image.repository));
        assert_eq!((manifest.status, sha256(&manifest.body)), (200, image.digest()), "the images are served");
        let own = served.get(&format!("/v2/{}/blobs/{}", image.repository, sha256(b"of the machine")));
        assert_eq!(own.status, 404, "{form:?}: a link is not followed");
        for path in
            ["blobs/../../outside", "blobs/sha256:..%2f..%2foutside", "manifests/..%2f..%2foutside", "blobs/link"]
        {
            let answer = served.get(&format!("/v2/{}/{path}", image.repository));
            assert!(matches!(answer.status, 400 | 404), "{form:?} {path}: {}", answer.status);
        }
        let message = |event: &Event| matches!(event, Event::Warning(text) if text.contains("not served"));
        assert!(served.events().iter().any(message), "{form:?}: {:?}", served.events());
    }
}

#[test]
fn an_unreadable_tar_is_not_served() {
    let fixture = Fixture::new();
    let tar = fixture.parts.tar();
    let directory = tempdir();
    let path = directory.path().join("b.tar");
    // Every length within the first blocks, which hold the headers and contents of the first files.
    for length in 0..2048.min(tar.len()) {
        std::fs::write(&path, &tar[..length]).unwrap();
        let refused = Embedded::try_serve(&path, false).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("b.tar"), "cut at {length}: {refused}");
    }
    assert!(Embedded::try_serve(&path, true).is_err(), "a tar is read-only");
}

#[test]
fn an_export_over_a_hostile_bundle_refuses_it_or_replaces_it_correctly() {
    let fixture = Fixture::new();
    let source = crate::support::registry::Registry::start();
    fixture.images[0].push(&source);
    let reference = format!("{}/{}", source.host(), fixture.images[0].name());
    for odd in odd_entries() {
        let directory = tempdir();
        let bundle = directory.path().join("b.tar");
        let tar = tar_with(&fixture.parts, &[odd]);
        std::fs::write(&bundle, &tar).unwrap();
        let output = gapferry().args(["export", &reference, "-o"]).arg(&bundle).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => assert_eq!(super::bundle::verify(&bundle).code, 0, "{stderr}"),
            Some(2) => assert_eq!(std::fs::read(&bundle).unwrap(), tar, "{stderr}"),
            other => panic!("{other:?}: {stderr}"),
        }
        let left: Vec<String> = files_below(directory.path()).into_iter().map(|(path, _)| path).collect();
        assert_eq!(left, ["b.tar"], "{stderr}");
    }
}
