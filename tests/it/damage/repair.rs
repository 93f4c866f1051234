//! A damaged bundle requests what it lacks, gets exactly that, and is restored byte for byte.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gapferry::base::fsops::WriteLock;

use super::bundle::{Form, blob_path, header};
use crate::signed::keys::{Key, Kind, text};
use crate::support::images::{self, Image, noise};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, gapferry_process, sha256, tempdir};

const MIB: usize = 1 << 20;

/// A registry, a lock of two of its images, and their bundle in both forms.
pub(super) struct Fixture {
    source: Registry,
    image: Image,
    pub(super) directory: tempfile::TempDir,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        let source = Registry::start();
        let image = images::oci("team/app", "1", &["small", &noise(1, 2 * MIB + MIB / 2)]);
        image.push(&source);
        images::oci("team/other", "1", &["another"]).push(&source);
        let fixture = Fixture { source, image, directory: tempdir() };
        let references = ["app", "other"].map(|name| format!("{}/team/{name}:1", fixture.source.host()));
        let lock = fixture.path("images.lock");
        gapferry().arg("lock").args(references).arg("-o").arg(&lock).assert().success();
        for form in [Form::Directory, Form::Tar] {
            gapferry().arg("export").arg("--locked").arg(&lock).arg("-o").arg(fixture.whole(form)).assert().success();
        }
        fixture
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn whole(&self, form: Form) -> PathBuf {
        self.path(if form == Form::Tar { "whole.tar" } else { "whole" })
    }

    /// A copy of the whole bundle, to be damaged.
    pub(super) fn copy(&self, form: Form, name: &str) -> PathBuf {
        let to = self.path(&format!("{name}{}", if form == Form::Tar { ".tar" } else { "" }));
        match form {
            Form::Tar => std::fs::copy(self.whole(form), &to).map(drop).unwrap(),
            Form::Directory => {
                for (path, bytes) in files_below(&self.whole(form)) {
                    std::fs::create_dir_all(to.join(&path).parent().unwrap()).unwrap();
                    std::fs::write(to.join(&path), bytes).unwrap();
                }
            }
        }
        to
    }

    /// The original bytes of a file.
    pub(super) fn bytes(&self, path: &str) -> Vec<u8> {
        bytes(&self.whole(Form::Directory), path)
    }

    pub(super) fn layer(&self) -> String {
        blob_path(&sha256(&self.image.blobs[2]))
    }

    pub(super) fn small(&self) -> String {
        blob_path(&sha256(&self.image.blobs[1]))
    }

    /// Fetches what the bundle lacks, in the steps of the two sides.
    pub(super) fn repair_for(&self, bundle: &Path) -> PathBuf {
        let (missing, repair) = (bundle.with_extension("missing.json"), bundle.with_extension("repair.tar"));
        Ran::of(gapferry().arg("verify").arg(bundle).arg("--missing").arg(&missing)).ended(3);
        self.export(&missing, &repair).ended(0);
        repair
    }

    fn export(&self, missing: &Path, repair: &Path) -> Ran {
        let lock = self.path("images.lock");
        let mut command = gapferry();
        command.args(["export", "--repair"]).arg(missing).arg("--locked").arg(lock).arg("-o").arg(repair);
        Ran::of(&mut command)
    }

    #[track_caller]
    pub(super) fn is_whole(&self, bundle: &Path, form: Form) {
        assert!(content(bundle) == content(&self.whole(form)), "{} differs from the original", bundle.display());
    }
}

pub(super) fn content(bundle: &Path) -> Vec<(String, Vec<u8>)> {
    if bundle.is_dir() { files_below(bundle) } else { vec![(String::new(), std::fs::read(bundle).unwrap())] }
}

pub(super) fn repair(bundle: &Path, with: &Path) -> Ran {
    Ran::of(gapferry().arg("repair").arg(bundle).arg(with))
}

/// Flips a bit of one file, in either form.
pub(super) fn flip(bundle: &Path, path: &str, at: usize) {
    let (file, base) = match bundle.is_dir() {
        true => (bundle.join(path), 0),
        false => (bundle.to_owned(), data(bundle, path)),
    };
    let file = std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, base + at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], base + at as u64).unwrap();
}

/// The offset of a file's bytes in the tar.
pub(super) fn data(tar: &Path, path: &str) -> u64 {
    let mut archive = tar::Archive::new(std::fs::File::open(tar).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    entries.find(|entry| entry.path().unwrap() == Path::new(path)).unwrap().raw_file_position()
}

#[test]
fn a_bundle_damaged_in_many_places_is_repaired_byte_for_byte() {
    let fixture = Fixture::new();
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.copy(form, "flipped");
        for (path, at) in
            [(&*fixture.layer(), MIB + 7), (&fixture.small(), 0), (&blob_path(&fixture.image.digest()), 3)]
        {
            flip(&bundle, path, at);
        }
        ["index.json", "manifest.json", "chunks.b3", "SHA256SUMS", "oci-layout"].iter().for_each(|path| {
            flip(
                &bundle,
                path,
                70.min(std::fs::metadata(fixture.whole(Form::Directory).join(path)).unwrap().len() as usize - 1),
            );
        });
        let with = fixture.repair_for(&bundle);
        repair(&bundle, &with).ended(0);
        fixture.is_whole(&bundle, form);
        repair(&bundle, &with).ended(0);
        fixture.is_whole(&bundle, form);
    }
}

#[test]
fn deleted_and_truncated_files_are_restored() {
    let fixture = Fixture::new();
    let directory = fixture.copy(Form::Directory, "deleted");
    for path in [&*fixture.small(), "SHA256SUMS", "index.json"] {
        std::fs::remove_file(directory.join(path)).unwrap();
    }
    std::fs::write(directory.join(fixture.layer()), "short").unwrap();
    repair(&directory, &fixture.repair_for(&directory)).ended(0);
    fixture.is_whole(&directory, Form::Directory);
    let whole = std::fs::read(fixture.whole(Form::Tar)).unwrap();
    let layer = usize::try_from(data(&fixture.whole(Form::Tar), &fixture.layer())).unwrap();
    for length in [layer - 512, layer + 5, whole.len() - 600] {
        let tar = fixture.copy(Form::Tar, &format!("cut-{length}"));
        std::fs::write(&tar, &whole[..length]).unwrap();
        repair(&tar, &fixture.repair_for(&tar)).ended(0);
        fixture.is_whole(&tar, Form::Tar);
    }
    // Destroys a header, so that nothing after it can be found.
    let tar = fixture.copy(Form::Tar, "header");
    let at = data(&tar, "index.json") - 512;
    std::fs::OpenOptions::new().write(true).open(&tar).unwrap().write_all_at(b"broken", at + 100).unwrap();
    repair(&tar, &fixture.repair_for(&tar)).ended(0);
    fixture.is_whole(&tar, Form::Tar);
}

/// Two old disks, each with a bad sector in the same layer, together contain all of it.
#[test]
fn two_copies_damaged_in_different_places_of_one_blob_repair_each_other() {
    let fixture = Fixture::new();
    let (tar, directory) = (fixture.copy(Form::Tar, "one"), fixture.copy(Form::Directory, "two"));
    flip(&tar, &fixture.layer(), 5);
    flip(&directory, &fixture.layer(), MIB + 5);
    repair(&tar, &directory).ended(0);
    fixture.is_whole(&tar, Form::Tar);
    repair(&directory, &tar).ended(0);
    fixture.is_whole(&directory, Form::Directory);
}

/// Any form repairs any other, and the bundle named first is the one to repair.
#[test]
fn volumes_repair_a_tar_and_a_directory() {
    let fixture = Fixture::new();
    let volumes = fixture.path("volumes/v.tar");
    let split = ["--volume-size", "1MB"];
    gapferry().arg("split").arg(fixture.whole(Form::Tar)).arg("-o").arg(&volumes).args(split).assert().success();
    let entries = std::fs::read_dir(volumes.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut set: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|it| it == "tar")).collect();
    set.sort();
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.copy(form, "first");
        flip(&bundle, &fixture.layer(), 5);
        Ran::of(gapferry().arg("repair").arg(&bundle).args(&set)).ended(0);
        fixture.is_whole(&bundle, form);
    }
}

#[test]
fn an_empty_sums_file_is_a_problem_and_is_restored() {
    let fixture = Fixture::new();
    let bundle = fixture.copy(Form::Directory, "empty");
    std::fs::write(bundle.join("SHA256SUMS"), "").unwrap();
    Ran::of(gapferry().arg("verify").arg(&bundle)).ended(3);
    repair(&bundle, &fixture.whole(Form::Tar)).ended(0);
    fixture.is_whole(&bundle, Form::Directory);
}

#[test]
fn a_repair_fetches_only_missing_blobs_and_leaves_shared_files_alone() {
    let fixture = Fixture::new();
    let bundle = fixture.copy(Form::Directory, "linked");
    let elsewhere = fixture.path("elsewhere");
    flip(&bundle, &fixture.small(), 1);
    std::fs::hard_link(bundle.join(fixture.small()), &elsewhere).unwrap();
    let before = std::fs::read(&elsewhere).unwrap();
    let fetched = || fixture.source.count("GET", &sha256(&fixture.image.blobs[2]), 200);
    let of_large = fetched();
    repair(&bundle, &fixture.repair_for(&bundle)).ended(0);
    fixture.is_whole(&bundle, Form::Directory);
    assert_eq!((fetched(), std::fs::read(&elsewhere).unwrap()), (of_large, before));
}

#[test]
fn only_the_bad_mebibytes_of_a_large_blob_are_fetched_and_carried() {
    let fixture = Fixture::new();
    let large = sha256(&fixture.image.blobs[2]);
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.copy(form, "few");
        let end = fixture.image.blobs[2].len() - 1;
        [MIB + 7, end].iter().for_each(|at| flip(&bundle, &fixture.layer(), *at));
        let whole = fixture.source.count("GET", &large, 200);
        let with = fixture.repair_for(&bundle);
        assert_eq!(fixture.source.count("GET", &large, 200), whole, "the blob was requested as a whole");
        assert!(with.metadata().unwrap().len() < (MIB + MIB * 3 / 4) as u64, "{}", with.metadata().unwrap().len());
        // More is bad by now than this repair covers; the other blob is repaired anyway.
        flip(&bundle, &fixture.layer(), 5);
        let ran = repair(&bundle, &with).ended(3);
        assert!(ran.stdout.contains("1 file not in"), "{ran:?}");
        let with = fixture.repair_for(&bundle);
        repair(&bundle, &with).ended(0);
        fixture.is_whole(&bundle, form);
        // Repaired content needs nothing from it any more.
        repair(&bundle, &with).ended(0);
    }
}

#[test]
fn a_foreign_or_forged_repair_is_refused_and_changes_nothing() {
    let fixture = Fixture::new();
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.copy(form, "forged");
        flip(&bundle, &fixture.layer(), 9);
        flip(&bundle, &fixture.small(), 1);
        let with = fixture.repair_for(&bundle);
        let before = content(&bundle);
        let forged = fixture.path("forged-repair.tar");
        std::fs::copy(&with, &forged).unwrap();
        for path in ["ranges", &fixture.small()] {
            flip(&forged, path, 2);
            repair(&bundle, &forged).ended(3).reported(&[if path == "ranges" {
                "ranges does not match"
            } else {
                "is not what the bundle needs"
            }]);
            assert!(content(&bundle) == before);
            std::fs::copy(&with, &forged).unwrap();
        }
        let json = data(&forged, "repair.json");
        let text = std::fs::read_to_string(fixture.whole(Form::Directory).join("oci-layout")).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&forged).unwrap();
        file.write_all_at(text.as_bytes(), json).unwrap();
        repair(&bundle, &forged).ended(3).reported(&["repair.json"]);
        let other = fixture.path("other");
        let reference = format!("{}/team/other:1", fixture.source.host());
        gapferry().arg("export").arg(reference).arg("-o").arg(&other).assert().success();
        repair(&bundle, &other).ended(2).reported(&["belongs to another bundle"]);
        assert!(content(&bundle) == before);
        std::fs::remove_dir_all(&other).unwrap();
    }
}

#[test]
fn extra_content_of_a_repair_does_not_enter_the_bundle() {
    let fixture = Fixture::new();
    let bundle = fixture.copy(Form::Directory, "more");
    flip(&bundle, &fixture.small(), 1);
    let with = fixture.repair_for(&bundle);
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in
        [("repair.json", bytes(&with, "repair.json")), ("evil", b"x".to_vec()), ("index.json", b"{}".to_vec())]
    {
        let header = header(path.as_bytes(), bytes.len() as u64, tar::EntryType::Regular);
        builder.append(&header, &bytes[..]).unwrap();
    }
    let more = fixture.path("more-repair.tar");
    std::fs::write(&more, builder.into_inner().unwrap()).unwrap();
    let before = content(&bundle);
    repair(&bundle, &more).ended(3);
    assert!(content(&bundle) == before);
}

#[test]
fn two_damaged_copies_repair_each_other_including_bundle_json() {
    let fixture = Fixture::new();
    let (tar, directory) = (fixture.copy(Form::Tar, "one"), fixture.copy(Form::Directory, "two"));
    flip(&tar, "bundle.json", 3);
    flip(&tar, &fixture.small(), 0);
    flip(&directory, &fixture.layer(), 0);
    repair(&tar, &directory).ended(0);
    fixture.is_whole(&tar, Form::Tar);
    repair(&directory, &tar).ended(0);
    fixture.is_whole(&directory, Form::Directory);
}

#[test]
fn a_repair_is_refused_unless_it_is_made_from_the_bundles_lock() {
    let fixture = Fixture::new();
    let bundle = fixture.copy(Form::Directory, "asked");
    flip(&bundle, &fixture.small(), 0);
    let missing = fixture.path("missing.json");
    Ran::of(gapferry().arg("verify").arg(&bundle).arg("--missing").arg(&missing)).ended(3);
    let out = fixture.path("out.tar");
    std::fs::write(&out, "somebody's").unwrap();
    fixture.export(&missing, &out).ended(2).reported(&["is not a repair file"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"somebody's");
    let reference = format!("{}/team/other:1", fixture.source.host());
    gapferry().args(["lock", &reference, "-o"]).arg(fixture.path("images.lock")).assert().success();
    fixture.export(&missing, &fixture.path("new.tar")).ended(2).reported(&["does not belong to this lock"]);
    flip(&bundle, "bundle.json", 3);
    Ran::of(gapferry().arg("verify").arg(&bundle).arg("--missing").arg(&missing)).ended(3);
    fixture.export(&missing, &fixture.path("new.tar")).ended(2);
}

/// `bundle.json` follows from lock, tools and parents, so restoring it needs no full copy.
#[test]
fn a_lost_bundle_json_is_restored_only_by_a_repair_from_the_same_lock() {
    let fixture = Fixture::new();
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.copy(form, "listless");
        flip(&bundle, "bundle.json", 3);
        repair(&bundle, &fixture.repair_for(&bundle)).ended(0);
        fixture.is_whole(&bundle, form);
    }
    let bundle = fixture.copy(Form::Directory, "other");
    flip(&bundle, "bundle.json", 3);
    let missing = fixture.path("missing.json");
    Ran::of(gapferry().arg("verify").arg(&bundle).arg("--missing").arg(&missing)).ended(3);
    let reference = format!("{}/team/other:1", fixture.source.host());
    gapferry().args(["lock", &reference, "-o"]).arg(fixture.path("images.lock")).assert().success();
    let refused = fixture.export(&missing, &fixture.path("new.tar")).ended(2);
    refused.reported(&["the missing bundle.json has the digest", "--include-tool", "--since"]);
}

/// Runs a repair and kills it when `is_time`; returns whether it was still running.
fn killed(bundle: &Path, with: &Path, is_time: impl Fn() -> bool) -> bool {
    let mut command = gapferry_process();
    let mut process =
        command.arg("repair").args([bundle, with]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while process.try_wait().unwrap().is_none() && !is_time() {
        std::thread::yield_now();
    }
    process.kill().unwrap();
    process.wait().unwrap().signal() == Some(9)
}

#[test]
fn a_repair_killed_at_any_moment_is_finished_by_a_rerun() {
    let fixture = Fixture::new();
    let damage = |bundle: &Path| {
        ["index.json", &fixture.small(), &fixture.layer(), "chunks.b3"].iter().for_each(|path| flip(bundle, path, 30));
    };
    // With a broken header too, all headers of the tar are rewritten before any blob.
    let break_header = |bundle: &Path| {
        let at = data(bundle, &fixture.small()) - 512;
        std::fs::OpenOptions::new().write(true).open(bundle).unwrap().write_all_at(b"broken", at + 100).unwrap();
    };
    for (form, is_broken) in [(Form::Directory, false), (Form::Tar, false), (Form::Tar, true)] {
        let damage = |bundle: &Path| {
            damage(bundle);
            if is_broken {
                break_header(bundle);
            }
        };
        let first = fixture.copy(form, "first");
        damage(&first);
        let with = fixture.repair_for(&first);
        // Killed after the start, and after the first, a middle and the last file is repaired.
        for path in ["", "index.json", &fixture.layer(), "chunks.b3"] {
            let is_killed = |at: usize| {
                let bundle = fixture.copy(form, &format!("killed-{at}-{}-{is_broken}", path.len()));
                damage(&bundle);
                let begun = PathBuf::from(format!("{}.partial.lock", bundle.display()));
                let is_time =
                    || if path.is_empty() { begun.exists() } else { now(&bundle, path) == fixture.bytes(path) };
                killed(&bundle, &with, is_time).then_some(bundle)
            };
            let bundle = (0..20).find_map(is_killed).unwrap_or_else(|| panic!("no run was killed: {path}"));
            repair(&bundle, &with).ended(0);
            fixture.is_whole(&bundle, form);
        }
    }
}

#[test]
fn leftovers_of_a_killed_repair_are_removed_by_the_next() {
    let fixture = Fixture::new();
    let bundle = fixture.copy(Form::Directory, "left");
    flip(&bundle, &fixture.small(), 30);
    let with = fixture.repair_for(&bundle);
    std::fs::write(bundle.join(fixture.small() + ".partial"), "half").unwrap();
    repair(&bundle, &with).ended(0);
    fixture.is_whole(&bundle, Form::Directory);
}

/// A damage list made while another run writes would be about a bundle that no longer exists when the list is used.
#[test]
fn a_bundle_being_written_by_another_run_is_not_verified() {
    let fixture = Fixture::new();
    let key = Key::new(fixture.directory.path(), "key", Kind::P256);
    for form in [Form::Directory, Form::Tar] {
        let bundle = fixture.copy(form, "written");
        let mut command = gapferry();
        command.arg("repair").arg(&bundle).arg(fixture.whole(form)).args(["--key", text(&key.public)]);
        let lock = WriteLock::take(&bundle).unwrap();
        Ran::of(&mut command).ended(2).reported(&["another gapferry is writing it"]);
        drop(lock);
        Ran::of(&mut command).ended(3).reported(&["is not signed"]);
    }
}

/// The same for a bundle whose headers may be broken: empty if the file cannot be found.
fn now(bundle: &Path, path: &str) -> Vec<u8> {
    let mut found = Vec::new();
    if bundle.is_dir() {
        return bytes(bundle, path);
    }
    let mut archive = tar::Archive::new(std::fs::File::open(bundle).unwrap());
    let mut entries = archive.entries().unwrap().map_while(Result::ok);
    if let Some(mut entry) = entries.find(|entry| entry.path().is_ok_and(|it| it == Path::new(path))) {
        let _ = entry.read_to_end(&mut found);
    }
    found
}

/// The bytes of a file in either form; its offset in a tar stays the same.
fn bytes(bundle: &Path, path: &str) -> Vec<u8> {
    if bundle.is_dir() {
        return std::fs::read(bundle.join(path)).unwrap_or_default();
    }
    let mut archive = tar::Archive::new(std::fs::File::open(bundle).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(path)).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}
