//! `import -`.

use std::io::Write;
use std::process::Stdio;

use super::fixture::{Fixture, ended};
use crate::support::faulty::{Fault, Proxy};
use crate::support::gapferry_process_of;
use crate::support::images;
use crate::support::registry::Registry;

const WHOLE: usize = usize::MAX;

fn import<'a>(to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["import", "-", "--plain-http", "--to", to][..], more].concat()
}

fn to(target: &Registry) -> String {
    format!("{}/mirror", target.host())
}

/// The number of images at the target under their tags, each with its digest.
#[track_caller]
fn tagged(fixture: &Fixture, target: &Registry) -> usize {
    let found = fixture.images.iter().filter_map(|image| {
        let found = target.digest(&format!("mirror/{}", image.repository), image.tag.as_deref().unwrap())?;
        assert_eq!(found, image.digest());
        Some(found)
    });
    found.count()
}

#[test]
fn images_travel_from_registry_to_registry_through_a_pipe() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let to = to(&target);
    let mut export = fixture.streaming(&[]).stderr(Stdio::inherit()).spawn().unwrap();
    let import =
        fixture.process(&import(&to, &["--receipt", "receipt.json"])).stdin(export.stdout.take().unwrap()).output();
    assert!(export.wait().unwrap().success());
    ended(import.unwrap()).ended(0);
    assert_eq!(tagged(&fixture, &target), 4);
    let receipt: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture.path("receipt.json")).unwrap()).unwrap();
    assert!(receipt["confirmed"].as_array().unwrap().len() > 10, "{receipt}");
    // Existing content is checked and not sent again, neither from this stream nor from an ordinary tar.
    let uploads = target.uploads();
    fixture.run(&["export", "--locked", "images.lock", "-o", "plain.tar"]).ended(0);
    let plain = std::fs::read(fixture.path("plain.tar")).unwrap();
    fixture.piped(&self::import(&to, &[]), &plain, WHOLE).ended(0).reported(&["4 present"]);
    assert_eq!(target.uploads(), uploads);
}

#[test]
fn a_broken_pipe_loses_only_the_rest_and_a_rerun_brings_it() {
    let fixture = Fixture::new();
    let whole = std::fs::read(fixture.streamed("whole.tar", &[])).unwrap();
    let end = whole.len();
    let mut seen = Vec::new();
    for cut in [end - 1_000, end - 10_000, end - 1_000_000, end / 2, end / 4] {
        let target = Registry::start();
        let to = to(&target);
        let broken = fixture.piped(&import(&to, &[]), &whole[..cut], 50_000);
        let there = tagged(&fixture, &target);
        seen.push(there);
        match there {
            // Only the end marker was missing.
            4 => drop(broken.ended(3).reported(&["cut short", "1 problem"])),
            _ => drop(broken.ended(1).reported(&["not received", "cut short"])),
        }
        let before = target.uploads();
        fixture.piped(&import(&to, &[]), &whole, 50_000).ended(0);
        assert_eq!(tagged(&fixture, &target), 4, "cut at {cut}");
        let blobs: std::collections::HashSet<&Vec<u8>> = fixture
            .images
            .iter()
            .flat_map(|image| image.blobs.iter().chain(image.children.iter().flat_map(|c| &c.blobs)))
            .collect();
        assert!(target.uploads() <= blobs.len() + usize::from(before > 0), "{before}, {}", target.uploads());
    }
    assert!(seen.iter().any(|there| (1..4).contains(there)), "{seen:?}");
}

/// Among five thousand identical messages, nobody could find the reason.
#[test]
fn images_that_fail_for_one_reason_are_reported_once() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let whole = std::fs::read(fixture.streamed("whole.tar", &[])).unwrap();
    let broken = fixture.piped(&import(&to(&target), &[]), &whole[..whole.len() / 4], 50_000).ended(1);
    let images: Vec<&str> = broken.stderr.lines().filter(|line| line.starts_with("failed: ")).collect();
    assert_eq!(images.len(), 4 - tagged(&fixture, &target), "{images:#?}");
    assert!(images.len() > 1 && images[0].contains(": not received: "), "{images:#?}");
    assert!(images[1..].iter().all(|image| image.ends_with(": for the same reason")), "{images:#?}");
    assert_eq!(broken.stderr.matches("hint: send the whole stream again").count(), 1, "{}", broken.stderr);
}

/// A pipe is faster than a registry, and five thousand images have more small blobs than a process may have open files.
#[test]
fn hundreds_of_waiting_small_blobs_need_no_file_each() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let layers: Vec<String> = (0..300).map(|number| format!("layer {number}")).collect();
    let image = images::oci("team/many", "1", &layers.iter().map(String::as_str).collect::<Vec<&str>>());
    image.push(&fixture.registry);
    let name = format!("{}/{}", fixture.registry.host(), image.name());
    fixture.run(&["export", "-q", &name, "-o", "many.tar"]).ended(0);
    let script = format!("ulimit -n 190; cat many.tar | \"$0\" import - --plain-http --to {}", to(&target));
    let mut import = gapferry_process_of("sh".as_ref());
    import.args(["-c", &script, env!("CARGO_BIN_EXE_gapferry")]).current_dir(fixture.path(""));
    ended(import.output().unwrap()).ended(0);
    assert_eq!(target.digest("mirror/team/many", "1"), Some(image.digest()));
}

#[test]
fn a_wrong_byte_fails_only_the_images_that_contain_it() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let mut bytes = std::fs::read(fixture.streamed("whole.tar", &[])).unwrap();
    // A blob of the second image only.
    let digest = gapferry::oci::Digest::sha256(&fixture.images[1].blobs[2]);
    let header = 512 * (0..).find(|at| bytes[at * 512..].starts_with(digest.blob_path().as_bytes())).unwrap();
    bytes[header + 600] ^= 1;
    // As from a file: the same bytes would be damaged again.
    fixture.piped(&import(&to(&target), &[]), &bytes, WHOLE).ended(3).reported(&["wrong digest", &digest.to_string()]);
    assert_eq!(tagged(&fixture, &target), 3);
}

#[test]
fn metadata_of_a_stream_is_verified_before_the_first_push() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let (to, whole) = (to(&target), std::fs::read(fixture.streamed("whole.tar", &[])).unwrap());
    let find = |name: &str| 512 * (0..).find(|at| whole[at * 512..].starts_with(name.as_bytes())).unwrap();
    for name in ["bundle.json", "index.json", "SHA256SUMS", "blobs/"] {
        let mut bytes = whole.clone();
        bytes[find(name) + 512 + 30] ^= 1;
        fixture.piped(&import(&to, &[]), &bytes, WHOLE).ended(3).reported(&["nothing was pushed"]);
        fixture.piped(&import(&to, &[]), &whole[..find(name) + 512], WHOLE).ended(3);
    }
    fixture.piped(&import(&to, &["--verify-first"]), &whole, WHOLE).ended(2).reported(&["--verify-first cannot"]);
    fixture.piped(&import(&to, &["--allow", "-"]), &whole, WHOLE).ended(2).reported(&["cannot be both"]);
    let planned = fixture.piped(&import(&to, &["--dry-run"]), &whole, WHOLE).ended(0);
    assert!(planned.stdout.contains("4 images"), "{}", planned.stdout);
    assert_eq!((target.uploads(), tagged(&fixture, &target)), (0, 0));
}

#[test]
fn data_after_the_bundle_is_reported_and_ignored() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let whole = std::fs::read(fixture.streamed("whole.tar", &[])).unwrap();
    let twice = [&whole[..], &whole[..]].concat();
    fixture.piped(&import(&to(&target), &[]), &twice, WHOLE).ended(3).reported(&["hidden after the end mark"]);
    assert_eq!(tagged(&fixture, &target), 4);
}

#[test]
fn a_failed_upload_is_retried_after_its_bytes_left_the_pipe() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let proxy = Proxy::before(target.host());
    proxy.when("PATCH", "/blobs/uploads/").times(3).fault(Fault::Status(503));
    proxy.when("PUT", "/blobs/uploads/").times(3).fault(Fault::Status(503));
    let whole = std::fs::read(fixture.streamed("whole.tar", &[])).unwrap();
    let to = format!("{}/mirror", proxy.address);
    fixture.piped(&import(&to, &[]), &whole, WHOLE).ended(0);
    assert_eq!(tagged(&fixture, &target), 4);
}

#[test]
fn a_killed_import_from_a_pipe_resumes() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let (to, whole) = (to(&target), std::fs::read(fixture.streamed("whole.tar", &[])).unwrap());
    let mut child = fixture.process(&import(&to, &[])).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&whole[..whole.len() - 100_000]).unwrap();
    // The pipe stays open: the import waits for more, with most blobs pushed.
    while target.uploads() < 3 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stdin);
    fixture.piped(&import(&to, &[]), &whole, WHOLE).ended(0);
    assert_eq!(tagged(&fixture, &target), 4);
}

#[test]
fn an_increment_from_a_pipe_reports_missing_content_before_the_first_push() {
    let (fixture, target) = (Fixture::new(), Registry::start());
    let to = to(&target);
    let base = std::fs::read(fixture.streamed("base.tar", &[])).unwrap();
    fixture.piped(&import(&to, &["--receipt", "receipt.json"]), &base, WHOLE).ended(0);
    // The next version has the same large layer and a new small one.
    let next = images::oci("team/one", "2", &[&images::noise(1, 5_000_000), "another small one"]);
    next.push(&fixture.registry);
    let name = format!("{}/{}", fixture.registry.host(), next.name());
    let export = fixture.process(&["export", &name, "--since", "receipt.json", "-o", "-"]).output().unwrap();
    let increment = export.stdout.clone();
    ended(export).ended(0);
    assert!(increment.len() < base.len() / 10, "{} of {}", increment.len(), base.len());
    fixture.piped(&["verify", "-"], &increment, WHOLE).ended(0);
    let uploads = target.uploads();
    fixture.piped(&import(&to, &[]), &increment, WHOLE).ended(0);
    assert_eq!(target.digest("mirror/team/one", "2"), Some(next.digest()));
    assert_eq!(target.uploads(), uploads + 2, "a config and a layer");
    let empty = Registry::start();
    let elsewhere = format!("{}/mirror", empty.host());
    fixture.piped(&import(&elsewhere, &[]), &increment, WHOLE).ended(7).reported(&["nothing was pushed"]);
    assert_eq!(empty.uploads(), 0);
}
