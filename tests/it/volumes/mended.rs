//! A set without recovery volumes is mended with what is fetched again, and is then what it was, byte for byte.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::images;
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, tempdir};

struct Ground {
    directory: tempfile::TempDir,
    source: Registry,
    /// The volumes as they were.
    whole: Vec<(String, Vec<u8>)>,
}

impl Ground {
    /// Volumes in the directory `set`, exported as such or `split` from a tar that is kept, and signed.
    fn new(split: bool) -> Ground {
        let source = Registry::start();
        let (small, large) = (images::noise(1, 300_000), images::noise(2, 2_250_000));
        let images = [
            images::oci("team/one", "1", &[&small, &large]),
            images::oci("team/two", "2", &[&small, &images::noise(3, 700_000)]),
            images::oci_index("team/three", "3", "an index"),
        ];
        images.iter().for_each(|image| image.push(&source));
        let mut ground = Ground { directory: tempdir(), source, whole: Vec::new() };
        let openssl = |arguments: &[&str]| assert!(Command::new("openssl").args(arguments).status().unwrap().success());
        let (key, public) = (ground.path("key.pem"), ground.path("key.pub"));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", key.to_str().unwrap()]);
        openssl(&["pkey", "-in", key.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
        let names: Vec<String> =
            images.iter().map(|image| format!("{}/{}", ground.source.host(), image.name())).collect();
        ground.go(&["lock", "-o", "lock"], &names).ended(0);
        let export = ["export", "--locked", "lock", "--sign-key", "key.pem", "-o"];
        let size = ["--volume-size", "500kB"];
        std::fs::create_dir(ground.path("set")).unwrap();
        if split {
            ground.go(&[&export[..], &["b.tar"]].concat(), &[]).ended(0);
            ground.go(&[&["split", "b.tar", "-o", "set/v.tar"], &size[..]].concat(), &[]).ended(0);
        } else {
            ground.go(&[&export[..], &["set/v.tar"], &size].concat(), &[]).ended(0);
        }
        ground.whole = files_below(&ground.path("set"));
        assert!(ground.whole.len() >= 5, "{}", ground.whole.len());
        ground
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

    /// What the set lacks, fetched.
    fn fetch(&self) {
        self.go(&["verify", "--missing", "missing.json"], &self.volumes()).ended(3);
        self.go(&["export", "--repair", "missing.json", "--locked", "lock", "-o", "repair.tar"], &[]).ended(0);
    }

    fn mend(&self, with: &str, more: &[&str]) -> Ran {
        self.go(&[&["repair"], more].concat(), &[&self.volumes()[..], &[with.to_owned()]].concat())
    }

    #[track_caller]
    fn is_whole(&self) {
        assert!(files_below(&self.path("set")) == self.whole, "it is not what it was");
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = at.min(bytes.len() - 1_600);
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_set_is_mended_with_a_repair_whatever_has_become_of_its_volumes() {
    for split in [true, false] {
        let ground = Ground::new(split);
        type Harm = (&'static str, fn(&Ground));
        let harms: [Harm; 6] = [
            ("one is lost", |g| std::fs::remove_file(g.volume(2)).unwrap()),
            ("the first two are lost", |g| (1..3).for_each(|n| std::fs::remove_file(g.volume(n)).unwrap())),
            ("the last is lost", |g| std::fs::remove_file(g.volume(g.whole.len())).unwrap()),
            ("bits flip in all", |g| (1..=g.whole.len()).for_each(|n| flip(&g.volume(n), 250_000))),
            ("what all repeat is bad", |g| (1..=g.whole.len()).step_by(2).for_each(|n| flip(&g.volume(n), 1_600 * n))),
            ("cut short and empty", |g| {
                std::fs::write(g.volume(1), "").unwrap();
                let bytes = std::fs::read(g.volume(3)).unwrap();
                std::fs::write(g.volume(3), &bytes[..bytes.len() / 2]).unwrap();
                std::fs::remove_file(g.volume(4)).unwrap();
            }),
        ];
        for (what, harm) in harms {
            harm(&ground);
            if what != "what all repeat is bad" {
                ground.fetch();
                let ran = ground.mend("repair.tar", &["--key", "key.pub"]).ended(0);
                assert!(ran.stdout.contains("made again") && ran.stdout.contains("OK: "), "{what}: {ran:?}");
                ground.is_whole();
            }
            ground.whole.iter().for_each(|(name, bytes)| std::fs::write(ground.path("set").join(name), bytes).unwrap());
            if split {
                harm(&ground);
                // A bad copy of the bundle has what the volumes lack, too.
                ground.mend("b.tar", &[]).ended(0);
                ground.is_whole();
            }
        }
    }
}

#[test]
fn what_a_repair_lacks_is_said_and_the_other_volumes_are_mended_all_the_same() {
    let ground = Ground::new(true);
    // Of the last blob, and then of all.
    std::fs::remove_file(ground.volume(ground.whole.len())).unwrap();
    ground.fetch();
    std::fs::remove_file(ground.volume(1)).unwrap();
    let json: Value = serde_json::from_str(&ground.mend("repair.tar", &["--json"]).ended(3).stdout).unwrap();
    assert_eq!(json["made"].as_array().unwrap().len(), 1, "{json}");
    assert!(!json["lacking"].as_array().unwrap().is_empty() && !json["problems"].as_array().unwrap().is_empty());
    assert!(ground.volume(ground.whole.len()).exists() && !ground.volume(1).exists());
    ground.fetch();
    ground.mend("repair.tar", &[]).ended(0);
    ground.is_whole();
}

#[test]
fn a_set_is_mended_beside_media_that_cannot_be_written_and_nothing_else_is_overwritten() {
    let ground = Ground::new(true);
    std::fs::remove_file(ground.volume(2)).unwrap();
    flip(&ground.volume(3), 250_000);
    let before = files_below(&ground.path("set"));
    ground.fetch();
    std::fs::create_dir(ground.path("out")).unwrap();
    ground.mend("repair.tar", &["-o", "out"]).ended(0);
    assert!(files_below(&ground.path("set")) == before);
    let made = files_below(&ground.path("out"));
    assert_eq!(made.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["v.002.tar", "v.003.tar"]);
    assert!(made.iter().all(|file| ground.whole.contains(file)));
    // In the place of a lost one is something that nobody named.
    std::fs::write(ground.volume(2), "my thesis").unwrap();
    let named: Vec<String> = ground.volumes().into_iter().filter(|name| !name.contains("v.002")).collect();
    let all = [&named[..], &["repair.tar".to_owned()]].concat();
    ground.go(&["repair"], &all).ended(2).said(&["v.002.tar", "not named"]);
    assert_eq!(std::fs::read(ground.volume(2)).unwrap(), b"my thesis");
}

#[test]
fn a_repair_of_another_bundle_or_by_another_key_changes_nothing() {
    let (ground, other) = (Ground::new(true), Ground::new(true));
    for ground in [&ground, &other] {
        std::fs::remove_file(ground.volume(2)).unwrap();
        ground.fetch();
    }
    std::fs::copy(other.path("repair.tar"), ground.path("other.tar")).unwrap();
    let before = files_below(&ground.path("set"));
    ground.mend("other.tar", &[]).ended(2).said(&["for another bundle"]);
    let key = other.path("key.pub");
    ground.mend("repair.tar", &["--key", key.to_str().unwrap()]).ended(3).said(&["is refused"]);
    // Forged: the blob it brings is another.
    flip(&ground.path("repair.tar"), 100_000);
    ground.mend("repair.tar", &[]).ended(3).said(&["wrong digest"]);
    assert!(files_below(&ground.path("set")) == before);
}

#[test]
fn one_volume_alone_is_mended_with_no_more_than_it_lacks() {
    let ground = Ground::new(true);
    let last = ground.whole.len();
    flip(&ground.volume(last), 200_000);
    let name = format!("set/v.{last:03}.tar");
    ground.go(&["verify", "--missing", "missing.json", &name], &[]).ended(3);
    let missing: Value = serde_json::from_slice(&std::fs::read(ground.path("missing.json")).unwrap()).unwrap();
    assert_eq!(missing["blobs"].as_array().unwrap().len(), 1, "{missing}");
    ground.go(&["export", "--repair", "missing.json", "--locked", "lock", "-o", "repair.tar"], &[]).ended(0);
    ground.go(&["repair", &name, "repair.tar"], &[]).ended(0);
    ground.is_whole();
}
