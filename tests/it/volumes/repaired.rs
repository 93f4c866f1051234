//! A set without recovery volumes is repaired with fetched content, byte for byte.

use std::path::{Path, PathBuf};
use std::process::Command;

use gapferry::base::fsops::WriteLock;
use gapferry::bundle::volumes::SetName;
use gapferry::files::Layout;
use serde_json::Value;

use crate::signed::keys::{Key, Kind, text};
use crate::support::images;
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, tempdir};

struct Fixture {
    directory: tempfile::TempDir,
    source: Registry,
    /// The volumes before the damage.
    whole: Vec<(String, Vec<u8>)>,
}

impl Fixture {
    /// Signed volumes in the directory `set`, exported directly or `split` from a tar that is kept.
    fn new(split: bool) -> Fixture {
        let source = Registry::start();
        let (small, large) = (images::noise(1, 300_000), images::noise(2, 2_250_000));
        let images = [
            images::oci("team/one", "1", &[&small, &large]),
            images::oci("team/two", "2", &[&small, &images::noise(3, 700_000)]),
            images::oci_index("team/three", "3", "an index"),
        ];
        images.iter().for_each(|image| image.push(&source));
        let mut fixture = Fixture { directory: tempdir(), source, whole: Vec::new() };
        let openssl = |arguments: &[&str]| assert!(Command::new("openssl").args(arguments).status().unwrap().success());
        let (key, public) = (fixture.path("key.pem"), fixture.path("key.pub"));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", key.to_str().unwrap()]);
        openssl(&["pkey", "-in", key.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
        let names: Vec<String> =
            images.iter().map(|image| format!("{}/{}", fixture.source.host(), image.name())).collect();
        fixture.go(&["lock", "-o", "lock"], &names).ended(0);
        let export = ["export", "--locked", "lock", "--sign-key", "key.pem", "-o"];
        let size = ["--volume-size", "500kB"];
        std::fs::create_dir(fixture.path("set")).unwrap();
        if split {
            fixture.go(&[&export[..], &["b.tar"]].concat(), &[]).ended(0);
            fixture.go(&[&["split", "b.tar", "-o", "set/v.tar"], &size[..]].concat(), &[]).ended(0);
        } else {
            fixture.go(&[&export[..], &["set/v.tar"], &size].concat(), &[]).ended(0);
        }
        fixture.whole = files_below(&fixture.path("set"));
        assert!(fixture.whole.len() >= 5, "{}", fixture.whole.len());
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn volume(&self, number: usize) -> PathBuf {
        self.path("set").join(format!("v.{number:03}.tar"))
    }

    fn volumes(&self) -> Vec<String> {
        let names = files_below(&self.path("set")).into_iter().map(|(name, _)| name);
        names.filter(|name| name.ends_with(".tar")).map(|name| format!("set/{name}")).collect()
    }

    fn go(&self, arguments: &[&str], more: &[String]) -> Ran {
        Ran::of(gapferry().current_dir(self.directory.path()).args(arguments).args(more))
    }

    /// Fetches what the set lacks.
    fn fetch(&self) {
        self.go(&["verify", "--missing", "missing.json"], &self.volumes()).ended(3);
        self.go(&["export", "--repair", "missing.json", "--locked", "lock", "-o", "repair.tar"], &[]).ended(0);
    }

    fn repair(&self, with: &str, more: &[&str]) -> Ran {
        self.go(&[&["repair"], more].concat(), &[&self.volumes()[..], &[with.to_owned()]].concat())
    }

    #[track_caller]
    fn is_whole(&self) {
        assert!(files_below(&self.path("set")) == self.whole, "the set differs from the original");
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1_600);
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_repair_restores_a_set_with_any_damage_to_its_volumes() {
    for split in [true, false] {
        let fixture = Fixture::new(split);
        type Harm = (&'static str, fn(&Fixture));
        let harms: [Harm; 7] = [
            ("one is lost", |g| std::fs::remove_file(g.volume(2)).unwrap()),
            ("the first two are lost", |g| (1..3).for_each(|n| std::fs::remove_file(g.volume(n)).unwrap())),
            ("the last is lost", |g| std::fs::remove_file(g.volume(g.whole.len())).unwrap()),
            ("bits flip in all", |g| (1..=g.whole.len()).for_each(|n| flip(&g.volume(n), 250_000))),
            ("what all repeat is bad", |g| (1..=g.whole.len()).step_by(2).for_each(|n| flip(&g.volume(n), 1_600 * n))),
            ("one begins with zeros", |g| {
                let bytes = std::fs::read(g.volume(2)).unwrap();
                std::fs::write(g.volume(2), [&[0; 512], &bytes[512..]].concat()).unwrap();
            }),
            ("cut short and empty", |g| {
                std::fs::write(g.volume(1), "").unwrap();
                let bytes = std::fs::read(g.volume(3)).unwrap();
                std::fs::write(g.volume(3), &bytes[..bytes.len() / 2]).unwrap();
                std::fs::remove_file(g.volume(4)).unwrap();
            }),
        ];
        for (what, harm) in harms {
            harm(&fixture);
            if what != "what all repeat is bad" {
                fixture.fetch();
                let ran = fixture.repair("repair.tar", &["--key", "key.pub"]).ended(0);
                assert!(ran.stdout.contains("made again") && ran.stdout.contains("OK: "), "{what}: {ran:?}");
                fixture.is_whole();
            }
            fixture
                .whole
                .iter()
                .for_each(|(name, bytes)| std::fs::write(fixture.path("set").join(name), bytes).unwrap());
            if split {
                harm(&fixture);
                // A damaged copy of the bundle has what the volumes lack, too.
                fixture.repair("b.tar", &[]).ended(0);
                fixture.is_whole();
            }
        }
    }
}

#[test]
fn content_missing_from_a_repair_is_named_and_other_volumes_are_repaired() {
    let fixture = Fixture::new(true);
    // The first fetch covers only the last volume, the second one everything that is lost.
    std::fs::remove_file(fixture.volume(fixture.whole.len())).unwrap();
    fixture.fetch();
    std::fs::remove_file(fixture.volume(1)).unwrap();
    let json: Value = serde_json::from_str(&fixture.repair("repair.tar", &["--json"]).ended(3).stdout).unwrap();
    assert_eq!(json["made"].as_array().unwrap().len(), 1, "{json}");
    assert!(!json["lacking"].as_array().unwrap().is_empty() && !json["problems"].as_array().unwrap().is_empty());
    assert!(fixture.volume(fixture.whole.len()).exists() && !fixture.volume(1).exists());
    fixture.fetch();
    fixture.repair("repair.tar", &[]).ended(0);
    fixture.is_whole();
}

#[test]
fn a_set_on_read_only_media_is_repaired_elsewhere_and_nothing_is_overwritten() {
    let fixture = Fixture::new(true);
    std::fs::remove_file(fixture.volume(2)).unwrap();
    flip(&fixture.volume(3), 250_000);
    let before = files_below(&fixture.path("set"));
    fixture.fetch();
    std::fs::create_dir(fixture.path("out")).unwrap();
    fixture.repair("repair.tar", &["-o", "out"]).ended(0);
    assert!(files_below(&fixture.path("set")) == before);
    let made = files_below(&fixture.path("out"));
    assert_eq!(made.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["v.002.tar", "v.003.tar"]);
    assert!(made.iter().all(|file| fixture.whole.contains(file)));
    // The earlier output does not block a second run.
    fixture.repair("repair.tar", &["-o", "out"]).ended(0);
    assert!(files_below(&fixture.path("out")) == made);
    // A foreign file has the name of a lost volume.
    std::fs::write(fixture.volume(2), "my thesis").unwrap();
    let named: Vec<String> = fixture.volumes().into_iter().filter(|name| !name.contains("v.002")).collect();
    let all = [&named[..], &["repair.tar".to_owned()]].concat();
    fixture.go(&["repair"], &all).ended(2).reported(&["v.002.tar", "so it is not overwritten; if it is, name it too"]);
    assert_eq!(std::fs::read(fixture.volume(2)).unwrap(), b"my thesis");
}

#[test]
fn a_copy_with_an_unreadable_file_repairs_everything_else() {
    let fixture = Fixture::new(true);
    fixture.go(&["convert", "b.tar", "-o", "c.tar.zst"], &[]).ended(0);
    let copy = fixture.path("c.tar.zst");
    let mut bytes = std::fs::read(&copy).unwrap();
    // The largest layer is in the middle: its frames cannot be decompressed any more.
    let middle = bytes.len() / 2;
    bytes[middle - 150_000..middle + 150_000].fill(0);
    std::fs::write(&copy, bytes).unwrap();
    (1..=fixture.whole.len()).for_each(|number| flip(&fixture.volume(number), 250_000));
    let json: Value = serde_json::from_str(&fixture.repair("c.tar.zst", &["--json"]).ended(3).stdout).unwrap();
    let bundle = Layout::open(&fixture.path("b.tar")).unwrap();
    let (largest, _) = bundle.entries().max_by_key(|(_, size)| *size).unwrap();
    assert_eq!(json["lacking"], serde_json::json!([largest]), "{json}");
    assert!(!json["made"].as_array().unwrap().is_empty(), "{json}");
}

#[test]
fn a_repair_of_another_bundle_or_key_changes_nothing() {
    let (fixture, other) = (Fixture::new(true), Fixture::new(true));
    for fixture in [&fixture, &other] {
        std::fs::remove_file(fixture.volume(2)).unwrap();
        fixture.fetch();
    }
    std::fs::copy(other.path("repair.tar"), fixture.path("other.tar")).unwrap();
    let before = files_below(&fixture.path("set"));
    fixture.repair("other.tar", &[]).ended(2).reported(&["belongs to another bundle"]);
    let key = other.path("key.pub");
    fixture.repair("repair.tar", &["--key", key.to_str().unwrap()]).ended(3).reported(&["is refused"]);
    // Forged: the repair contains another blob.
    flip(&fixture.path("repair.tar"), 100_000);
    fixture.repair("repair.tar", &[]).ended(3).reported(&["wrong digest"]);
    assert!(files_below(&fixture.path("set")) == before);
}

#[test]
fn a_single_volume_is_repaired_with_only_what_it_lacks() {
    let fixture = Fixture::new(true);
    let last = fixture.whole.len();
    flip(&fixture.volume(last), 200_000);
    let name = format!("set/v.{last:03}.tar");
    fixture.go(&["verify", "--missing", "missing.json", &name], &[]).ended(3);
    let missing: Value = serde_json::from_slice(&std::fs::read(fixture.path("missing.json")).unwrap()).unwrap();
    assert_eq!(missing["blobs"].as_array().unwrap().len(), 1, "{missing}");
    fixture.go(&["export", "--repair", "missing.json", "--locked", "lock", "-o", "repair.tar"], &[]).ended(0);
    fixture.go(&["repair", &name, "repair.tar"], &[]).ended(0);
    fixture.is_whole();
}

/// A damage list made while another run writes would be about a set that no longer exists when the list is used.
#[test]
fn a_set_being_written_by_another_run_is_not_verified() {
    let fixture = Fixture::new(true);
    let other = Key::new(fixture.directory.path(), "other", Kind::P256);
    let key = ["--key", text(&other.public)];
    let lock = WriteLock::take(&SetName::of(&fixture.path("set/v.tar")).whole()).unwrap();
    fixture.repair("b.tar", &key).ended(2).reported(&["another gapferry is writing it"]);
    drop(lock);
    fixture.repair("b.tar", &key).ended(3).reported(&["another key signed it"]);
}
