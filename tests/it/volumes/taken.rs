//! Foreign files under the name of a volume: another bundle or an operator's notes would be lost for good.

use std::fs;

use crate::bundle::fixture::two_images;
use crate::support::ran::Ran;
use crate::support::{files_below, gapferry, tempdir};
use crate::volumes::recover::{Fixture, tars};

#[test]
fn a_foreign_file_under_a_lost_volumes_name_is_not_overwritten() {
    let fixture = Fixture::new(&[70_000, 50_001], 2);
    let (bundle, lost) = (fixture.path("other"), fixture.path("images.002.tar"));
    two_images().write(&bundle.with_extension("tar")).unwrap();
    let other = fs::read(bundle.with_extension("tar")).unwrap();
    fs::remove_file(bundle.with_extension("tar")).unwrap();
    for foreign in [&b"notes of the operator"[..], &other] {
        fs::write(&lost, foreign).unwrap();
        let named = tars(fixture.directory.path()).into_iter().filter(|path| *path != lost);
        let mut repair = gapferry();
        repair.arg("repair").args(named);
        Ran::of(&mut repair).ended(2).reported(&["images.002.tar", "is not overwritten"]);
        assert!(fs::read(&lost).unwrap() == foreign);
    }
    // The file is recognizable only by its name, and the user named it explicitly.
    fs::write(&lost, "what a scratch has left").unwrap();
    fixture.is_repaired();
}

#[test]
fn a_recovery_volume_does_not_overwrite_a_foreign_file() {
    let directory = tempdir();
    let bundle = directory.path().join("b.tar");
    two_images().write(&bundle).unwrap();
    let (out, taken) = (directory.path().join("v"), directory.path().join("v.r02.tar"));
    for foreign in [&b"notes of the operator"[..], &fs::read(&bundle).unwrap()] {
        fs::write(&taken, foreign).unwrap();
        for command in ["split", "convert"] {
            let mut run = gapferry();
            run.arg(command).arg(&bundle).arg("-o").arg(&out).args(["--volume-size", "3MB", "--recovery", "2"]);
            Ran::of(&mut run).ended(2).reported(&["v.r02.tar", "not overwritten"]);
            assert!(fs::read(&taken).unwrap() == foreign);
            let left = files_below(directory.path());
            let names: Vec<&str> =
                left.iter().map(|(name, _)| name.as_str()).filter(|name| !name.ends_with(".lock")).collect();
            assert_eq!(names, ["b.tar", "v.r02.tar"], "the refusal came before anything was written");
        }
    }
}
