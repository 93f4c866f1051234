//! The demo runs and its claims are true. The files in `fixtures/` match what their script generates, so nobody has to
//! trust binary files of unknown origin.

use std::path::Path;
use std::process::Command;

use crate::support::{files_below, tempdir};

#[test]
fn the_fixtures_match_what_their_script_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let work = tempdir();
    let made = work.path().join("connected");
    let status = Command::new(root.join("scripts/make-fixtures")).arg(&made).status().unwrap();
    assert!(status.success());
    let (kept, made) = (files_below(&root.join("fixtures/connected")), files_below(&made));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&made));
    assert!(kept == made, "the content of some file differs");
}

#[test]
fn the_demo_does_the_whole_job_and_leaves_nothing_running() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new(root.join("scripts/demo")).env("GAPFERRY", env!("CARGO_BIN_EXE_gapferry")).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for shown in ["wrong digest", "1 of 5 images affected", "0 images pushed, 5 present", "what went in came out"] {
        assert!(format!("{stdout}{stderr}").contains(shown), "{shown:?} is missing from:\n{stdout}\n{stderr}");
    }
}
