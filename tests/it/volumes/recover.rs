//! Lost volumes are restored from those that arrived: across a gap, nothing can be requested again.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use gapferry::base::fsops::WriteLock;
use gapferry::oci::Digest;
use serde_json::{Value, json};

use crate::bundle::fixture::{Builder, noise as bytes, two_images};
use crate::support::images::{self, noise};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, gapferry_process, tempdir};

const MIB: usize = 1 << 20;

/// The maximum size of a volume's content besides a layer.
const METADATA: usize = 20_000;

/// The volumes of a bundle, each with one layer, and recovery volumes.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    whole: Vec<(String, Vec<u8>)>,
}

impl Fixture {
    /// A bundle with layers of these sizes, no two of which fit into one volume.
    pub fn new(sizes: &[usize], recovery: u32) -> Fixture {
        Fixture::of(0, sizes, recovery)
    }

    fn of(seed: u64, sizes: &[usize], recovery: u32) -> Fixture {
        let (aside, directory) = (tempdir(), tempdir());
        let bundle = aside.path().join("b.tar");
        let layers: Vec<Vec<u8>> = (seed + 1..).zip(sizes).map(|(seed, size)| bytes(seed, *size)).collect();
        Builder::new().image("registry.test/team/app:1", &layers).write(&bundle).unwrap();
        let limit = sizes.iter().max().unwrap() + METADATA;
        let mut split = gapferry();
        split.arg("split").arg(&bundle).arg("-o").arg(directory.path().join("images.tar"));
        split.args(["--volume-size", &limit.to_string(), "--recovery", &recovery.to_string()]);
        Ran::of(&mut split).ended(0);
        let whole = files_below(directory.path());
        assert_eq!(whole.len(), sizes.len() + recovery as usize, "a volume for each layer");
        Fixture { directory, whole }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Restores all files.
    fn restore(&self) {
        for (name, _) in files_below(self.directory.path()) {
            fs::remove_file(self.path(&name)).unwrap();
        }
        self.whole.iter().for_each(|(name, bytes)| fs::write(self.path(name), bytes).unwrap());
    }

    fn repair(&self, more: &[&str]) -> Ran {
        let mut command = gapferry();
        command.arg("repair").args(tars(self.directory.path())).args(more);
        Ran::of(&mut command)
    }

    #[track_caller]
    fn is_whole(&self) {
        assert!(files_below(self.directory.path()) == self.whole, "differs from the original, or has extra files");
    }

    #[track_caller]
    pub fn is_repaired(&self) {
        let ran = self.repair(&[]).ended(0);
        assert!(ran.stdout.contains("made again: "), "{ran:?}");
        self.is_whole();
    }
}

pub fn tars(directory: &Path) -> Vec<PathBuf> {
    let files = files_below(directory).into_iter().map(|(name, _)| directory.join(name));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "tar")).collect()
}

fn flip(path: &Path, at: usize) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at as u64).unwrap();
}

fn cut(path: &Path, length: usize) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length as u64).unwrap();
}

#[test]
fn two_recovery_volumes_replace_any_two_lost_volumes() {
    let fixture = Fixture::new(&[70_000, 50_001, 70_001, 60_064], 2);
    let names: Vec<String> = fixture.whole.iter().map(|(name, _)| name.clone()).collect();
    for (at, one) in names.iter().enumerate() {
        for other in &names[at + 1..] {
            fs::remove_file(fixture.path(one)).unwrap();
            fs::remove_file(fixture.path(other)).unwrap();
            if one.contains(".r01.") && other.contains(".r02.") {
                // Nothing records the volumes any more, but they are all there.
                fixture.repair(&[]).ended(3).reported(&["no recovery volume with an intact beginning"]);
            } else {
                fixture.is_repaired();
            }
        }
    }
}

#[test]
fn a_volume_with_any_damage_is_restored_byte_for_byte() {
    let fixture = Fixture::new(&[70_000, 50_001, 70_001], 2);
    for (name, bytes) in &fixture.whole {
        let path = fixture.path(name);
        for at in [0, 600, 2_000, bytes.len() / 2, bytes.len() - 1] {
            flip(&path, at);
            fixture.is_repaired();
        }
        for length in [0, 1, 512, bytes.len() / 2, bytes.len() - 1, bytes.len() + 1, bytes.len() + 700] {
            cut(&path, length);
            fixture.is_repaired();
        }
        fs::write(&path, vec![0; bytes.len()]).unwrap();
        fixture.is_repaired();
    }
}

#[test]
fn an_intact_set_is_left_alone() {
    let fixture = Fixture::new(&[70_000, 50_001], 2);
    let ran = fixture.repair(&[]).ended(0);
    assert!(ran.stdout.contains("4 volumes are whole"), "{ran:?}");
    fixture.is_whole();
    // Swapped names do not matter either: all volumes are there.
    let (one, other, aside) = (fixture.path("images.001.tar"), fixture.path("images.002.tar"), fixture.path("aside"));
    fs::rename(&one, &aside).and_then(|()| fs::rename(&other, &one)).and_then(|()| fs::rename(&aside, &other)).unwrap();
    let before = files_below(fixture.directory.path());
    fixture.repair(&[]).ended(0);
    assert!(files_below(fixture.directory.path()) == before);
}

#[test]
fn with_too_many_lost_volumes_nothing_changes_and_the_shortfall_is_reported() {
    let fixture = Fixture::new(&[70_000, 50_001, 70_001, 59_000], 2);
    fs::remove_file(fixture.path("images.001.tar")).unwrap();
    flip(&fixture.path("images.003.tar"), 30_000);
    cut(&fixture.path("images.r02.tar"), 9_999);
    let before = files_below(fixture.directory.path());
    let ran = fixture.repair(&[]).ended(3);
    for line in ["missing: ", "images.001.tar", "damaged: ", "images.r02.tar", "3 volumes of 6", "1 more whole volume"]
    {
        assert!(ran.stdout.contains(line), "{line}: {ran:?}");
    }
    let json: Value = serde_json::from_str(&fixture.repair(&["--json"]).ended(3).stdout).unwrap();
    assert_eq!(
        (&json["missingVolumes"], &json["missingRecovery"], &json["lackingVolumes"], &json["made"]),
        (&json!([1]), &json!([]), &json!(1), &json!([]))
    );
    assert!(files_below(fixture.directory.path()) == before, "nothing may change");
}

#[test]
fn one_recovery_volume_repairs_a_scratch_on_every_disc() {
    let fixture = Fixture::new(&[4 * MIB, 4 * MIB - 9, 3 * MIB + 1], 1);
    for (name, at) in [("images.001.tar", 5), ("images.002.tar", MIB + 5), ("images.003.tar", 2 * MIB)] {
        flip(&fixture.path(name), at);
    }
    cut(&fixture.path("images.r01.tar"), 3 * MIB + 500_000);
    fixture.is_repaired();
    for name in ["images.001.tar", "images.002.tar"] {
        flip(&fixture.path(name), MIB);
    }
    fixture.repair(&[]).ended(3);
}

#[test]
fn from_read_only_media_only_lost_volumes_are_written_elsewhere() {
    let fixture = Fixture::new(&[70_000, 50_001, 70_001], 2);
    let out = tempdir();
    fs::remove_file(fixture.path("images.002.tar")).unwrap();
    flip(&fixture.path("images.r01.tar"), 60_000);
    let before = files_below(fixture.directory.path());
    for _ in 0..2 {
        fixture.repair(&["-o", out.path().to_str().unwrap()]).ended(0);
        assert!(files_below(fixture.directory.path()) == before);
        let made = files_below(out.path());
        assert_eq!(made.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["images.002.tar", "images.r01.tar"]);
        assert!(made.iter().all(|file| fixture.whole.contains(file)));
    }
}

#[test]
fn volumes_of_another_set_are_named_but_not_used_or_overwritten() {
    let (fixture, other) = (Fixture::new(&[70_000, 50_001], 1), Fixture::of(100, &[70_000, 50_001], 1));
    let foreign = fixture.path("foreign.r01.tar");
    fs::copy(other.path("images.r01.tar"), &foreign).unwrap();
    fs::remove_file(fixture.path("images.002.tar")).unwrap();
    let ran = fixture.repair(&[]).ended(0);
    assert!(ran.stdout.contains("of another set: ") && ran.stdout.contains("foreign.r01.tar"), "{ran:?}");
    fs::remove_file(&foreign).unwrap();
    fixture.is_whole();
    // Under the name of a lost one.
    fs::copy(other.path("images.r01.tar"), fixture.path("images.r01.tar")).unwrap();
    let before = files_below(fixture.directory.path());
    fixture.repair(&[]).ended(3);
    assert!(files_below(fixture.directory.path()) == before);
}

#[test]
fn a_file_that_is_not_a_damaged_volume_of_the_set_is_not_overwritten() {
    let (fixture, other) = (Fixture::new(&[70_000, 50_001], 2), Fixture::of(100, &[70_000, 50_001], 2));
    fs::copy(other.path("images.r01.tar"), fixture.path("images.r01.tar")).unwrap();
    let before = files_below(fixture.directory.path());
    fixture.repair(&[]).ended(2).reported(&["images.r01.tar", "is not overwritten"]);
    assert!(files_below(fixture.directory.path()) == before);
}

/// Changes the entries of a volume and reassembles it with correct sums.
pub fn forge(path: &Path, change: impl Fn(&str, &mut Vec<u8>)) {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        change(&name, &mut bytes);
        files.push((name, bytes));
    }
    let sums = files.iter().filter(|(name, _)| !name.ends_with(".sha256"));
    let sums: String = sums.map(|(name, bytes)| format!("{}  {name}\n", Digest::sha256(bytes).hex())).collect();
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in &files {
        let bytes = if name.ends_with(".sha256") { sums.as_bytes() } else { bytes };
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    }
    fs::write(path, builder.into_inner().unwrap()).unwrap();
}

#[test]
fn a_forged_recovery_volume_changes_nothing() {
    let fixture = Fixture::new(&[70_000, 50_001, 52_000], 1);
    let recovery = fixture.path("images.r01.tar");
    let json = |change: &dyn Fn(&mut Value)| {
        forge(&recovery, |name, bytes| {
            if name.ends_with(".json") {
                let mut json: Value = serde_json::from_slice(bytes).unwrap();
                change(&mut json);
                *bytes = serde_json::to_vec_pretty(&json).unwrap();
                bytes.push(b'\n');
            }
        });
    };
    type Change = fn(&mut Value);
    let impossible: [Change; 5] = [
        |json| json["volumes"][0]["size"] = (u64::MAX - 63).into(),
        |json| {
            json["limit"] = (1_u64 << 60).into();
            json["volumes"][0]["size"] = (1_u64 << 50).into();
            json["shard"] = (1_u64 << 50).into();
        },
        |json| json["number"] = 2.into(),
        |json| json["of"] = 9_999.into(),
        |json| json["volumes"] = Value::from(Vec::<u8>::new()),
    ];
    let wrong: [Change; 2] = [
        |json| json["volumes"][1]["sha256"] = "0".repeat(64).into(),
        |json| json["volumes"][1]["size"] = 50_000.into(),
    ];
    for change in impossible.into_iter().chain(wrong) {
        json(&change);
        fs::remove_file(fixture.path("images.002.tar")).unwrap();
        let before = files_below(fixture.directory.path());
        fixture.repair(&[]).ended(3);
        assert!(files_below(fixture.directory.path()) == before);
        fixture.restore();
    }
    forge(&recovery, |name, bytes| {
        if name.ends_with(".parity") {
            bytes[7] ^= 1;
        }
    });
    fs::remove_file(fixture.path("images.002.tar")).unwrap();
    let before = files_below(fixture.directory.path());
    fixture.repair(&[]).ended(3);
    assert!(files_below(fixture.directory.path()) == before);
}

/// Findings about a changing set are true of no set.
#[test]
fn a_set_being_written_by_another_run_is_not_recovered() {
    let fixture = Fixture::new(&[70_000, 50_001], 1);
    let lock = WriteLock::take(&fixture.path("images.tar")).unwrap();
    fixture.repair(&[]).ended(2).reported(&["another gapferry is writing it"]);
    drop(lock);
    fixture.repair(&[]).ended(0);
    fixture.is_whole();
}

#[test]
fn content_fetched_by_an_unfinished_export_is_not_overwritten() {
    let (fixture, out) = (Fixture::new(&[70_000, 50_001], 1), tempdir());
    let (partial, journal) = (fixture.path("images.002.tar.partial"), fixture.path("images.volumes.partial.journal"));
    fs::remove_file(fixture.path("images.002.tar")).unwrap();
    fs::write(&partial, "fetched for an hour").unwrap();
    fs::write(&journal, "what of it").unwrap();
    fixture.repair(&[]).ended(2).reported(&["images.002.tar", "unfinished export or split"]);
    assert_eq!(fs::read(&partial).unwrap(), b"fetched for an hour");
    fixture.repair(&["-o", out.path().to_str().unwrap()]).ended(0);
    assert!(fixture.whole.contains(&files_below(out.path())[0]));
}

/// A few kilobytes could expand to gigabytes.
#[test]
fn a_compressed_recovery_volume_is_not_read() {
    let fixture = Fixture::new(&[70_000, 50_001], 1);
    let recovery = fixture.path("images.r01.tar");
    let whole = fs::read(&recovery).unwrap();
    let mut compressed = Vec::new();
    let frame = zstd::bulk::compress(&whole, 3).unwrap();
    compressed.extend(&frame);
    let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    for bytes in [0x184d_2a5e_u32.to_le_bytes(), number(17), number(frame.len()), number(whole.len()), number(1)] {
        compressed.extend(bytes);
    }
    compressed.extend([0]);
    compressed.extend(0x8f92_eab1_u32.to_le_bytes());
    fs::write(&recovery, compressed).unwrap();
    fs::remove_file(fixture.path("images.002.tar")).unwrap();
    fixture.repair(&[]).ended(3).reported(&["no recovery volume with an intact beginning is given"]);
    Ran::of(gapferry().arg("verify").arg(&recovery)).reported(&["it is compressed"]);
}

#[test]
fn without_a_readable_recovery_volume_recovery_is_refused_clearly() {
    let fixture = Fixture::new(&[70_000, 50_001], 1);
    flip(&fixture.path("images.r01.tar"), 520);
    fs::remove_file(fixture.path("images.002.tar")).unwrap();
    let before = files_below(fixture.directory.path());
    fixture.repair(&[]).ended(3).reported(&["no recovery volume with an intact beginning is given"]);
    assert!(files_below(fixture.directory.path()) == before);
}

#[test]
fn a_recovery_killed_at_any_moment_is_finished_by_a_rerun() {
    let fixture = Fixture::new(&[3 * MIB, 2 * MIB, 3 * MIB - 1, 3 * MIB - 7], 3);
    let lose = || {
        fixture.restore();
        fs::remove_file(fixture.path("images.001.tar")).unwrap();
        flip(&fixture.path("images.003.tar"), 2 * MIB + 9);
        fs::remove_file(fixture.path("images.r02.tar")).unwrap();
    };
    let begins = |name: &str, at: usize| {
        let bytes = fs::read(fixture.path(name)).unwrap_or_default();
        bytes.get(at).is_some_and(|byte| *byte != 0)
    };
    type Moment<'a> = (&'a str, Box<dyn Fn() -> bool + 'a>);
    let moments: [Moment; 5] = [
        ("begun", Box::new(|| fixture.path("images.tar.partial.lock").exists())),
        ("room made", Box::new(|| fixture.path("images.001.tar.partial").exists())),
        ("first bytes", Box::new(|| begins("images.001.tar.partial", 10) || begins("images.001.tar.partial", 11))),
        ("parity", Box::new(|| begins("images.r02.tar.partial", 0))),
        ("first name", Box::new(|| fixture.path("images.001.tar").exists())),
    ];
    for (moment, is_time) in &moments {
        let is_killed = |_: &usize| {
            lose();
            let mut command = gapferry_process();
            command.arg("repair").args(tars(fixture.directory.path())).stdout(Stdio::null()).stderr(Stdio::null());
            let mut process = command.spawn().unwrap();
            while process.try_wait().unwrap().is_none() && !is_time() {
                std::thread::yield_now();
            }
            process.kill().unwrap();
            process.wait().unwrap().signal() == Some(9)
        };
        (0..50).find(is_killed).unwrap_or_else(|| panic!("no run was killed: {moment}"));
        fixture.repair(&[]).ended(0);
        let left: Vec<(String, Vec<u8>)> = files_below(fixture.directory.path());
        let left = left.into_iter().filter(|(name, _)| !name.ends_with(".lock")).collect::<Vec<_>>();
        assert!(left == fixture.whole, "{moment}");
    }
}

/// A real bundle in a directory, and its volumes next to it, named `set/v.…`.
fn split(directory: &Path, size: &str, recovery: u32) -> Ran {
    let mut command = gapferry();
    command.arg("split").arg(directory.join("b.tar")).arg("-o").arg(directory.join("set/v.tar"));
    Ran::of(command.args(["--volume-size", size, "--recovery", &recovery.to_string()]))
}

#[test]
fn a_split_bundle_with_recovery_imports_after_losing_that_many_volumes() {
    let directory = tempdir();
    two_images().write(&directory.path().join("b.tar")).unwrap();
    let set = directory.path().join("set");
    for (size, recovery) in [("100kB", 7), ("1500kB", 2), ("1GB", 1)] {
        split(directory.path(), size, recovery).ended(0);
        let whole = files_below(&set);
        let limit = gapferry::base::progress::units::parse_bytes(size).unwrap();
        let paths = tars(&set);
        assert!(
            whole.len() == paths.len() && paths.iter().all(|path| path.metadata().unwrap().len() <= limit),
            "{size}"
        );
        let is_recovery = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("v.r");
        assert_eq!(paths.iter().filter(is_recovery).count(), recovery as usize);
        // tar and sha256sum can read it.
        let unpacked = directory.path().join(format!("unpacked-{size}"));
        fs::create_dir(&unpacked).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = std::process::Command::new(program).args(arguments).current_dir(&unpacked).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        run("tar", &["xf", set.join("v.r01.tar").to_str().unwrap()]);
        run("sha256sum", &["-c", "volumes/r01.sha256"]);
        // Removes the first ones, which hold the metadata that all repeat.
        paths.iter().take(recovery as usize).for_each(|path| fs::remove_file(path).unwrap());
        Ran::of(gapferry().arg("repair").args(tars(&set))).ended(0);
        assert!(files_below(&set) == whole, "{size}: differs from the original");
        let joined = directory.path().join(format!("joined-{size}.tar"));
        Ran::of(gapferry().arg("join").args(&paths).arg("-o").arg(&joined)).ended(0);
        assert!(fs::read(joined).unwrap() == fs::read(directory.path().join("b.tar")).unwrap());
        // Existing volumes are not rewritten.
        let ran = split(directory.path(), size, recovery).ended(0);
        assert!(!ran.stderr.contains(": written"), "{ran:?}");
        fs::remove_file(set.join("v.r01.tar")).unwrap();
        split(directory.path(), size, recovery).ended(0);
        assert!(files_below(&set) == whole);
        fs::remove_dir_all(&set).unwrap();
    }
}

#[test]
fn a_size_too_small_for_recovery_volumes_is_refused_naming_the_smallest() {
    let directory = tempdir();
    two_images().write(&directory.path().join("b.tar")).unwrap();
    split(directory.path(), "8KiB", 2).ended(2);
    assert!(tars(directory.path()).len() == 1, "nothing may be written");
}

#[test]
fn an_export_writes_recovery_volumes_and_keeps_them_when_unchanged() {
    let (source, directory) = (Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["small", &noise(1, 2_500_000)]);
    image.push(&source);
    let export = |more: &[&str]| {
        let mut command = gapferry();
        command
            .arg("export")
            .arg(format!("{}/team/app:1", source.host()))
            .arg("-o")
            .arg(directory.path().join("v.tar"));
        Ran::of(command.args(["--volume-size", "1MB", "--recovery", "2"]).args(more)).ended(0)
    };
    let planned: Value = serde_json::from_str(&export(&["--dry-run", "--json"]).stdout).unwrap();
    assert_eq!(planned["recoveryCount"], 2);
    let ran = export(&[]);
    assert!(ran.stderr.contains("v.r02.tar: written"), "{ran:?}");
    let whole = files_below(directory.path());
    assert!(whole.len() >= 5 && whole.iter().all(|(_, bytes)| bytes.len() <= 1_000_000));
    let taken: usize = whole.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(planned["bytesNeeded"].as_u64().unwrap() >= taken as u64, "space is planned for these too: {planned}");
    // A second later, the export has another time but nothing new.
    let ran = export(&[]);
    assert!(!ran.stderr.contains(": written"), "{ran:?}");
    for (lost, also) in [("v.001.tar", "v.003.tar"), ("v.002.tar", "v.r01.tar")] {
        fs::remove_file(directory.path().join(lost)).unwrap();
        flip(&directory.path().join(also), 70_000);
        Ran::of(gapferry().arg("repair").args(tars(directory.path()))).ended(0);
        assert!(files_below(directory.path()) == whole, "{lost}, {also}: differs from the original");
    }
    Ran::of(gapferry().arg("verify").args(tars(directory.path()))).ended(0);
}
