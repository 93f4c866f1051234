//! Repairing a bundle keeps its signatures and everything around them.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::bundle::{Form, header};
use super::repair::{Fixture, content, data, flip, repair};
use crate::signed::keys::{Key, Kind};
use crate::support::gapferry;
use crate::support::ran::Ran;

#[test]
fn a_truncated_signed_tar_keeps_its_signature() {
    let fixture = Fixture::new();
    let key = fixture.path("key.pem");
    let openssl = ["genpkey", "-algorithm", "ed25519", "-out"];
    assert!(std::process::Command::new("openssl").args(openssl).arg(&key).status().unwrap().success());
    let whole = fixture.whole(Form::Tar);
    gapferry().arg("sign").arg(&whole).arg("--key").arg(&key).assert().success();
    let bytes = std::fs::read(&whole).unwrap();
    let tar = fixture.copy(Form::Tar, "signed");
    let end = usize::try_from(data(&whole, &fixture.layer())).unwrap();
    std::fs::write(&tar, &bytes[..end]).unwrap();
    repair(&tar, &fixture.repair_for(&tar)).ended(0);
    fixture.is_whole(&tar, Form::Tar);
    // Destroys the signature's own header: the signature and everything after it are still there.
    let at = data(&tar, "SHA256SUMS.sig") - 512;
    std::fs::OpenOptions::new().write(true).open(&tar).unwrap().write_all_at(b"broken", at + 100).unwrap();
    repair(&tar, &fixture.repair_for(&tar)).ended(0);
    fixture.is_whole(&tar, Form::Tar);
}

/// A signed tar lost many headers, and a remaining one is the only evidence of where its files are. A guess would write
/// headers into good blobs.
#[test]
fn lost_headers_are_rewritten_only_where_they_were() {
    let fixture = Fixture::new();
    let key = Key::new(fixture.directory.path(), "key", Kind::Ed25519);
    let whole = fixture.whole(Form::Tar);
    gapferry().arg("sign").arg(&whole).arg("--full").arg("--key").arg(&key.private).assert().success();
    let mut archive = tar::Archive::new(std::fs::File::open(&whole).unwrap());
    let headers = archive.entries().unwrap().map(|entry| entry.unwrap().raw_header_position());
    let headers: Vec<u64> = headers.collect();
    let signature = data(&whole, "SHA256SUMS.sig") - 512;
    let behind = || headers.iter().copied().filter(|at| *at >= signature);
    let broken = |name: &str, end: u64| {
        let tar = fixture.copy(Form::Tar, name);
        let file = std::fs::OpenOptions::new().write(true).open(&tar).unwrap();
        behind().filter(|at| *at < end).for_each(|at| file.write_all_at(&[0xff; 512], at).unwrap());
        tar
    };
    let chunks = data(&whole, "chunks.b3") - 512;
    let tar = broken("one-header", chunks);
    Ran::of(gapferry().arg("repair").args([&tar, &whole]).arg("--key").arg(&key.public)).ended(0);
    fixture.is_whole(&tar, Form::Tar);
    let tar = broken("no-header", u64::MAX);
    let before = std::fs::read(&tar).unwrap();
    repair(&tar, &whole).ended(3).reported(&["unpack it"]);
    assert!(std::fs::read(&tar).unwrap() == before, "positions are never guessed");
}

/// Two offices signed the bundle: a repair with one office's copy must not remove the other's signature.
#[test]
fn repairing_keeps_a_second_keys_signature_and_everything_after_the_blobs() {
    let fixture = Fixture::new();
    let [ours, theirs] = ["ours", "theirs"].map(|name| Key::new(fixture.directory.path(), name, Kind::Ed25519));
    let sign = |bundle: &Path, key: &Key| {
        gapferry().arg("sign").arg(bundle).arg("--full").arg("--key").arg(&key.private).assert().success();
    };
    let fits = |bundle: &Path, key: &Key| {
        Ran::of(gapferry().arg("verify").arg(bundle).arg("--full").arg("--key").arg(&key.public)).ended(0);
    };
    let copy = fixture.copy(Form::Directory, "copy");
    sign(&copy, &ours);
    for form in [Form::Directory, Form::Tar] {
        let both = fixture.copy(form, "both");
        [&theirs, &ours].iter().for_each(|key| sign(&both, key));
        let before = content(&both);
        Ran::of(gapferry().arg("repair").args([&both, &copy]).arg("--key").arg(&ours.public)).ended(0);
        assert!(content(&both) == before, "there is nothing to repair");
        let one = fixture.copy(form, "one");
        sign(&one, &theirs);
        flip(&one, &fixture.small(), 0);
        let repaired = Ran::of(gapferry().arg("repair").args([&one, &copy]));
        repaired.ended(0);
        fits(&one, &theirs);
        std::fs::remove_dir_all(&one).or_else(|_| std::fs::remove_file(&one)).unwrap();
        std::fs::remove_dir_all(&both).or_else(|_| std::fs::remove_file(&both)).unwrap();
    }
    // The end of the tar is missing, and a byte of a signature's padding is wrong.
    let tar = fixture.copy(Form::Tar, "cut");
    sign(&tar, &theirs);
    let whole = std::fs::read(&tar).unwrap();
    std::fs::write(&tar, &whole[..whole.len() - 1024]).unwrap();
    repair(&tar, &copy).ended(0);
    assert!(std::fs::read(&tar).unwrap() == whole);
    let at = data(&tar, "SHA256SUMS.sig") + 500;
    std::fs::OpenOptions::new().write(true).open(&tar).unwrap().write_all_at(b"x", at).unwrap();
    repair(&tar, &copy).ended(0);
    assert!(std::fs::read(&tar).unwrap() == whole);
}

/// People add signatures with tar and rename files arbitrarily. Whatever a signature's size, everything after it stays.
#[test]
fn a_signature_of_another_size_or_place_overwrites_no_other_file() {
    let fixture = Fixture::new();
    let key = Key::new(fixture.directory.path(), "key", Kind::Ed25519);
    let signed = fixture.copy(Form::Directory, "signed");
    gapferry().arg("sign").arg(&signed).arg("--key").arg(&key.private).assert().success();
    let repair = |tar: &Path| Ran::of(gapferry().arg("repair").args([tar, &signed]).arg("--key").arg(&key.public));
    let files = |tar: &Path| {
        let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
        let read = |entry: std::io::Result<tar::Entry<std::fs::File>>| {
            let mut entry = entry.unwrap();
            let (path, mut bytes) = (entry.path().unwrap().into_owned(), Vec::new());
            entry.read_to_end(&mut bytes).unwrap();
            (path.to_str().unwrap().to_owned(), bytes)
        };
        archive.entries().unwrap().map(read).collect::<Vec<_>>()
    };
    for length in [0, 600] {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files(&fixture.whole(Form::Tar)) {
            let own = header(path.as_bytes(), bytes.len() as u64, tar::EntryType::Regular);
            builder.append(&own, &bytes[..]).unwrap();
            if path == "SHA256SUMS" {
                let own = header(b"SHA256SUMS.sig", length, tar::EntryType::Regular);
                builder.append(&own, &vec![7; length as usize][..]).unwrap();
            }
        }
        let tar = fixture.path(&format!("odd-{length}.tar"));
        std::fs::write(&tar, builder.into_inner().unwrap()).unwrap();
        let before = files(&tar);
        flip(&tar, &fixture.small(), 0);
        repair(&tar);
        assert!(files(&tar) == before, "a signature of {length} bytes");
    }
    // The signature is appended, and then a byte between two files changes.
    let tar = fixture.copy(Form::Tar, "appended");
    let arguments = ["-rf", tar.to_str().unwrap(), "-C", signed.to_str().unwrap(), "SHA256SUMS.sig"];
    assert!(std::process::Command::new("tar").args(arguments).status().unwrap().success());
    let file = std::fs::OpenOptions::new().write(true).open(&tar).unwrap();
    file.write_all_at(b"x", data(&tar, "index.json") + fixture.bytes("index.json").len() as u64).unwrap();
    repair(&tar);
    let signature = std::fs::read(signed.join("SHA256SUMS.sig")).unwrap();
    assert!(files(&tar).contains(&("SHA256SUMS.sig".to_owned(), signature)), "the signature is kept");
}
