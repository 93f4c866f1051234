//! `scripts/release`, as far as it goes without building: building takes minutes, and `scripts/release --check` is run by
//! hand before a release.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::tempdir;

fn release(arguments: &[&str]) -> Output {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_dry_run_lists_every_file_of_the_release_and_writes_none() {
    let work = tempdir();
    let to = work.path().join("dist");
    let output = release(&["--dry-run", "--target", "x86_64", "--output", to.to_str().unwrap()]);
    let version = env!("CARGO_PKG_VERSION");
    for file in [format!("gapferry-{version}-x86_64-linux.tar.gz and .cdx.json"), "SHA256SUMS".into()] {
        let line = format!("{}/{file}", to.display());
        assert!(text(&output.stdout).contains(&line), "{line} is missing from:\n{}", text(&output.stdout));
    }
    let stderr = text(&output.stderr);
    assert!(output.status.success() || stderr.starts_with("Not installed:\n"), "{stderr}");
    assert!(!to.exists());
}

#[test]
fn a_release_for_an_unknown_machine_is_refused_before_anything_is_built() {
    let output = release(&["--target", "riscv64"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "release: no release is built for riscv64; use x86_64 or aarch64\n");
}

/// Without this, a builder would learn after two builds that the last step has no tool.
#[test]
fn everything_that_is_not_installed_is_named_at_once_with_the_way_to_get_it() {
    let work = tempdir();
    let programs = work.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    for program in ["bash", "dirname", "realpath", "git", "sed", "head", "tail", "tr", "uname", "grep"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|directory| directory.join(program))
            .find(|path| path.exists())
            .unwrap();
        std::os::unix::fs::symlink(found, programs.join(program)).unwrap();
    }
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release"))
        .args(["--dry-run", "--target", "x86_64", "--target", "aarch64"])
        .env("PATH", &programs)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    for line in [
        "  cargo (https://rustup.rs)",
        "  jq (apt-get install jq)",
        "  cargo-cyclonedx (cargo install --locked cargo-cyclonedx)",
    ] {
        assert!(stderr.lines().any(|shown| shown == line), "{line:?} is missing from:\n{stderr}");
    }
    assert!(stderr.contains("apt-get install qemu-user-static"), "{stderr}");
}

#[test]
fn the_changelog_has_an_entry_for_the_version_that_is_built() {
    let changelog = include_str!("../../CHANGELOG.md");
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(changelog.lines().any(|line| line.starts_with(&heading)), "CHANGELOG.md has no {heading:?}");
}
