//! `kill -9` in the middle of an export or import: a rerun finishes, and nothing is lost or wrong.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::barrier::Barrier;
use crate::support::cosign;
use crate::support::faulty::{Fault, Proxy, Stage};
use crate::support::images::{self, Image};
use crate::support::registry::Registry;
use crate::support::{gapferry, gapferry_process, gapferry_process_of, tempdir};

/// Images large enough to be interrupted, with content that does not compress.
fn large_images(source: &Registry) -> Vec<Image> {
    (0..6)
        .map(|n| {
            let contents: Vec<String> = (0..3u64).map(|layer| images::noise(n * 10 + layer, 3 << 20)).collect();
            let contents: Vec<&str> = contents.iter().map(String::as_str).collect();
            let image = images::oci(&format!("team/app{n}"), "1", &contents);
            image.push(source);
            image
        })
        .collect()
}

/// Runs gapferry and kills it as soon as `reached` is true; `true` if it was still running.
fn kill_when(arguments: &[&str], reached: impl Fn() -> bool) -> bool {
    let mut process = gapferry_process().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(Instant::now() < deadline, "the run neither ended nor reached the moment to kill it");
        if reached() {
            process.kill().unwrap();
            process.wait().unwrap();
            return true;
        }
        std::thread::yield_now();
    }
}

fn blob_gets(registry: &Registry) -> usize {
    registry.requests().iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).count()
}

#[test]
fn an_export_killed_at_any_point_resumes_and_gives_the_same_bundle() {
    let source = Registry::start();
    let images = large_images(&source);
    let references: Vec<String> = images.iter().map(|i| format!("{}/{}", source.host(), i.name())).collect();
    let directory = tempdir();
    let lock = directory.path().join("lock");
    let whole = directory.path().join("whole.tar");
    let mut command = gapferry();
    command.arg("export").args(&references).arg("-o").arg(&whole).arg("--lock").arg(&lock);
    command.assert().success();
    let expected = support::sha256_file(&whole);

    for name in ["killed.tar", "killed"] {
        let out = directory.path().join(name);
        let arguments =
            ["export", "--locked", lock.to_str().unwrap(), "-o", out.to_str().unwrap(), "-j", "2"].map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut killed = 0;
        for more in [1, 4, 5] {
            let goal = blob_gets(&source) + more;
            killed += usize::from(kill_when(&arguments, || blob_gets(&source) >= goal));
            assert!(!out.exists() || killed < 3, "nothing is published before it is complete");
        }
        let before = blob_gets(&source);
        gapferry().args(&arguments).assert().success();
        assert!(blob_gets(&source) - before < 24, "finished blobs are fetched again");
        gapferry().arg("verify").arg(&out).assert().success();
        if name.ends_with(".tar") {
            assert_eq!(support::sha256_file(&out), expected);
        }
        assert_only(directory.path(), &["lock", "whole.tar", "killed.tar", "killed"]);
    }
}

#[test]
fn a_blob_cut_off_by_a_pulled_cable_resumes_with_range() {
    let source = Registry::start();
    let image = images::oci("team/app", "1", &[&images::noise(1, 12 << 20)]);
    image.push(&source);
    let directory = tempdir();
    for name in ["pulled.tar", "pulled"] {
        let proxy = Proxy::before(source.host());
        let (reference, out) = (format!("{}/team/app:1", proxy.address), directory.path().join(name));
        let export = || {
            let mut command = gapferry();
            command.args(["export", &reference, "--retries", "0", "--json", "-o"]).arg(&out);
            command
        };
        let layer = image.blob_digests().pop().unwrap();
        proxy.when("GET", &format!("/blobs/{layer}")).fault(Fault::Truncate(6 << 20));
        export().assert().code(5);
        assert!(!out.exists());
        let ranges = source.count("GET", "/blobs/", 206);
        let result: serde_json::Value = serde_json::from_slice(&export().output().unwrap().stdout).unwrap();
        assert_eq!(source.count("GET", "/blobs/", 206), ranges + 1, "{name}");
        assert!(result["bytesMoved"].as_u64().unwrap() < 10 << 20, "{name}: {result}");
        gapferry().arg("verify").arg(&out).assert().success();
    }
}

#[test]
fn an_import_survives_a_connection_break_in_a_large_blob() {
    let (source, target) = (Registry::start(), Registry::start());
    // Compressed, the layer is slightly above the limit for large blobs.
    let image = images::oci("team/app", "1", &[&images::noise(1, 42 << 20)]);
    image.push(&source);
    let directory = tempdir();
    let bundle = directory.path().join("b");
    gapferry().args(["export", &format!("{}/team/app:1", source.host()), "-o"]).arg(&bundle).assert().success();
    let proxy = Proxy::before(target.host());
    proxy.when("PATCH", "/blobs/").times(2).fault(Fault::Reset(Stage::RequestBody(20 << 20)));
    gapferry().arg("import").arg(&bundle).args(["--to", &proxy.address]).assert().success();
    assert_eq!(target.digest("team/app", "1"), Some(image.digest()));
    assert_eq!(proxy.count("PATCH", "/"), 3);
}

/// Possible answers of a registry when a new run tries to resume an earlier upload.
#[test]
fn a_blob_is_uploaded_anew_if_the_registry_lost_the_earlier_session() {
    let source = Registry::start();
    let image = images::oci("team/app", "1", &[&images::noise(1, 12 << 20)]);
    image.push(&source);
    let directory = tempdir();
    let layer = &image.blob_digests()[1];
    for (n, fault) in [Fault::IgnoreRange, Fault::WrongRange, Fault::Status(416)].into_iter().enumerate() {
        for name in [format!("{n}.tar"), format!("{n}")] {
            let proxy = Proxy::before(source.host());
            let (reference, out) = (format!("{}/team/app:1", proxy.address), directory.path().join(&name));
            let export = || {
                let mut command = gapferry();
                command.args(["export", &reference, "--retries", "0", "--json", "-o"]).arg(&out);
                command
            };
            proxy.when("GET", layer).fault(Fault::Truncate(8 << 20));
            export().assert().code(5);
            proxy.when("GET", layer).fault(fault.clone());
            let result: serde_json::Value = serde_json::from_slice(&export().output().unwrap().stdout).unwrap();
            assert!(proxy.seen().iter().any(|request| request.range().is_some_and(|from| from >= 4 << 20)), "{name}");
            // The whole layer, which compresses a little.
            assert!(result["bytesMoved"].as_u64().unwrap() >= 10_000_000, "{fault:?}, {name}: {result}");
            gapferry().arg("verify").arg(&out).assert().success();
        }
    }
}

#[test]
fn leftovers_of_an_interrupted_run_are_verified_before_use() {
    let source = Registry::start();
    let image = images::oci("team/app", "1", &[&images::noise(1, 3 << 20)]);
    image.push(&source);
    let directory = tempdir();
    let (out, partial) = (directory.path().join("b"), directory.path().join("b.partial"));
    let reference = format!("{}/team/app:1", source.host());
    gapferry().args(["export", &reference, "-o"]).arg(&out).assert().success();
    // A power failure may leave a blob of the right length with wrong bytes, and half a blob with a wrong byte.
    std::fs::rename(&out, &partial).unwrap();
    let blobs = partial.join("blobs/sha256");
    for blob in image.blob_digests() {
        let path = blobs.join(blob.trim_start_matches("sha256:"));
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last / 4] ^= 1;
        if bytes.len() > 1 << 20 {
            bytes.truncate(last / 2);
            std::fs::remove_file(&path).unwrap();
            std::fs::write(path.with_extension("partial"), bytes).unwrap();
        } else {
            std::fs::write(&path, bytes).unwrap();
        }
    }
    gapferry().args(["export", &reference, "-o"]).arg(&out).assert().success();
    gapferry().arg("verify").arg(&out).assert().success();
}

/// No leftovers next to the results.
fn assert_only(directory: &Path, allowed: &[&str]) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(allowed.contains(&name.as_str()), "leftover: {name}");
    }
}

#[test]
fn an_import_killed_at_any_point_leaves_no_unpullable_tag() {
    let source = Registry::start();
    let images = large_images(&source);
    let references: Vec<String> = images.iter().map(|i| format!("{}/{}", source.host(), i.name())).collect();
    let directory = tempdir();
    let bundle = directory.path().join("b.tar");
    gapferry().arg("export").args(&references).arg("-o").arg(&bundle).assert().success();

    let target = Registry::start();
    let to = target.host().to_owned();
    let arguments = ["import", bundle.to_str().unwrap(), "--to", &to, "-j", "2"];
    for more in [1, 5, 9] {
        let goal = target.uploads() + more;
        kill_when(&arguments, || target.uploads() >= goal);
        for image in &images {
            let tag = image.tag.as_deref().unwrap();
            if target.digest(&image.repository, tag).is_some() {
                for blob in image.blob_digests() {
                    let path = format!("/v2/{}/blobs/{blob}", image.repository);
                    target.request("HEAD", &path).send().expect(200);
                }
            }
        }
    }
    gapferry().args(arguments).assert().success();
    for image in &images {
        let tag = image.tag.as_deref().unwrap();
        assert_eq!(target.digest(&image.repository, tag), Some(image.digest()));
    }
}

#[test]
fn images_complete_when_an_import_was_killed_can_be_pulled() {
    let (source, target) = (Registry::start(), Registry::start());
    let images = [("team/one", "the larger of the two"), ("team/two", "the smaller")].map(|(name, content)| {
        let image = images::oci(name, "1", &[content]);
        image.push(&source);
        image
    });
    let directory = tempdir();
    let bundle = directory.path().join("bundle");
    let references = images.each_ref().map(|image| format!("{}/{}", source.host(), image.name()));
    gapferry().arg("export").args(references).arg("-o").arg(&bundle).assert().success();
    // The upload of the second image is held forever.
    let barrier = Barrier::before(target.host(), "POST /v2/team/two/blobs/uploads/");
    let arguments = ["import", bundle.to_str().unwrap(), "--to", barrier.host(), "--tls-verify=false", "-j", "2"];
    let whole = || target.digest("team/one", "1").as_deref() == Some(images[0].digest().as_str());
    assert!(kill_when(&arguments, whole), "the import ended without its second image");
    assert_eq!(target.digest("team/two", "1"), None);
}

/// The receipt must record what arrived, for the next run too: only content that gapferry pushed may be pruned later.
#[test]
fn a_stopped_import_leaves_a_receipt_that_the_next_run_builds_on() {
    let (source, target, directory) = (Registry::start(), Registry::start(), tempdir());
    let images =
        [images::oci("team/large", "1", &[&images::noise(1, 100_000)]), images::oci("team/small", "1", &["x"])];
    let signatures = cosign::list(&images[1], "sig", &[cosign::signature(&images[1], "vendor")]);
    images.iter().chain([&signatures]).for_each(|image| image.push(&source));
    let references = images.iter().map(|image| format!("{}/{}", source.host(), image.name()));
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (bundle, receipt) = (path("b"), path("receipt"));
    gapferry().args(["export", "-o", &bundle]).args(references).assert().success();
    // Its signatures have their tags by then.
    let barrier = Barrier::before(target.host(), "PUT /v2/team/small/manifests/1 ");
    let import = ["import", &bundle, "--to", barrier.host(), "--receipt", &receipt, "-j", "1"];
    let mut process = gapferry_process().args(import).stderr(Stdio::null()).spawn().unwrap();
    barrier.wait();
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(130));
    let outcomes = || {
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
        let images = read["images"].as_array().unwrap().iter();
        let text =
            images.flat_map(|image| [image].into_iter().chain(image["companions"].as_array().into_iter().flatten()));
        text.map(|one| (one["outcome"].as_str().unwrap().to_owned(), one["brought"] == true)).collect::<Vec<_>>()
    };
    let text = |outcome: &str, brought: bool| (outcome.to_owned(), brought);
    assert_eq!(outcomes(), [text("pushed", false), text("failed", false), text("pushed", false)]);
    gapferry().args(import).assert().success();
    assert_eq!(outcomes(), [text("present", true), text("pushed", false), text("present", true)]);
    gapferry().args(import).assert().success();
    assert_eq!(outcomes(), vec![text("present", true); 3]);
}

/// A tag that no receipt claims can never be pruned.
#[test]
fn a_tag_set_while_an_import_is_stopping_counts_as_pushed() {
    let (source, directory) = (Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["x"]);
    image.push(&source);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (bundle, receipt) = (path("b"), path("receipt"));
    gapferry().args(["export", "-o", &bundle, &format!("{}/{}", source.host(), image.name())]).assert().success();
    // The tests may run under nohup.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    let is_ignored = u64::from_str_radix(ignored, 16).unwrap() & 1 == 1;
    let hangup = if is_ignored { (Signal::TERM, 143) } else { (Signal::HUP, 129) };
    for (signal, code) in [(Signal::INT, 130), hangup] {
        let target = Registry::start();
        let barrier = Barrier::before(target.host(), "PUT /v2/team/app/manifests/1 ");
        let import = ["import", &bundle, "--to", barrier.host(), "--receipt", &receipt, "--reupload"];
        let mut process = gapferry_process().args(import).stderr(Stdio::piped()).spawn().unwrap();
        barrier.wait();
        kill_process(Pid::from_child(&process), signal).unwrap();
        let mut message = BufReader::new(process.stderr.take().unwrap()).lines();
        assert!(message.any(|line| line.unwrap().contains("stopped")));
        barrier.open();
        assert_eq!(process.wait().unwrap().code(), Some(code));
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
        assert_eq!(read["images"][0]["outcome"], "pushed", "{read}");
    }
}

/// Under nohup, a command continues after its terminal closes.
#[test]
fn an_ignored_hangup_signal_stays_ignored() {
    let (registry, directory) = (Registry::start(), tempdir());
    let image = images::oci("team/app", "1", &["x"]);
    image.push(&registry);
    let barrier = Barrier::before(registry.host(), "GET /v2/team/app/manifests/");
    let out = directory.path().join("b");
    let script = "trap '' HUP; exec \"$0\" \"$@\"";
    let mut command = gapferry_process_of("sh".as_ref());
    command.args(["-c", script, env!("CARGO_BIN_EXE_gapferry"), "export", "-q", "-o"]).arg(&out);
    let mut process = command.arg(format!("{}/{}", barrier.host(), image.name())).spawn().unwrap();
    barrier.wait();
    kill_process(Pid::from_child(&process), Signal::HUP).unwrap();
    barrier.open();
    assert_eq!(process.wait().unwrap().code(), Some(0));
}
