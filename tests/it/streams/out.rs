//! `export -o -`.

use std::io::Read;
use std::process::Command;

use super::fixture::{Fixture, ended, text};
use crate::support::faulty::{Fault, Proxy};
use crate::support::{registry::Registry, skopeo, tempdir};

#[test]
fn a_saved_stream_is_an_ordinary_bundle_and_reproducible() {
    let fixture = Fixture::new();
    let saved = fixture.streamed("saved.tar", &[]);
    let again = fixture.streamed("again.tar", &[]);
    assert!(std::fs::read(&saved).unwrap() == std::fs::read(&again).unwrap());
    fixture.run(&["verify", "saved.tar"]).ended(0);
    fixture.run(&["verify", "saved.tar", "--full"]).ended(0);
    let names = Command::new("tar").args(["-tf", text(&saved)]).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(names.starts_with("oci-layout\nbundle.json\nindex.json\nmanifest.json\nSHA256SUMS\nblobs/"), "{names}");
    let files = tempdir();
    assert!(Command::new("tar").args(["-xf", text(&saved), "-C", text(files.path())]).status().unwrap().success());
    assert!(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(files.path()).status().unwrap().success());
    // Equal, byte for byte, to the tar that was not streamed.
    fixture.run(&["export", "--locked", "images.lock", "-o", "plain.tar"]).ended(0);
    assert!(std::fs::read(fixture.path("plain.tar")).unwrap() == std::fs::read(&saved).unwrap());

    let target = Registry::start();
    fixture.run(&["import", "saved.tar", "--plain-http", "--to", &format!("{}/mirror", target.host())]).ended(0);
    for image in &fixture.images {
        let tag = image.tag.as_deref().unwrap();
        assert_eq!(target.digest(&format!("mirror/{}", image.repository), tag), Some(image.digest()));
    }
    let name = format!("{}/team/one:1", fixture.registry.host());
    let out = tempdir();
    skopeo::copy(&format!("oci-archive:{}:{name}", text(&saved)), &format!("dir:{}/one", text(out.path())));
}

#[test]
fn an_export_over_a_saved_stream_finds_it_unchanged() {
    let fixture = Fixture::new();
    fixture.streamed("saved.tar", &[]);
    fixture.run(&["export", "--locked", "images.lock", "-o", "saved.tar"]).ended(0).reported(&["unchanged"]);
}

#[test]
fn a_signed_stream_carries_its_signature_before_its_first_blob() {
    let fixture = Fixture::new();
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-out", text(&fixture.path("key.pem"))])
        .status();
    assert!(made.unwrap().success());
    let args = ["pkey", "-in", text(&fixture.path("key.pem")), "-pubout", "-out", text(&fixture.path("key.pub"))]
        .map(str::to_owned);
    assert!(Command::new("openssl").args(args).status().unwrap().success());
    let saved = fixture.streamed("saved.tar", &["--sign-key", "key.pem"]);
    let names = Command::new("tar").args(["-tf", text(&saved)]).output().unwrap();
    assert!(String::from_utf8(names.stdout).unwrap().contains("SHA256SUMS\nSHA256SUMS.sig\nblobs/"));
    fixture.run(&["verify", "saved.tar", "--key", "key.pub"]).ended(0);
}

#[test]
fn a_closed_pipe_fails_the_export_and_the_partial_stream_is_no_bundle() {
    let fixture = Fixture::new();
    let mut child = fixture.streaming(&[]).spawn().unwrap();
    let mut got = vec![0; 1_000_000];
    child.stdout.take().unwrap().read_exact(&mut got).unwrap();
    ended(child.wait_with_output().unwrap()).ended(2).reported(&["the reading process has ended", "cut off"]);
    std::fs::write(fixture.path("got.tar"), got).unwrap();
    let verified = fixture.run(&["verify", "got.tar"]).ended(3);
    assert!(verified.stdout.contains("cut short"), "{}", verified.stdout);
}

#[test]
fn a_streaming_export_prints_nothing_else_and_leaves_no_files() {
    let fixture = Fixture::new();
    ended(fixture.streaming(&["--json"]).output().unwrap()).ended(2).reported(&["--json cannot"]);
    let before: Vec<_> = std::fs::read_dir(fixture.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let planned = ended(fixture.streaming(&["--dry-run"]).output().unwrap()).ended(0);
    assert!(planned.stdout.contains("in the bundle") && !planned.stdout.contains("free"), "{}", planned.stdout);
    assert!(ended(fixture.streaming(&["-v"]).output().unwrap()).ended(0).stdout.starts_with("oci-layout\0"));
    let after: Vec<_> = std::fs::read_dir(fixture.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_full_disk_behind_a_streamed_export_is_reported() {
    let fixture = Fixture::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = fixture.streaming(&[]).stdout(full).output().unwrap();
    ended(output).ended(2).reported(&["writing to standard output", "os error 28"]);
}

#[test]
fn wrong_bytes_from_a_registry_never_become_a_bundle() {
    let fixture = Fixture::new();
    let proxy = Proxy::before(fixture.registry.host());
    let layer = gapferry::oci::Digest::sha256(&fixture.images[0].blobs[1]).to_string();
    proxy.when("GET", &layer).always().fault(Fault::WrongDigest);
    let name = format!("{}/team/one:1", proxy.address);
    let output = fixture.process(&["export", &name, "-o", "-", "--plain-http"]).output().unwrap();
    std::fs::write(fixture.path("wrong.tar"), &output.stdout).unwrap();
    ended(output).ended(3).reported(&["wrong digest", &layer]);
    let verified = fixture.run(&["verify", "wrong.tar"]).ended(3);
    assert!(verified.stdout.contains("cut short"), "{}", verified.stdout);
}
