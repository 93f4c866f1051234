//! Missing volumes of a set, and their consequences.

use std::path::PathBuf;

use gapferry::verify::Report;

use super::read::{SIZE, Set, blamed, checked, import, verify};
use crate::bundle::fixture::{Builder, noise};
use crate::support::ran::Ran;
use crate::support::{gapferry, gapferry_process_of, tempdir};

#[test]
fn each_missing_volume_is_reported_with_the_images_it_affects() {
    let set = Set::new(0);
    let missing = |lost: &[usize]| -> Vec<PathBuf> {
        (0..4).filter(|at| !lost.contains(at)).map(|at| set.volumes[at].clone()).collect()
    };
    let costs = |report: &Report, at: usize| {
        let name = format!("volume {} of 4", at + 1);
        report.problems.iter().find(|problem| problem.path == name).map(|problem| problem.images.clone())
    };
    let alone: Vec<_> = (0..4).map(|at| costs(&checked(&missing(&[at])), at).unwrap()).collect();
    assert!(alone.iter().any(|images| images.len() == 1) && alone.iter().any(|images| images.len() == 2), "{alone:?}");
    for lost in (1_u32..15).map(|bits| (0..4).filter(|at| bits >> at & 1 == 1).collect::<Vec<usize>>()) {
        if lost.len() == 3 {
            continue; // one alone is verified alone
        }
        let report = checked(&missing(&lost));
        let text: Vec<_> = lost.iter().map(|at| costs(&report, *at).unwrap()).collect();
        assert_eq!(text, lost.iter().map(|at| alone[*at].clone()).collect::<Vec<_>>(), "{lost:?}");
    }
    // One volume is missing, and another is empty.
    std::fs::write(&set.volumes[3], "").unwrap();
    let report = checked(&set.volumes[1..]);
    let broken = report.problems.iter().find(|problem| problem.volume.is_some()).unwrap();
    assert_eq!((costs(&report, 0), &broken.images), (Some(alone[0].clone()), &alone[3]));
    // With a good copy beside it, no image is affected.
    let copy = set.path("copy.tar");
    gapferry().arg("split").arg(&set.tar).arg("-o").arg(&copy).args(["--volume-size", SIZE]).assert().success();
    let report = checked(&[&set.volumes[..], &[set.path("copy.004.tar")]].concat());
    assert!(report.problems.iter().all(|problem| problem.images.is_empty()), "{:?}", report.problems);
}

#[test]
fn a_damaged_copy_beside_a_good_volume_affects_no_image() {
    let set = Set::new(0);
    let copy = set.path("copy.tar");
    for at in 0..4 {
        let mut bytes = std::fs::read(&set.volumes[at]).unwrap();
        let place = bytes.len() - 9_000;
        bytes[place] ^= 1;
        std::fs::write(&copy, bytes).unwrap();
        let alone = std::slice::from_ref(&copy);
        for given in [[&set.volumes[..], alone].concat(), [alone, &set.volumes[..]].concat()] {
            let report = checked(&given);
            assert_eq!(blamed(&report), [copy.clone()].into(), "{:?}", report.problems);
            assert!(report.problems.iter().all(|problem| problem.images.is_empty()), "{:?}", report.problems);
            assert!(report.problems.iter().all(|problem| problem.remedy.contains("leave this copy out")));
        }
    }
}

#[test]
fn a_set_with_more_volumes_than_the_open_file_limit_can_be_read() {
    let directory = tempdir();
    let tar = directory.path().join("b.tar");
    let layers: Vec<Vec<u8>> = (0..40).map(|seed| noise(seed + 1, 90_000)).collect();
    Builder::new().image("registry.test/a:1", &layers).write(&tar).unwrap();
    let out = directory.path().join("v.tar");
    gapferry().arg("split").arg(&tar).arg("-o").arg(out).args(["--volume-size", "160KiB"]).assert().success();
    let script = "ulimit -Sn 24; exec \"$@\"";
    let mut limited = gapferry_process_of("sh".as_ref());
    limited.args(["-c", script, "sh", env!("CARGO_BIN_EXE_gapferry"), "verify"]).current_dir(directory.path());
    let volumes = (1..).map(|number| format!("v.{number:03}.tar"));
    let volumes: Vec<String> = volumes.take_while(|name| directory.path().join(name).exists()).collect();
    assert!(volumes.len() > 30, "{}", volumes.len());
    let output = limited.args(&volumes).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let message = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(message.contains(&format!("{} good", volumes.len())), "{message}");
}

#[test]
fn recovery_volumes_can_be_verified_alone_and_missing_ones_are_reported() {
    let set = Set::new(0);
    let out = set.path("r.tar");
    let arguments = ["--volume-size", SIZE, "--recovery", "2"];
    gapferry().arg("split").arg(&set.tar).arg("-o").arg(&out).args(arguments).assert().success();
    let volumes: Vec<PathBuf> = (1..).map(|n| set.path(&format!("r.{n:03}.tar"))).take_while(|p| p.exists()).collect();
    let recovery = [set.path("r.r01.tar"), set.path("r.r02.tar")];
    let alone = verify(&recovery[1..]).ended(0);
    assert!(alone.stdout.contains("recovery volume r02 of 2"), "{}", alone.stdout);
    verify(&recovery).ended(0);
    let note = "note: r01 of 2 for recovery is not here";
    let some = [&volumes[..], &recovery[1..]].concat();
    let ran = verify(&some).ended(0);
    assert!(ran.stdout.contains("OK: ") && ran.stdout.contains(note), "{}", ran.stdout);
    assert!(!verify(&[&volumes[..], &recovery].concat()).ended(0).stdout.contains("note: "));
    assert!(!verify(&volumes[..1]).ended(0).stdout.contains("note: "), "the other volumes were not given");
    // With the recovery volume, a lost volume is not a loss; without it, it is.
    let ran = verify(&some[1..]).ended(3);
    assert!(ran.stdout.contains("`gapferry repair` reconstructs it"), "{}", ran.stdout);
    assert!(verify(&volumes[1..]).ended(3).stdout.contains("`export --only-volume` writes it again"));
    // Verifying one recovery volume checks its own bytes.
    let mut bytes = std::fs::read(&recovery[0]).unwrap();
    let at = bytes.len() - 5_000;
    bytes[at] ^= 1;
    std::fs::write(&recovery[0], bytes).unwrap();
    let ran = verify(&recovery[..1]).ended(3);
    assert!(ran.stdout.contains("r01.parity: wrong digest"), "{}", ran.stdout);
    Ran::of(gapferry().arg("list").args(&recovery)).ended(2).reported(&["only recovery volumes"]);
    Ran::of(gapferry().arg("join").args(&recovery).args(["-o", "never"])).ended(2).reported(&["only recovery volumes"]);
}

#[test]
fn an_import_that_could_not_start_leaves_no_files() {
    let set = Set::new(0);
    let state = set.path("s.state");
    let go = |volume: PathBuf| import(&[volume], "127.0.0.1:1", &["--state", state.to_str().unwrap()]);
    go(set.path("nowhere.001.tar")).ended(2);
    std::fs::write(set.path("empty.001.tar"), "").unwrap();
    go(set.path("empty.001.tar")).ended(2);
    assert!(!set.path("s.state.segments").exists() && !state.exists());
}
