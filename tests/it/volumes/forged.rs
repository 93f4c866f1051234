//! Recovery volumes made by an attacker: no signature covers them, and `repair` must not write what they claim.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gapferry::base::progress::{Events, Silent};
use gapferry::bundle::volumes::{Part, RecoveryOf, SetName, write_recovery};
use gapferry::content::chunks::Chunks;
use gapferry::oci::Digest;
use serde_json::Value;

use crate::bundle::fixture::{Builder, noise};
use crate::signed::keys::{Key, Kind, text};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, tempdir};

const LIMIT: u64 = 70_000;

/// The files of a tar, in order.
type Files = Vec<(String, Vec<u8>)>;

/// A signed set of volumes in `set/`, with recovery volumes.
struct Signed {
    directory: tempfile::TempDir,
    key: Key,
    identity: Digest,
    /// A layer contained in a single volume.
    blob: String,
    volumes: u32,
    recovery: u32,
}

impl Signed {
    fn new(recovery: u32) -> Signed {
        let directory = tempdir();
        let key = Key::new(directory.path(), "key", Kind::P256);
        let shared = noise(1, 20_000);
        let builder = Builder::new().image("registry.test/team/one:1", &[shared.clone(), noise(3, 25_000)]);
        // The last layer is cut, and the last volume has free space.
        let builder = builder.image("registry.test/team/two:2.0", &[shared, noise(4, 12_000), noise(2, 70_000)]);
        let (bundle, set) = (directory.path().join("b.tar"), directory.path().join("set"));
        builder.write(&bundle).unwrap();
        Ran::of(gapferry().arg("sign").arg(&bundle).arg("--key").arg(&key.private)).ended(0);
        fs::create_dir(&set).unwrap();
        let mut split = gapferry();
        split.arg("split").arg(&bundle).arg("-o").arg(set.join("v.tar"));
        split.args(["--volume-size", &LIMIT.to_string(), "--recovery", &recovery.to_string()]);
        Ran::of(&mut split).ended(0);
        let volumes = files_below(&set).len() as u32 - recovery;
        assert!(volumes > 2, "{volumes} volumes");
        let identity = Digest::sha256(&file_of(&entries(&set.join("v.001.tar")), "bundle.json"));
        let blob = Digest::sha256(&noise(1, 20_000)).blob_path();
        Signed { directory, key, identity, blob, volumes, recovery }
    }

    fn set(&self) -> PathBuf {
        self.directory.path().join("set")
    }

    fn volume(&self, number: u32) -> PathBuf {
        self.set().join(format!("v.{number:03}.tar"))
    }

    /// The number of the first volume with such a file.
    fn holder(&self, is_it: impl Fn(&str) -> bool) -> u32 {
        let has = |number: &u32| entries(&self.volume(*number)).iter().any(|(path, _)| is_it(path));
        (1..=self.volumes).find(has).expect("a volume with such a file")
    }

    /// Replaces the true recovery volumes by some computed with one volume changed.
    fn forge(&self, number: u32, identity: Digest, change: impl FnOnce(&mut Files)) {
        let aside = tempdir();
        for (name, bytes) in files_below(&self.set()).into_iter().filter(|(name, _)| !name.contains(".r")) {
            fs::write(aside.path().join(name), bytes).unwrap();
        }
        let name = SetName::of(&aside.path().join("v.tar"));
        let changed = name.part(Part::Volume(number), self.volumes);
        let (mut files, before) = (entries(&changed), entries(&changed));
        change(&mut files);
        if files != before {
            fs::write(&changed, tar_of(&files)).unwrap();
        }
        let created = "2026-11-21T04:00:00Z".parse().unwrap();
        let (volumes, recovery) = (self.volumes, self.recovery);
        let of = RecoveryOf { identity, created, limit: LIMIT, volumes, recovery };
        let events: Events = Arc::new(Silent);
        for written in write_recovery(&name, &of, None, false, &events).unwrap() {
            let to = self.set().join(written.path.file_name().unwrap());
            fs::copy(written.path, to).unwrap();
        }
    }

    fn repair(&self, with_key: bool) -> Ran {
        let mut command = gapferry();
        command.arg("repair").args(files_below(&self.set()).iter().map(|(name, _)| self.set().join(name)));
        if with_key {
            command.args(["--key", text(&self.key.public)]);
        }
        Ran::of(&mut command)
    }

    /// Checks that nothing is written, with or without the key.
    #[track_caller]
    fn refuses(&self, what: &str, words: &[&str]) {
        let before = files_below(&self.set());
        for with_key in [false, true] {
            let ran = self.repair(with_key);
            assert!(files_below(&self.set()) == before, "{what}, key {with_key}: something was written: {ran:?}");
            let ran = ran.ended(3);
            assert!(words.iter().all(|word| ran.stderr.contains(word)), "{what}, key {with_key}: {ran:?}");
            assert!(!ran.stderr.contains("run the same command again"), "a rerun would end the same: {ran:?}");
        }
    }
}

fn entries(path: &Path) -> Files {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let read = |entry: std::io::Result<tar::Entry<fs::File>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

fn file_of(files: &Files, path: &str) -> Vec<u8> {
    files.iter().find(|(other, _)| other == path).unwrap().1.clone()
}

fn tar_of(files: &Files) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Makes the volume's metadata match its content again, as an attacker would.
fn seal(files: &mut Files) {
    let position = |files: &Files, end: &str| {
        files.iter().position(|(path, _)| path.starts_with("volumes/") && path.ends_with(end)).unwrap()
    };
    let own = position(files, ".json");
    let mut json: Value = serde_json::from_slice(&files[own].1).unwrap();
    let mut values = Vec::new();
    for file in json["files"].as_array_mut().unwrap() {
        let path = match file["segment"].as_u64() {
            Some(number) => {
                let name = file["path"].as_str().unwrap().strip_prefix("blobs/").unwrap();
                format!("segments/{name}.{number:03}")
            }
            None => file["path"].as_str().unwrap().to_owned(),
        };
        let bytes = file_of(files, &path);
        let chunks = Chunks::of(&bytes);
        file["blake3"] = gapferry::oci::Blake3::from(*chunks.root()).to_string().into();
        if file["segment"].is_u64() {
            file["sha256"] = Digest::sha256(&bytes).hex().into();
        }
        values.extend(chunks.values().iter().flatten().copied());
    }
    files[own].1 = format!("{}\n", serde_json::to_string_pretty(&json).unwrap()).into_bytes();
    let b3 = position(files, ".b3");
    files[b3].1 = values;
    sum(files);
}

/// Updates only its sums.
fn sum(files: &mut Files) {
    let own = files.iter().position(|(path, _)| path.ends_with(".sha256")).unwrap();
    let is_summed = |path: &str| !path.ends_with(".sha256") && !path.ends_with(".sig");
    let summed = files.iter().filter(|(path, _)| is_summed(path));
    let lines = summed.map(|(path, bytes)| format!("{}  {path}\n", Digest::sha256(bytes).hex()));
    files[own].1 = lines.collect::<String>().into_bytes();
}

fn flip(files: &mut Files, is_it: impl Fn(&str) -> bool) {
    let (_, bytes) = files.iter_mut().find(|(path, _)| is_it(path)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

fn is_whole_blob(path: &str) -> bool {
    path.starts_with("blobs/")
}

fn is_segment(path: &str) -> bool {
    path.starts_with("segments/")
}

/// Whether the volume lists this blob; blobs in every volume are not listed.
fn is_listed(files: &Files, path: &str) -> bool {
    let own = files.iter().find(|(path, _)| path.starts_with("volumes/") && path.ends_with(".json")).unwrap();
    let json: Value = serde_json::from_slice(&own.1).unwrap();
    json["files"].as_array().unwrap().iter().any(|file| file["path"] == path)
}

#[test]
fn forged_recovery_volumes_cannot_replace_a_lost_volume() {
    type Change = fn(&mut Files);
    let changes: [(&str, Change); 11] = [
        ("a segment", |files| {
            flip(files, is_segment);
            seal(files);
        }),
        ("a segment, and the volume does not know", |files| flip(files, is_segment)),
        ("a blob", |files| {
            let all = files.clone();
            flip(files, |path| is_whole_blob(path) && is_listed(&all, path));
            seal(files);
        }),
        ("a manifest", |files| {
            let all = files.clone();
            flip(files, |path| is_whole_blob(path) && !is_listed(&all, path));
            seal(files);
        }),
        ("index.json", |files| {
            flip(files, |path| path == "index.json");
            seal(files);
        }),
        ("bundle.json", |files| {
            flip(files, |path| path == "bundle.json");
            seal(files);
        }),
        ("the signature", |files| {
            let (_, bytes) = files.iter_mut().find(|(path, _)| path == "SHA256SUMS.sig").unwrap();
            *bytes = vec![b'7'; 64];
        }),
        ("no signature", |files| files.retain(|(path, _)| path != "SHA256SUMS.sig")),
        ("a manifest less", |files| {
            let all = files.clone();
            files.retain(|(path, _)| !is_whole_blob(path) || is_listed(&all, path));
            seal(files);
        }),
        ("a file more", |files| {
            files.push(("blobs/sha256/more".to_owned(), b"more".to_vec()));
            seal(files);
        }),
        ("a segment less", |files| {
            let own =
                files.iter().position(|(path, _)| path.starts_with("volumes/") && path.ends_with(".json")).unwrap();
            let mut json: Value = serde_json::from_slice(&files[own].1).unwrap();
            json["files"].as_array_mut().unwrap().retain(|file| !file["segment"].is_u64());
            files[own].1 = json.to_string().into_bytes();
            files.retain(|(path, _)| !is_segment(path));
            seal(files);
        }),
    ];
    let set = Signed::new(1);
    let whole = files_below(&set.set());
    for (what, change) in changes {
        let number = match what {
            "a blob" => set.holder(|path| path == set.blob),
            "a file more" => set.volumes,
            _ => set.holder(is_segment),
        };
        set.forge(number, set.identity, change);
        fs::remove_file(set.volume(number)).unwrap();
        set.refuses(what, &["forged or damaged", "nothing was changed", &format!("v.{number:03}.tar")]);
        whole.iter().for_each(|(name, bytes)| fs::write(set.set().join(name), bytes).unwrap());
    }
    // The true ones restore it.
    fs::remove_file(set.volume(2)).unwrap();
    set.repair(true).ended(0);
    assert!(files_below(&set.set()) == whole);
}

#[test]
fn recovery_volumes_cannot_replace_an_intact_volume() {
    let set = Signed::new(2);
    let whole = files_below(&set.set());
    let volumes =
        |files: Vec<(String, Vec<u8>)>| files.into_iter().filter(|(n, _)| !n.contains(".r")).collect::<Vec<_>>();
    for number in 1..=set.volumes {
        set.forge(number, set.identity, |files| {
            flip(files, |path| is_segment(path) || is_whole_blob(path));
            seal(files);
        });
        let forged = files_below(&set.set());
        for with_key in [false, true] {
            let ran = set.repair(with_key).ended(0);
            assert!(files_below(&set.set()) == forged, "volume {number}: {ran:?}");
            assert!(ran.stdout.contains(&format!("v.{number:03}.tar: ")), "the message names the volume: {ran:?}");
        }
        // Not even if another volume is lost and the rest of the parity restores that one.
        let lost = number % set.volumes + 1;
        fs::remove_file(set.volume(lost)).unwrap();
        set.repair(true).ended(0);
        assert!(volumes(files_below(&set.set())) == volumes(whole.clone()), "volume {number}");
        whole.iter().for_each(|(name, bytes)| fs::write(set.set().join(name), bytes).unwrap());
    }
}

#[test]
fn a_damaged_volume_is_kept_if_only_a_different_one_could_replace_it() {
    let set = Signed::new(2);
    let number = set.holder(is_segment);
    set.forge(number, set.identity, |files| {
        flip(files, is_segment);
        seal(files);
    });
    let mut bytes = fs::read(set.volume(number)).unwrap();
    let at = bytes.len() - 5_000;
    bytes[at] ^= 1;
    fs::write(set.volume(number), bytes).unwrap();
    set.refuses("damaged", &["forged or damaged", "nothing was changed"]);
}

/// Changes the volume's list.
fn list(files: &mut Files, change: impl FnOnce(&mut Vec<Value>)) {
    let own = files.iter().position(|(path, _)| path.starts_with("volumes/") && path.ends_with(".json")).unwrap();
    let mut json: Value = serde_json::from_slice(&files[own].1).unwrap();
    change(json["files"].as_array_mut().unwrap());
    files[own].1 = json.to_string().into_bytes();
}

#[test]
fn a_forged_copy_of_a_segment_never_leads_to_unverified_output() {
    let set = Signed::new(1);
    let lost = (1..=set.volumes).rev().find(|n| entries(&set.volume(*n)).iter().any(|(path, _)| is_segment(path)));
    let lost = lost.unwrap();
    let mut made = entries(&set.volume(lost));
    let mut segment = None;
    list(&mut made, |files| segment = files.iter().find(|file| file["segment"].is_u64()).cloned());
    let (segment, stored) = (segment.unwrap(), made.iter().find(|(path, _)| is_segment(path)).cloned().unwrap());
    // A volume that supplies a whole blob in place of the right segment; the forged parity gives the lost volume that
    // blob and other bytes in the segment.
    let helper = set.holder(|path| path == set.blob);
    assert_ne!(helper, lost);
    let blob = (set.blob.clone(), noise(1, 20_000));
    let mut listed = Value::Null;
    let mut files = entries(&set.volume(helper));
    list(&mut files, |files| {
        let at = files.iter().position(|file| file["path"] == blob.0).unwrap();
        listed = files.remove(at);
        files.push(segment.clone());
    });
    files.retain(|(path, _)| *path != blob.0);
    files.push(stored.clone());
    seal(&mut files);
    fs::write(set.volume(helper), tar_of(&files)).unwrap();
    set.forge(lost, set.identity, |files| {
        list(files, |files| {
            let own = files.iter_mut().find(|file| file["segment"].is_u64()).unwrap();
            own["size"] = 512.into();
            own["first"] = 512.into();
            files.push(listed);
        });
        files.iter_mut().find(|(path, _)| is_segment(path)).unwrap().1 = vec![7; 512];
        files.push(blob);
        seal(files);
    });
    fs::remove_file(set.volume(lost)).unwrap();
    set.refuses("another copy", &["cannot be assembled from its segments"]);
}

#[test]
fn importing_single_volumes_recovers_from_a_forged_one() {
    let set = Signed::new(0);
    let target = Registry::start();
    let state = set.directory.path().join("state");
    let go = |number: u32| {
        let mut import = gapferry();
        import.arg("import").arg(set.volume(number)).args(["--to", target.host(), "--json", "--state"]).arg(&state);
        Ran::of(&mut import)
    };
    let holders = (1..=set.volumes).filter(|n| entries(&set.volume(*n)).iter().any(|(path, _)| is_segment(path)));
    let holders: Vec<u32> = holders.collect();
    let (forged, last) = (holders[0], holders[holders.len() - 1]);
    let right = fs::read(set.volume(forged)).unwrap();
    let mut files = entries(&set.volume(forged));
    flip(&mut files, is_segment);
    seal(&mut files);
    fs::write(set.volume(forged), tar_of(&files)).unwrap();
    (1..=set.volumes).filter(|number| *number != last).for_each(|number| drop(go(number).ended(6)));
    // Every piece matches its volume's list; only the joined layer is wrong.
    go(last).ended(3).reported(&["bring", "again"]);
    fs::write(set.volume(forged), right).unwrap();
    holders[..holders.len() - 1].iter().for_each(|number| drop(go(*number).ended(6)));
    go(last).ended(0);
}

#[test]
fn recovery_volumes_of_another_bundle_write_nothing() {
    let set = Signed::new(1);
    set.forge(2, Digest::sha256(b"another bundle"), |_| ());
    fs::remove_file(set.volume(2)).unwrap();
    set.refuses("another identity", &[]);
    // The same if a recovery volume confirms it.
    let set = Signed::new(2);
    set.forge(2, Digest::sha256(b"another bundle"), |_| ());
    fs::remove_file(set.set().join("v.r02.tar")).unwrap();
    set.refuses("another identity", &[]);
}

/// A volume's sums are unsigned: otherwise a program beside the images would travel in a bundle reported as good.
#[test]
fn a_file_declared_only_in_a_volumes_sums_is_refused() {
    let set = Signed::new(1);
    let target = Registry::start();
    let all = || files_below(&set.set()).into_iter().map(|(name, _)| set.set().join(name)).collect::<Vec<_>>();
    for (name, path) in [
        ("v.001.tar", "install.sh"),
        ("v.001.tar", "volumes/002.json"),
        ("v.001.tar", "segments/tools/install.sh.001"),
        ("v.001.tar", "tools/install.sh"),
        ("v.r1.tar", "install.sh"),
    ] {
        let volume = all().into_iter().find(|volume| volume.ends_with(name.replace("r1", "r01"))).unwrap();
        let before = fs::read(&volume).unwrap();
        let mut files = entries(&volume);
        files.push((path.to_owned(), b"#!/bin/sh\necho installed\n".to_vec()));
        sum(&mut files);
        fs::write(&volume, tar_of(&files)).unwrap();
        for with_key in [false, true] {
            let key = if with_key { vec!["--key", text(&set.key.public)] } else { Vec::new() };
            let verified = Ran::of(gapferry().args(["verify", "--json", "--full"]).args(&key).args(all())).ended(3);
            let json: Value = serde_json::from_str(&verified.stdout).unwrap();
            let problems = json["problems"].as_array().unwrap();
            let is_named = |problem: &Value| {
                problem["path"] == path
                    && problem["code"] == "undeclared"
                    && problem["volume"].as_str().unwrap().ends_with(volume.file_name().unwrap().to_str().unwrap())
            };
            assert!(!problems.is_empty() && problems.iter().all(is_named), "{name}, {path}: {verified:?}");
            let mut import = gapferry();
            import.arg("import").args(all()).args(["--to", target.host()]).args(key);
            Ran::of(&mut import).ended(3);
        }
        fs::write(&volume, before).unwrap();
    }
    assert!(target.requests().iter().all(|request| matches!(&*request.method, "GET" | "HEAD")), "something was pushed");
    Ran::of(gapferry().args(["verify", "--full"]).args(all())).ended(0);
}

/// The volume's sums match, but not the digest of the segment's file.
#[test]
fn a_volume_with_a_wrong_segment_does_not_count_as_present() {
    let signed = Signed::new(1);
    let number = signed.holder(is_segment);
    let path = signed.volume(number);
    let (mut volume, files) = (fs::read(&path).unwrap(), entries(&path));
    let whole = volume.clone();
    let segment = files.iter().find(|(path, _)| is_segment(path)).unwrap().1.clone();
    let mut other = segment.clone();
    other[100] ^= 1;
    let blake3 = |bytes: &[u8]| gapferry::oci::Blake3::from(*Chunks::of(bytes).root()).to_string();
    let hex = |bytes: &[u8]| Digest::sha256(bytes).hex();
    let name = format!("volumes/{number:03}.json");
    let json = String::from_utf8(file_of(&files, &name)).unwrap();
    let forged = json.replace(&hex(&segment), &hex(&other)).replace(&blake3(&segment), &blake3(&other));
    let mut replace = |from: &[u8], to: &[u8]| {
        let at = volume.windows(from.len()).position(|window| window == from).unwrap();
        volume[at..at + to.len()].copy_from_slice(to);
    };
    replace(&segment, &other);
    replace(json.as_bytes(), forged.as_bytes());
    replace(hex(&segment).as_bytes(), hex(&other).as_bytes());
    replace(hex(json.as_bytes()).as_bytes(), hex(forged.as_bytes()).as_bytes());
    fs::write(&path, volume).unwrap();
    let mut split = gapferry();
    split.arg("split").arg(signed.directory.path().join("b.tar")).arg("-o").arg(signed.set().join("v.tar"));
    split.args(["--volume-size", &LIMIT.to_string(), "--recovery", "1"]);
    Ran::of(&mut split).ended(0).reported(&[&format!("v.{number:03}.tar: written")]);
    assert!(fs::read(&path).unwrap() == whole);
}
