//! `migrate` killed (kill -9) at several points and run again: the result equals that of an undisturbed run.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::images;
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, gapferry_process, tempdir};

/// How often a run may finish before the test kills it.
const TRIES: usize = 200;

/// A name, and whether the moment has come, judged by the run's directory.
type Moment = (&'static str, fn(&Path) -> bool);

/// The number of files whose path ends like this.
fn files(directory: &Path, end: &str) -> usize {
    let all = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
    all.filter(|entry| entry.file_type().is_file() && entry.path().ends_with(end)).count()
}

/// Kills a run at its moment; returns whether it was still running.
fn killed(command: &mut Command, is_time: impl Fn() -> bool) -> bool {
    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while process.try_wait().unwrap().is_none() && !is_time() {
        std::thread::yield_now();
    }
    process.kill().unwrap();
    process.wait().unwrap().signal() == Some(9)
}

fn command<'a>(command: &'a mut Command, storage: &Path, options: &[&str], to: &Path) -> &'a mut Command {
    command.env("SOURCE_DATE_EPOCH", "1700000000").arg("migrate").arg(storage).args(options).arg(to)
}

#[track_caller]
fn migrated(storage: &Path, options: &[&str], to: &Path) {
    let mut run = gapferry();
    run.env("SOURCE_DATE_EPOCH", "1700000000").arg("migrate").arg(storage).args(options).arg(to);
    Ran::of(&mut run).ended(0);
}

fn storage() -> Registry {
    let registry = Registry::start();
    for n in 0..24 {
        let repository = ["a", "a/b", "team/x/y"][n % 3];
        images::oci(repository, &n.to_string(), &["base", &images::noise(n as u64, 64 << 10)]).push(&registry);
    }
    images::oci_index("list", "1", "index").push(&registry);
    registry
}

/// Kills runs that write `name`, each at one of `moments`, checks the leftovers of each with `look`, and runs once more
/// to the end.
#[track_caller]
fn disturb(registry: &Registry, options: &[&str], name: &str, moments: &[Moment], look: impl Fn(&Path, &Path)) {
    let before = files_below(&registry.storage());
    let whole = tempdir();
    migrated(&registry.storage(), options, &whole.path().join(name));
    let undisturbed = files_below(whole.path());
    for (moment, has_come) in moments {
        let is_killed = |directory: &Path| {
            let mut process = gapferry_process();
            killed(command(&mut process, &registry.storage(), options, &directory.join(name)), || has_come(directory))
        };
        let mut tries = std::iter::repeat_with(tempdir).take(TRIES);
        let found = tries.find(|directory| is_killed(directory.path()));
        let directory = found.unwrap_or_else(|| panic!("no run was killed: {moment}"));
        look(directory.path(), whole.path());
        migrated(&registry.storage(), options, &directory.path().join(name));
        assert!(files_below(directory.path()) == undisturbed, "{options:?} {moment}");
    }
    assert!(files_below(&registry.storage()) == before, "the storage is only read");
}

#[test]
fn a_killed_to_dir_run_leaves_only_complete_images_and_a_rerun_adds_the_rest() {
    let moments: [Moment; 3] = [
        ("the first manifest", |at| files(at, "manifest.json") > 0),
        ("the first image", |at| files(at, "version") > 0),
        ("half of the images", |at| files(at, "version") > 12),
    ];
    disturb(&storage(), &["--to-dir"], "images", &moments, |left, whole| {
        let (left, whole) = (files_below(left), files_below(whole));
        let of = |files: &[(String, Vec<u8>)], image: &str| -> Vec<(String, Vec<u8>)> {
            files.iter().filter(|(path, _)| path.starts_with(&format!("{image}/"))).cloned().collect()
        };
        let finished = left.iter().filter(|(_, bytes)| !bytes.is_empty());
        for image in finished.filter_map(|(path, _)| path.strip_suffix("/version")) {
            assert!(of(&left, image) == of(&whole, image), "{image} looks finished");
        }
    });
}

/// Checks what a registry would serve from an interrupted run's output: every tag in it must be complete.
fn check_served(storage: &Path) {
    if files(storage, "current/link") == 0 {
        return;
    }
    let mut list = gapferry();
    let listed = Ran::of(list.arg("migrate").arg(storage).args(["--list", "--json", "--check", "digest"])).ended(0);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    for image in listed["images"].as_array().unwrap() {
        // A tag without its link means nothing to a registry either.
        assert!(image["state"] == "ok" || image["digest"].is_null(), "{image} has its tag too early");
    }
}

#[test]
fn a_killed_to_storage_run_leaves_no_tag_before_its_image_and_a_rerun_finishes() {
    let moments: [Moment; 4] = [
        ("the first blob", |at| files(at, "data") > 0),
        ("half of the blobs", |at| files(at, "data") > 40),
        ("the first tag", |at| files(at, "current/link") > 0),
        ("half of the tags", |at| files(at, "current/link") > 12),
    ];
    let registry = storage();
    for link in ["hard", "copy"] {
        let options = ["--link", link, "--to-storage"];
        disturb(&registry, &options, "storage", &moments, |left, _| check_served(&left.join("storage")));
    }
}

#[test]
fn a_killed_to_bundle_run_leaves_no_named_bundle_and_a_rerun_finishes() {
    let moments: [Moment; 3] = [
        ("the first blob", |at| blobs(at) > 0),
        ("half of the blobs", |at| blobs(at) > 25),
        ("nearly all of the blobs", |at| blobs(at) > 48),
    ];
    let registry = storage();
    for (link, name) in [("hard", "bundle"), ("copy", "bundle"), ("auto", "bundle.tar")] {
        let options = ["--link", link, "-j", "2", "--to-bundle"];
        disturb(&registry, &options, name, &moments, |left, _| {
            let out = left.join(name);
            if out.exists() {
                gapferry().arg("verify").arg(out).assert().success();
            }
        });
    }
}

/// The number of blobs in an unfinished bundle in this directory, by its files or its journal.
fn blobs(directory: &Path) -> usize {
    let journal = fs::read_to_string(directory.join("bundle.tar.partial.journal")).unwrap_or_default();
    let files = fs::read_dir(directory.join("bundle.partial/blobs/sha256")).map_or(0, Iterator::count);
    files + journal.lines().filter(|line| line.starts_with("done ")).count()
}
