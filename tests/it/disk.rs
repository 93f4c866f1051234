//! The output of an export: a disk that is full or fills up, a read-only medium, existing files, another run on the
//! same output. Nothing is lost, and the message says what to do.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::support;
use crate::support::barrier::Barrier;
use crate::support::disk::Disk;
use crate::support::images::{self, Image, noise};
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, gapferry_process, tempdir};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A registry with an image of about 5 MiB in two layers.
fn large() -> (Registry, Image) {
    let registry = Registry::start();
    let image = images::oci("team/app", "1", &[&noise(1, 3 << 20), &noise(2, 3 << 20)]);
    image.push(&registry);
    (registry, image)
}

/// Holds the export at the request for the second layer.
fn barrier_before_a_layer(registry: &Registry, image: &Image) -> Barrier {
    let layer = support::sha256(&image.blobs[2]);
    Barrier::before(registry.host(), &format!("GET /v2/team/app/blobs/{layer}"))
}

fn export(host: &str, out: &Path) -> Output {
    let reference = format!("{host}/team/app:1");
    gapferry().args(["export", &reference, "-j", "1", "-o"]).arg(out).output().unwrap()
}

/// How often a layer was requested. Configs do not count: they are read for the platform before the download is
/// planned.
fn layer_requests(registry: &Registry, image: &Image) -> usize {
    let layers: Vec<String> = image.blobs[1..].iter().map(|blob| support::sha256(blob)).collect();
    registry.requests().iter().filter(|request| layers.iter().any(|layer| request.path.ends_with(layer))).count()
}

#[test]
fn a_full_disk_is_reported_with_the_bytes_needed_before_anything_is_fetched() {
    let Some(disk) = Disk::of(2048) else { return };
    let (registry, image) = large();
    let before = layer_requests(&registry, &image);
    for name in ["b.tar", "b"] {
        let output = export(registry.host(), &disk.path().join(name));
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("needs 4.9 MiB more") && message.contains("has only 2.0 MiB left"), "{message}");
        assert!(message.contains("hint: free some space"), "{message}");
    }
    assert_eq!(layer_requests(&registry, &image), before);
    let left: Vec<String> = files_below(disk.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["b.tar.walk", "b.walk"]);
}

#[test]
fn after_making_room_no_manifest_is_pulled_again() {
    let Some(disk) = Disk::of(2048) else { return };
    let (registry, _) = large();
    let pulls = || registry.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/manifests/")).count();
    for name in ["b.tar", "b"] {
        disk.resize(2048);
        let out = disk.path().join(name);
        let message = stderr(&export(registry.host(), &out));
        assert!(message.contains("1 manifest kept in") && message.contains("hint: free some space"), "{message}");
        let before = pulls();
        disk.resize(32 * 1024);
        assert!(export(registry.host(), &out).status.success());
        assert_eq!(pulls(), before);
        gapferry().arg("verify").arg(&out).assert().success();
        let left = files_below(disk.path()).into_iter().filter(|(name, _)| name.ends_with(".walk")).count();
        assert_eq!(left, 0);
        std::fs::remove_file(&out).or_else(|_| std::fs::remove_dir_all(&out)).unwrap();
    }
}

/// The messages of an export on a disk that fills up: `filler` takes `bytes` while a layer waits at the barrier.
fn export_while_the_disk_fills_up(barrier: &Barrier, out: &Path, filler: &Path, bytes: usize) -> String {
    let reference = format!("{}/team/app:1", barrier.host());
    let mut command = gapferry_process();
    command.args(["export", &reference, "-j", "1", "-o"]).arg(out).stderr(Stdio::piped());
    let process = command.spawn().unwrap();
    barrier.wait();
    std::fs::write(filler, vec![7; bytes]).unwrap();
    barrier.open();
    let output = process.wait_with_output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    message
}

#[test]
fn a_disk_that_fills_up_during_an_export_loses_nothing() {
    let Some(disk) = Disk::of(9 * 1024) else { return };
    let (registry, image) = large();
    let barrier = barrier_before_a_layer(&registry, &image);
    let out = disk.path().join("b");
    let filler = disk.path().join("filler");
    let message = export_while_the_disk_fills_up(&barrier, &out, &filler, 5 << 20);
    assert!(message.contains("No space left") && message.contains("hint: free some space"), "{message}");
    assert!(!out.exists());
    std::fs::remove_file(filler).unwrap();
    let output = export(barrier.host(), &out);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    gapferry().arg("verify").arg(&out).assert().success();
}

#[test]
fn once_the_disk_is_full_nothing_more_is_fetched() {
    let Some(disk) = Disk::of(9 * 1024) else { return };
    let registry = Registry::start();
    // The largest layer is fetched first, and the disk fills up in the middle of it.
    let layers: Vec<String> = (0..6).map(|n| noise(n, if n == 0 { 3 << 20 } else { 1 << 20 })).collect();
    let image = images::oci("team/app", "1", &layers.iter().map(String::as_str).collect::<Vec<_>>());
    image.push(&registry);
    let before = layer_requests(&registry, &image);
    let barrier =
        Barrier::before(registry.host(), &format!("GET /v2/team/app/blobs/{}", support::sha256(&image.blobs[1])));
    let out = disk.path().join("b");
    let filler = disk.path().join("filler");
    let message = export_while_the_disk_fills_up(&barrier, &out, &filler, 8 << 20);
    assert!(message.matches("No space left").count() == 1 && message.contains("hint: free some space"), "{message}");
    assert_eq!(layer_requests(&registry, &image) - before, 1);
    std::fs::remove_file(filler).unwrap();
    assert!(export(barrier.host(), &out).status.success());
    gapferry().arg("verify").arg(&out).assert().success();
}

/// Exit code 1 means that images failed; here this machine has no space.
#[test]
fn an_import_from_a_pipe_reports_a_full_disk_like_any_other() {
    let Some(disk) = Disk::of(1024) else { return };
    let ((registry, _), target, out) = (large(), Registry::start(), tempdir());
    let bundle = out.path().join("b.tar");
    assert!(export(registry.host(), &bundle).status.success());
    let to = format!("{}/m", target.host());
    let mut command = gapferry_process();
    command.args(["import", "-", "--to", &to]).env("TMPDIR", disk.path()).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut pipe = process.stdin.take().unwrap();
    // The pipe closes when the space runs out.
    let _ = std::io::copy(&mut std::fs::File::open(&bundle).unwrap(), &mut pipe);
    drop(pipe);
    let output = process.wait_with_output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("storing a blob in TMPDIR") && message.contains("hint: free some space"), "{message}");
}

/// Without handling, the signal killed the program silently.
#[test]
fn a_file_size_limit_is_an_error_with_a_hint() {
    let ((registry, _), out) = (large(), tempdir());
    let reference = format!("{}/team/app:1", registry.host());
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        r#"ulimit -f 2048; exec "$0" "$@""#,
        env!("CARGO_BIN_EXE_gapferry"),
        "export",
        &reference,
        "-o",
    ]);
    let output = command.arg(out.path().join("b.tar")).env("HOME", out.path()).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("File too large") && message.contains("ulimit -f"), "{message}");
}

#[test]
fn a_read_only_medium_refuses_exports_but_can_be_verified_and_imported() {
    let Some(disk) = Disk::of(32 * 1024) else { return };
    let (registry, _) = large();
    let bundles = ["b.tar", "b"].map(|name| disk.path().join(name));
    for bundle in &bundles {
        assert!(export(registry.host(), bundle).status.success());
    }
    disk.make_read_only();
    let target = Registry::start();
    for bundle in &bundles {
        for command in [&["verify"][..], &["list"], &["inspect"], &["import", "--to", target.host()]] {
            gapferry().args(command).arg(bundle).assert().success();
        }
    }
    for name in ["new.tar", "new"] {
        let output = export(registry.host(), &disk.path().join(name));
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(name) && message.contains("hint: remount the file system read-write"), "{message}");
    }
}

#[test]
fn an_unwritable_receipt_or_lock_is_reported_before_the_work_starts() {
    let (registry, image) = large();
    let directory = tempdir();
    let (bundle, nowhere) = (directory.path().join("b.tar"), directory.path().join("no/such/directory/file"));
    let nowhere = nowhere.to_str().unwrap();
    let reference = format!("{}/team/app:1", registry.host());
    let out = bundle.to_str().unwrap();
    let before = layer_requests(&registry, &image);
    let output = gapferry().args(["export", &reference, "-o", out, "--lock", nowhere]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(layer_requests(&registry, &image), before);
    assert!(export(registry.host(), &bundle).status.success());
    let target = Registry::start();
    for option in ["--receipt", "--digestfile"] {
        let output = gapferry().args(["import", out, "--to", target.host(), option, nowhere]).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(nowhere), "{message}");
        assert_eq!(target.uploads(), 0, "{option}");
    }
    for arguments in [["lock", &reference, "-o", nowhere], ["man", "--dir", "/dev/null/x", "-q"]] {
        assert_eq!(gapferry().args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn another_run_on_the_same_output_is_detected_before_any_request() {
    let (registry, _) = large();
    let directory = tempdir();
    let lock = std::fs::File::create(directory.path().join("b.partial.lock")).unwrap();
    lock.lock().unwrap();
    let before = registry.requests().len();
    let output = export(registry.host(), &directory.path().join("b"));
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("another gapferry is writing it"), "{message}");
    assert_eq!(registry.requests().len(), before);
    lock.unlock().unwrap();
    assert!(export(registry.host(), &directory.path().join("b")).status.success());
}

#[test]
fn an_existing_file_that_is_not_a_bundle_is_not_overwritten() {
    let (registry, _) = large();
    let directory = tempdir();
    let root = directory.path();
    std::fs::write(root.join("notes.tar"), "not a tar").unwrap();
    std::fs::write(root.join("notes"), "a file").unwrap();
    std::fs::create_dir(root.join("photos")).unwrap();
    std::fs::write(root.join("photos/one"), "precious").unwrap();
    std::fs::create_dir(root.join("photos.tar")).unwrap();
    std::fs::write(root.join("photos.tar/one"), "precious").unwrap();
    std::os::unix::fs::symlink("nowhere", root.join("dangling")).unwrap();
    let (before, asked) = (files_below(root), registry.requests().len());
    for name in ["notes.tar", "notes", "photos", "photos.tar", "dangling"] {
        let output = export(registry.host(), &root.join(name));
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(
            message.contains(name)
                && (name == "dangling"
                    || message.contains("is not a bundle, so it is not overwritten")
                    || message.contains("there is a directory")),
            "{message}"
        );
    }
    assert_eq!(files_below(root), before);
    assert_eq!(registry.requests().len(), asked, "the problem is reported before hours of reading");
    assert_eq!(std::fs::read_link(root.join("dangling")).unwrap(), PathBuf::from("nowhere"));
    // An empty directory made for the bundle counts as free.
    std::fs::create_dir(root.join("empty")).unwrap();
    assert!(export(registry.host(), &root.join("empty")).status.success());
}

#[test]
fn foreign_files_in_place_of_an_unfinished_bundle_are_refused_before_any_request() {
    let (registry, _) = large();
    let directory = tempdir();
    let root = directory.path();
    std::fs::create_dir(root.join("theirs")).unwrap();
    std::fs::write(root.join("theirs/file"), "precious").unwrap();
    let taken = [
        ("a", "a.partial", "theirs"),
        ("b", "b.partial", "theirs/file"),
        ("c.tar", "c.tar.partial", "theirs/file"),
        ("d.tar", "d.tar.partial.journal", "nowhere"),
        ("e", "e.partial.lock", "theirs/file"),
    ];
    let (before, asked) = (files_below(&root.join("theirs")), registry.requests().len());
    for (out, link, to) in taken {
        std::os::unix::fs::symlink(root.join(to), root.join(link)).unwrap();
        let output = export(registry.host(), &root.join(out));
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{out}: {message}");
        assert!(message.contains(link) && message.contains("gapferry did not create it; remove it"), "{message}");
        assert!(root.join(link).is_symlink(), "{link}");
    }
    assert_eq!(registry.requests().len(), asked);
    assert_eq!(files_below(&root.join("theirs")), before);
}

#[test]
fn a_second_run_on_the_same_output_is_reported_and_disturbs_nothing() {
    let (registry, image) = large();
    let directory = tempdir();
    for name in ["b.tar", "b"] {
        let barrier = barrier_before_a_layer(&registry, &image);
        let out = directory.path().join(name);
        let reference = format!("{}/team/app:1", barrier.host());
        let mut command = gapferry_process();
        command.args(["export", &reference, "-o"]).arg(&out).stderr(Stdio::piped());
        let first = command.spawn().unwrap();
        barrier.wait();
        let second = export(barrier.host(), &out);
        let message = stderr(&second);
        assert_eq!(second.status.code(), Some(2), "{message}");
        assert!(message.contains("another gapferry is writing it") && message.contains(name), "{message}");
        barrier.open();
        let first = first.wait_with_output().unwrap();
        assert!(first.status.success(), "{}", stderr(&first));
        gapferry().arg("verify").arg(&out).assert().success();
    }
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
