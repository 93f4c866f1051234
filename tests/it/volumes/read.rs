//! Volumes as they arrive: in any order, alone, with some missing, damaged or from another set.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use gapferry::base::progress::{Events, Silent};
use gapferry::bundle::volumes::Opened;
use gapferry::verify::{self, Depth, Report};
use serde_json::Value;

use crate::bundle::fixture::{Builder, noise};
use crate::support::barrier::Barrier;
use crate::support::images;
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, gapferry_process, sha256_file, skopeo, tempdir};

pub(super) const SIZE: &str = "64KiB";

/// Two images that share a layer. One has a layer that does not fit into one volume.
fn bundle(seed: u64) -> Builder {
    let shared = noise(seed + 1, 20_000);
    let builder = Builder::new().image("registry.test/team/one:1", &[shared.clone(), noise(seed + 2, 110_000)]);
    builder.image("registry.test/team/two:2.0", &[shared, noise(seed + 3, 25_000), noise(seed + 4, 12_000)])
}

/// Four volumes, and the tar they were split from.
pub(super) struct Set {
    directory: tempfile::TempDir,
    builder: Builder,
    pub tar: PathBuf,
    pub volumes: Vec<PathBuf>,
}

impl Set {
    pub(super) fn new(seed: u64) -> Set {
        let directory = tempdir();
        let builder = bundle(seed);
        let tar = directory.path().join("b.tar");
        builder.write(&tar).unwrap();
        let name = format!("v{seed}.tar");
        let out = directory.path().join(&name);
        gapferry().arg("split").arg(&tar).arg("-o").arg(&out).args(["--volume-size", SIZE]).assert().success();
        let volume = |number: u32| directory.path().join(format!("v{seed}.{number:03}.tar"));
        let volumes: Vec<PathBuf> = (1..).map(volume).take_while(|path| path.exists()).collect();
        assert_eq!(volumes.len(), 4, "the permutations are made for four");
        Set { directory, builder, tar, volumes }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn expected(&self) -> Vec<(String, String, String)> {
        let images = self.builder.contents().lock.images;
        let image = |image: &gapferry::pipeline::lock::LockedImage| {
            let tag = image.reference.tag.as_ref().unwrap().to_string();
            (image.reference.repository.path().to_owned(), tag, image.digest.to_string())
        };
        images.iter().map(image).collect()
    }
}

pub(super) fn checked(paths: &[PathBuf]) -> Report {
    let events: Events = Arc::new(Silent);
    verify::check_opened(&Opened::open(paths).unwrap(), Depth::Chunks, &events).unwrap()
}

/// The files with a problem.
pub(super) fn blamed(report: &Report) -> BTreeSet<PathBuf> {
    report.problems.iter().map(|problem| problem.volume.clone().unwrap_or_default().into()).collect()
}

pub(super) fn verify(paths: &[PathBuf]) -> Ran {
    Ran::of(gapferry().arg("verify").args(paths))
}

pub(super) fn import(paths: &[PathBuf], to: &str, more: &[&str]) -> Ran {
    Ran::of(gapferry().arg("import").args(paths).args(["--to", to, "--json"]).args(more))
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![vec![]];
    }
    let first = |at: usize| {
        let rest: Vec<usize> = items.iter().copied().filter(|item| *item != items[at]).collect();
        permutations(&rest).into_iter().map(move |others| [vec![items[at]], others].concat()).collect::<Vec<_>>()
    };
    (0..items.len()).flat_map(first).collect()
}

#[test]
fn volumes_import_one_by_one_in_any_order_and_tags_appear_once_complete() {
    let set = Set::new(0);
    let target = Registry::start();
    for order in permutations(&[0, 1, 2, 3]) {
        let name = order.iter().map(usize::to_string).collect::<String>();
        let (to, state) = (format!("{}/p{name}", target.host()), set.path(&format!("{name}.state")));
        for (at, volume) in order.iter().enumerate() {
            let is_last = at == 3;
            let given = [set.volumes[*volume].clone()];
            let ran = import(&given, &to, &["--state", state.to_str().unwrap()]).ended(if is_last { 0 } else { 6 });
            let receipt: Value = serde_json::from_str(&ran.stdout).unwrap();
            let wanted: BTreeSet<u64> =
                receipt["wanted"].as_array().into_iter().flatten().map(|n| n.as_u64().unwrap()).collect();
            let to_come: BTreeSet<u64> = order[at + 1..].iter().map(|volume| *volume as u64 + 1).collect();
            assert_eq!(wanted, to_come, "{name} after {at}: {}", ran.stderr);
            for (image, (path, tag, digest)) in receipt["images"].as_array().unwrap().iter().zip(set.expected()) {
                let found = target.digest(&format!("p{name}/{path}"), &tag);
                let is_there = matches!(image["outcome"].as_str().unwrap(), "pushed" | "present");
                assert_eq!(found, is_there.then_some(digest), "{name} after {at}: {image}");
                assert!(is_there || !is_last);
            }
        }
        assert!(!set.path(&format!("{name}.state.segments")).exists(), "no unneeded piece is kept");
    }
    let whole = set.path("pulled");
    skopeo::copy(&format!("docker://{}/p3210/team/one:1", target.host()), &format!("dir:{}", whole.display()));
}

#[test]
fn every_command_reads_all_volumes_in_any_order_as_the_bundle() {
    let set = Set::new(0);
    let target = Registry::start();
    let [one, two, three, four] = set.volumes.clone().try_into().unwrap();
    let mixed = [three.clone(), one.clone(), four, two, one];
    verify(&mixed).ended(0);
    import(&mixed, target.host(), &[]).ended(0);
    for (path, tag, digest) in set.expected() {
        assert_eq!(target.digest(&path, &tag), Some(digest));
    }
    for form in ["joined.tar", "joined"] {
        let out = set.path(form);
        Ran::of(gapferry().arg("join").args(&mixed).arg("-o").arg(&out)).ended(0);
        verify(&[out]).ended(0);
    }
    assert_eq!(sha256_file(&set.path("joined.tar")), sha256_file(&set.tar), "equal to the split bundle byte for byte");
    let folder = set.path("folder");
    set.builder.write(&folder).unwrap();
    assert!(files_below(&folder) == files_below(&set.path("joined")));
    let listed = Ran::of(gapferry().arg("list").args(&[three])).ended(0);
    assert!(listed.stdout.contains("team/two:2.0"), "every volume lists the images: {}", listed.stdout);
    let shown = format!("{}#registry.test/team/one:1", mixed[1].display());
    Ran::of(gapferry().arg("inspect").args(&mixed[..1]).arg(shown).args(&mixed[2..])).ended(0);
}

#[test]
fn an_incomplete_set_without_a_state_is_refused_and_not_pushed() {
    let set = Set::new(0);
    let target = Registry::start();
    for missing in 0..4 {
        let mut some = set.volumes.clone();
        some.remove(missing);
        let words = format!("volume {} of 4", missing + 1);
        import(&some, target.host(), &[]).ended(3).reported(&["nothing was pushed", &words, "missing"]);
        let out = set.path("never.tar");
        Ran::of(gapferry().arg("join").args(&some).arg("-o").arg(&out)).ended(3).reported(&[&words]);
        assert!(!out.exists() && !set.path("never.tar.partial").exists());
        let report = checked(&some);
        assert_eq!(report.set.as_ref().unwrap().missing_volumes, [missing as u32 + 1]);
        assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
        verify(&some).ended(3);
        verify(&[set.volumes[missing].clone()]).ended(0);
    }
    import(&set.volumes[..1], target.host(), &[]).ended(3).reported(&["volumes 2, 3, 4 of 4 are missing"]);
    assert!(!target.requests().iter().any(|r| r.method == "POST" || r.method == "PUT"));
}

#[test]
fn a_missing_volume_affects_only_the_images_that_need_it() {
    let set = Set::new(0);
    let images: Vec<BTreeSet<String>> = (0..4)
        .map(|missing| {
            let mut some = set.volumes.clone();
            some.remove(missing);
            let report = checked(&some);
            report.problems[0].images.iter().cloned().collect()
        })
        .collect();
    let both: BTreeSet<String> = ["registry.test/team/one:1", "registry.test/team/two:2.0"].map(str::to_owned).into();
    assert!(images.iter().all(|images| images.is_subset(&both) && !images.is_empty()), "{images:?}");
    assert!(images.iter().any(|images| images.len() == 1), "{images:?}");
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_blamed_on_its_volume() {
    let set = Set::new(0);
    for (at, path) in set.volumes.iter().enumerate() {
        let good = std::fs::read(path).unwrap();
        let mut places: Vec<usize> = vec![good.len() - 1_000, good.len() - 1];
        let mut archive = tar::Archive::new(&good[..]);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let (header, data, size) = (entry.raw_header_position(), entry.raw_file_position(), entry.size());
            // Name, size and checksum; first, middle and last byte; padding.
            places.extend(
                [header, header + 130, header + 150, data, data + size / 2, data + size - 1].map(|p| p as usize),
            );
            places.extend((size % 512 != 0).then_some((data + size) as usize));
        }
        for place in places {
            let mut bad = good.clone();
            bad[place] ^= 4;
            std::fs::write(path, &bad).unwrap();
            let report = checked(&set.volumes);
            assert_eq!(
                blamed(&report),
                BTreeSet::from([path.clone()]),
                "byte {place} of volume {}: {:#?}",
                at + 1,
                report.problems
            );
            let state =
                report.set.unwrap().volumes.iter().filter(|volume| volume.state != verify::VolumeState::Good).count();
            assert_eq!(state, 1, "byte {place} of volume {}", at + 1);
            let alone = verify(std::slice::from_ref(path));
            assert_ne!(alone.code, Some(0), "byte {place} of volume {} alone: {}", at + 1, alone.stdout);
        }
        std::fs::write(path, &good).unwrap();
    }
    assert!(checked(&set.volumes).is_clean());
}

#[test]
fn a_truncated_or_empty_volume_is_named() {
    let set = Set::new(0);
    for path in &set.volumes {
        let good = std::fs::read(path).unwrap();
        for length in [0, 1, 511, 512, 3_000, 20_000, good.len() / 2, good.len() - 1_024, good.len() - 1] {
            std::fs::write(path, &good[..length]).unwrap();
            let report = checked(&set.volumes);
            assert_eq!(blamed(&report), BTreeSet::from([path.clone()]), "{length} bytes: {:#?}", report.problems);
        }
        std::fs::write(path, &good).unwrap();
    }
}

#[test]
fn a_volume_of_another_set_is_reported_with_both_identities() {
    let (set, other) = (Set::new(0), Set::new(100));
    let identity = |set: &Set| checked(&set.volumes).identity.unwrap().to_string();
    let (own, foreign) = (identity(&set), identity(&other));
    for at in 0..4 {
        let mut mixed = set.volumes.clone();
        mixed[at] = other.volumes[at].clone();
        let ran = verify(&mixed).ended(3);
        for words in [&own, &foreign, &other.volumes[at].display().to_string(), "another set"] {
            assert!(ran.stdout.contains(words), "{words}: {}", ran.stdout);
        }
        assert!(ran.stdout.contains(&format!("volume {} of 4: missing", at + 1)), "{}", ran.stdout);
    }
    // The same bundle in pieces of another size does not fit either.
    let out = set.path("w.tar");
    gapferry().arg("split").arg(&set.tar).arg("-o").arg(&out).args(["--volume-size", "70kB"]).assert().success();
    let mixed = [&set.volumes[..], &[set.path("w.001.tar")]].concat();
    assert!(verify(&mixed).ended(3).stdout.contains("split with another size"));
    import(&set.volumes, "127.0.0.1:1", &["--state", set.tar.to_str().unwrap()]).ended(2);
    // A file that is not a volume has no state, and leaves nothing behind.
    let state = set.path("new/deep/state");
    import(std::slice::from_ref(&set.tar), "127.0.0.1:1", &["--state", state.to_str().unwrap()])
        .ended(2)
        .reported(&["is not a volume"]);
    assert!(!set.path("new").exists());
}

#[test]
fn the_missing_list_of_a_set_names_the_content_of_its_missing_volume() {
    let set = Set::new(0);
    let file = set.path("missing.json");
    let mut command = gapferry();
    command.arg("verify").args(&set.volumes[1..]).arg("--missing").arg(&file).assert().code(3);
    let missing: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(!missing["blobs"].as_array().unwrap().is_empty(), "{missing}");
}

#[test]
fn a_killed_import_of_volumes_can_be_rerun_and_continued() {
    let set = Set::new(0);
    let target = Registry::start();
    for (round, wanted) in ["POST /v2/", "PUT /v2/", "/manifests/"].into_iter().enumerate() {
        let barrier = Barrier::before(target.host(), wanted);
        let (to, state) = (format!("{}/k{round}", barrier.host()), set.path(&format!("k{round}.state")));
        let options = ["--to".as_ref(), to.as_ref(), "--state".as_ref(), state.as_os_str()];
        let mut volumes = set.volumes.clone();
        let last = volumes.remove(round);
        let mut first = gapferry_process();
        first.arg("import").args(&volumes).args(options).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = first.spawn().unwrap();
        barrier.wait();
        process.kill().unwrap();
        process.wait().unwrap();
        barrier.open();
        Ran::of(gapferry().arg("import").args(&volumes).args(options)).ended(6);
        Ran::of(gapferry().arg("import").arg(&last).args(options)).ended(0);
        for (path, tag, digest) in set.expected() {
            assert_eq!(target.digest(&format!("k{round}/{path}"), &tag), Some(digest), "killed at {wanted}");
        }
    }
}

#[test]
fn a_state_belongs_to_one_bundle_and_target_and_a_corrupted_piece_is_requested_again() {
    let (set, other) = (Set::new(0), Set::new(100));
    let target = Registry::start();
    let state = set.path("s.state");
    let go = |volumes: &[PathBuf], to: &str| import(volumes, to, &["--state", state.to_str().unwrap()]);
    let host = target.host();
    // The first three volumes each contain a piece of the large layer.
    let kept = || std::fs::read_dir(set.path("s.state.segments")).unwrap().map(|entry| entry.unwrap().path());
    go(&set.volumes[..1], host).ended(6);
    go(&set.volumes[1..2], &format!("{host}/elsewhere")).ended(2).reported(&["import into"]);
    go(&other.volumes[1..2], host).ended(2).reported(&["belongs to an import of the bundle"]);
    go(std::slice::from_ref(&set.tar), host).ended(2).reported(&["is not a volume"]);
    go(&set.volumes[1..2], host).ended(6);
    let piece = kept().next().expect("a piece of the layer that was cut");
    let mut bytes = std::fs::read(&piece).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&piece, bytes).unwrap();
    go(&set.volumes[2..], host).ended(3).reported(&["bring that volume again"]);
    assert!(!piece.exists());
    let all = go(&set.volumes, host).ended(0);
    assert!(!all.stdout.contains("\"wanted\""), "{}", all.stdout);
    for (path, tag, digest) in set.expected() {
        assert_eq!(target.digest(&path, &tag), Some(digest));
    }
}

#[test]
fn a_lost_piece_of_the_state_is_requested_again() {
    let (set, target) = (Set::new(0), Registry::start());
    let state = set.path("s.state");
    let go = |volumes: &[PathBuf], code: i32| {
        let ran = import(volumes, target.host(), &["--state", state.to_str().unwrap()]).ended(code);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        report["wanted"].as_array().cloned().unwrap_or_default()
    };
    assert_eq!(go(&set.volumes[..1], 6), [2, 3, 4]);
    let kept = std::fs::read_dir(set.path("s.state.segments")).unwrap().map(|entry| entry.unwrap().path());
    kept.for_each(|piece| std::fs::remove_file(piece).unwrap());
    assert_eq!(go(&set.volumes[1..], 6), [1]);
    assert!(go(&set.volumes[..1], 0).is_empty());
    for (path, tag, digest) in set.expected() {
        assert_eq!(target.digest(&path, &tag), Some(digest));
    }
}

#[test]
fn volumes_written_into_the_current_directory_stay_there() {
    let source = Registry::start();
    images::oci("team/app", "1", &["content"]).push(&source);
    let directory = tempdir();
    let reference = format!("{}/team/app:1", source.host());
    let go = |more: &[&str]| Ran::of(gapferry().current_dir(directory.path()).args(more)).ended(0);
    go(&["export", &reference, "--plain-http", "-o", "e.tar", "--volume-size", "64KiB"]);
    go(&["verify", "e.001.tar"]);
    go(&["export", &reference, "--plain-http", "-o", "w.tar"]);
    go(&["split", "w.tar", "-o", "s.tar", "--volume-size", "64KiB"]);
    go(&["verify", "s.001.tar"]);
}

#[test]
fn recovery_volumes_are_verified_and_do_not_disturb_other_commands() {
    let set = Set::new(0);
    let out = set.path("r.tar");
    let arguments = ["--volume-size", SIZE, "--recovery", "1"];
    gapferry().arg("split").arg(&set.tar).arg("-o").arg(&out).args(arguments).assert().success();
    let volumes: Vec<PathBuf> = (1..).map(|n| set.path(&format!("r.{n:03}.tar"))).take_while(|p| p.exists()).collect();
    let recovery = set.path("r.r01.tar");
    let all = [&volumes[..], std::slice::from_ref(&recovery)].concat();
    verify(&all).ended(0);
    verify(&volumes).ended(0);
    let target = Registry::start();
    import(&all, target.host(), &[]).ended(0);
    let good = std::fs::read(&recovery).unwrap();
    for place in [100, 700, good.len() / 2, good.len() - 1_600] {
        let mut bad = good.clone();
        bad[place] ^= 4;
        std::fs::write(&recovery, bad).unwrap();
        let report = checked(&all);
        assert_eq!(blamed(&report), BTreeSet::from([recovery.clone()]), "byte {place}: {:#?}", report.problems);
        assert!(report.problems.iter().all(|problem| problem.images.is_empty()), "no image is affected");
    }
}
