//! Recovery volumes that do not match the volumes beside them: the operator must learn that before a volume is lost.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::bundle::fixture::{Builder, noise};
use crate::signed::keys::{Key, Kind, text};
use crate::support::ran::Ran;
use crate::support::{files_below, gapferry, tempdir};

/// Splits the current tar into a set with two recovery volumes; returns its directory.
fn split(tar: &Path, name: &str) -> PathBuf {
    let set = tar.with_file_name(name);
    fs::create_dir(&set).unwrap();
    let mut split = gapferry();
    split.arg("split").arg(tar).arg("-o").arg(set.join("v.tar"));
    Ran::of(split.args(["--volume-size", "70000", "--recovery", "2"])).ended(0);
    set
}

/// The problems that `verify --full` finds in these files.
#[track_caller]
fn verify(set: &Path, code: i32) -> Vec<Value> {
    let mut command = gapferry();
    command.args(["verify", "--full", "--json"]);
    command.args(files_below(set).into_iter().map(|(name, _)| set.join(name)));
    let ran = Ran::of(&mut command).ended(code);
    serde_json::from_str::<Value>(&ran.stdout).unwrap()["problems"].as_array().unwrap().clone()
}

/// A tar that was signed, split, signed again and split again: one bundle, and two sets with different signatures.
struct Fixture {
    _directory: tempfile::TempDir,
    tar: PathBuf,
    former: PathBuf,
    set: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempdir();
        let tar = directory.path().join("b.tar");
        let layers = [noise(1, 20_000), noise(2, 110_000), noise(3, 25_000)];
        Builder::new().image("registry.test/team/one:1", &layers).write(&tar).unwrap();
        let key = Key::new(directory.path(), "key", Kind::P256);
        let sign = || Ran::of(gapferry().arg("sign").arg(&tar).args(["--key", text(&key.private)])).ended(0);
        sign();
        let former = split(&tar, "former");
        sign();
        let set = split(&tar, "set");
        Fixture { _directory: directory, tar, former, set }
    }
}

#[test]
fn recovery_volumes_that_do_not_match_are_found_before_a_volume_is_lost() {
    let fixture = Fixture::new();
    assert_eq!(verify(&fixture.set, 0), Vec::<Value>::new(), "the recovery volumes match");
    let stale = "v.r02.tar";
    fs::copy(fixture.former.join(stale), fixture.set.join(stale)).unwrap();
    let problems = verify(&fixture.set, 3);
    let [problem] = &problems[..] else { panic!("{problems:#?}") };
    assert_eq!((&problem["code"], &problem["path"]), (&"stale-recovery".into(), &"volumes/r02.json".into()));
    assert_eq!(problem["volume"], fixture.set.join(stale).to_str().unwrap());
    // No image needs a recovery volume.
    assert_eq!(problem["images"], Value::Array(Vec::new()));
    // The same command recreates it.
    let mut again = gapferry();
    again.arg("split").arg(&fixture.tar).arg("-o").arg(fixture.set.join("v.tar"));
    Ran::of(again.args(["--volume-size", "70000", "--recovery", "2"])).ended(0);
    assert_eq!(verify(&fixture.set, 0), Vec::<Value>::new());
}

/// Recovery volumes restore a damaged volume: these match, and must not be discarded.
#[test]
fn a_damaged_volume_does_not_discredit_the_recovery_volumes() {
    let fixture = Fixture::new();
    let volume = fixture.set.join("v.002.tar");
    let mut bytes = fs::read(&volume).unwrap();
    let place = bytes.len() - 20_000;
    bytes[place] ^= 1;
    fs::write(&volume, &bytes).unwrap();
    let problems = verify(&fixture.set, 3);
    assert!(!problems.is_empty());
    assert!(problems.iter().all(|problem| problem["volume"] == volume.to_str().unwrap()), "{problems:#?}");
    // A lost volume cannot be compared.
    fs::remove_file(&volume).unwrap();
    let problems = verify(&fixture.set, 3);
    assert!(problems.iter().all(|problem| problem["code"] == "missing"), "{problems:#?}");
}
