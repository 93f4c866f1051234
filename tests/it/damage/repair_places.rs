//! Damage to the places of files rather than to their contents: a tar header, a name in a directory.

use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use super::bundle::Form;
use super::repair::{Fixture, content, data, flip, repair};
use crate::signed::keys::{Key, Kind};
use crate::support::gapferry;
use crate::support::ran::Ran;

/// Overwrites only the header of a file in a tar.
fn break_header(tar: &Path, path: &str) {
    let at = data(tar, path) - 512;
    overwrite(tar, at, &[0xff; 512]);
}

fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

fn split(fixture: &Fixture) -> Vec<PathBuf> {
    let volumes = fixture.path("volumes/v.tar");
    let options = ["--volume-size", "1MB"];
    gapferry().arg("split").arg(fixture.whole(Form::Tar)).arg("-o").arg(&volumes).args(options).assert().success();
    let entries = std::fs::read_dir(volumes.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut set: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|it| it == "tar")).collect();
    set.sort();
    set
}

/// An old disk with one bad sector in a header: everything after it is still good, and may be the only other copy.
#[test]
fn a_copy_with_a_lost_header_still_supplies_the_files_after_it() {
    let fixture = Fixture::new();
    for lost in ["oci-layout", "bundle.json", "index.json"] {
        let copy = fixture.copy(Form::Tar, "copy");
        break_header(&copy, lost);
        for form in [Form::Directory, Form::Tar] {
            let bundle = fixture.copy(form, "damaged");
            [&*fixture.small(), &fixture.layer(), "manifest.json"].iter().for_each(|path| flip(&bundle, path, 0));
            repair(&bundle, &copy).ended(0);
            fixture.is_whole(&bundle, form);
        }
    }
    let copy = fixture.copy(Form::Tar, "copy");
    break_header(&copy, "index.json");
    let set = split(&fixture);
    let before = set.iter().map(|volume| std::fs::read(volume).unwrap()).collect::<Vec<_>>();
    std::fs::remove_file(&set[1]).unwrap();
    let left = set.iter().filter(|volume| volume.exists());
    Ran::of(gapferry().arg("repair").args(left).arg(&copy)).ended(0);
    assert!(set.iter().zip(&before).all(|(volume, before)| std::fs::read(volume).unwrap() == *before));
}

/// Two copies are bad in different places, and one of them cannot be read past a header.
#[test]
fn files_after_a_lost_header_of_the_bundle_are_still_used() {
    let fixture = Fixture::new();
    let (tar, copy) = (fixture.copy(Form::Tar, "one"), fixture.copy(Form::Directory, "two"));
    break_header(&tar, "index.json");
    flip(&copy, &fixture.small(), 0);
    repair(&tar, &copy).ended(0);
    fixture.is_whole(&tar, Form::Tar);
    // Another bundle contributes nothing, wherever its files are.
    let other = fixture.copy(Form::Tar, "other");
    flip(&other, "bundle.json", 3);
    break_header(&other, "index.json");
    flip(&tar, &fixture.small(), 0);
    repair(&tar, &other).ended(2);
}

/// The first sector is the one that a failed copy or a careless `dd` hits.
#[test]
fn a_tar_without_its_first_header_is_reported_damaged_and_can_be_repaired() {
    let fixture = Fixture::new();
    for first in [[0; 512], [0xff; 512]] {
        for with_copy in [true, false] {
            let tar = fixture.copy(Form::Tar, "first");
            overwrite(&tar, 0, &first);
            let verified = Ran::of(gapferry().arg("verify").arg(&tar)).ended(3);
            assert!(verified.stdout.contains("no valid tar header at byte 0"), "{verified:?}");
            assert!(!verified.stdout.contains("blobs/"), "files after the header are still read: {verified:?}");
            // Other commands do not take the file for a bundle.
            Ran::of(gapferry().arg("import").arg(&tar).args(["--to", "registry.test"])).ended(2);
            let with = if with_copy { fixture.whole(Form::Directory) } else { fixture.repair_for(&tar) };
            repair(&tar, &with).ended(0);
            fixture.is_whole(&tar, Form::Tar);
        }
    }
    // Any other file without a valid header does not pass for a bundle.
    let tar = fixture.copy(Form::Tar, "first");
    overwrite(&tar, 0, &[0xff; 512]);
    break_header_at(&tar, 1024);
    let before = std::fs::read(&tar).unwrap();
    Ran::of(gapferry().arg("verify").arg(&tar)).ended(2).reported(&["neither a directory nor a tar"]);
    repair(&tar, &fixture.whole(Form::Directory)).ended(2).reported(&["neither a directory nor a tar"]);
    assert!(std::fs::read(&tar).unwrap() == before);
}

fn break_header_at(tar: &Path, at: u64) {
    overwrite(tar, at, &[0xff; 512]);
}

#[test]
fn a_link_or_empty_directory_in_place_of_a_file_is_replaced_and_never_followed() {
    let fixture = Fixture::new();
    let outside = fixture.path("outside");
    for name in ["chunks.b3", "SHA256SUMS", "bundle.json", &*fixture.small()] {
        for is_link in [true, false] {
            let bundle = fixture.copy(Form::Directory, "taken");
            let place = bundle.join(name);
            std::fs::remove_file(&place).unwrap();
            std::fs::write(&outside, fixture.bytes(name)).unwrap();
            let before = std::fs::read(&outside).unwrap();
            match is_link {
                true => symlink(&outside, &place).unwrap(),
                false => std::fs::create_dir(&place).unwrap(),
            }
            Ran::of(gapferry().arg("verify").arg(&bundle)).ended(3);
            repair(&bundle, &fixture.whole(Form::Tar)).ended(0);
            assert!(!place.is_symlink() && std::fs::read(&outside).unwrap() == before, "{name}");
            fixture.is_whole(&bundle, Form::Directory);
            std::fs::remove_dir_all(&bundle).unwrap();
        }
    }
}

#[test]
fn a_directory_with_files_in_place_of_a_file_is_reported_and_kept() {
    let fixture = Fixture::new();
    for name in ["chunks.b3", "SHA256SUMS", &*fixture.small()] {
        let bundle = fixture.copy(Form::Directory, "taken");
        std::fs::remove_file(bundle.join(name)).unwrap();
        std::fs::create_dir(bundle.join(name)).unwrap();
        std::fs::write(bundle.join(name).join("notes"), "mine").unwrap();
        flip(&bundle, &fixture.layer(), 0);
        let before = content(&bundle);
        repair(&bundle, &fixture.whole(Form::Tar)).ended(2).reported(&[name, "directory"]);
        assert!(content(&bundle) == before, "{name}");
        std::fs::remove_dir_all(&bundle).unwrap();
    }
}

/// Nothing records how many signatures there were, so the message must say how to get the bundle back.
#[test]
fn a_signed_tar_cut_before_its_signatures_is_refused_with_a_remedy() {
    let fixture = Fixture::new();
    let key = Key::new(fixture.directory.path(), "key", Kind::Ed25519);
    let whole = fixture.whole(Form::Tar);
    gapferry().arg("sign").arg(&whole).arg("--key").arg(&key.private).assert().success();
    let tar = fixture.copy(Form::Tar, "cut");
    let end = data(&tar, "index.json") + 10;
    std::fs::OpenOptions::new().write(true).open(&tar).unwrap().set_len(end).unwrap();
    let advice = format!("gapferry convert {} -o", whole.display());
    repair(&tar, &whole).ended(3).reported(&[&advice, "unpack it"]);
    let again = fixture.path("again.tar");
    Ran::of(gapferry().arg("convert").arg(&whole).arg("-o").arg(&again)).ended(0);
    assert!(std::fs::read(&again).unwrap() == std::fs::read(&whole).unwrap());
}

/// At three in the morning nobody reads a manual: the command that finds the damage must name the repair.
#[test]
fn verify_suggests_the_repair_command_only_where_it_helps() {
    let fixture = Fixture::new();
    let hint = |paths: &[PathBuf]| {
        let ran = Ran::of(gapferry().arg("verify").args(paths).arg("--json"));
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["hint"].is_null(), !ran.stderr.contains("hint:"), "{ran:?}");
        (report["hintCode"].clone(), ran.stderr)
    };
    for form in [Form::Directory, Form::Tar] {
        assert!(hint(&[fixture.whole(form)]).0.is_null());
        let bundle = fixture.copy(form, "hinted");
        flip(&bundle, &fixture.small(), 0);
        let (code, said) = hint(&[bundle]);
        assert!(code == "repair-bundle" && said.contains("`gapferry repair BUNDLE COPY`"), "{said}");
    }
    let set = split(&fixture);
    assert!(hint(&set).0.is_null());
    let (code, said) = hint(&set[1..]);
    assert!(code == "repair-volumes" && said.contains("`gapferry repair NAME.*.tar COPY`"), "{said}");
    // No repair removes a file.
    let bundle = fixture.copy(Form::Directory, "more");
    std::fs::write(bundle.join("notes"), "mine").unwrap();
    assert!(hint(&[bundle]).0.is_null());
}
