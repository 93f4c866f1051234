//! The whole job between two real registries: allowlist → bundle → verify → import → the same digests.

use std::path::{Path, PathBuf};

use crate::support;
use crate::support::images::{self, Corpus, Pushed};
use crate::support::registry::Registry;
use crate::support::{gapferry, skopeo, tempdir};

/// Exports `references` to `out`; fails the test if that fails. Returns stderr.
fn export(references: &[&str], out: &Path, options: &[&str]) -> String {
    let output = gapferry().arg("export").args(references).arg("-o").arg(out).args(options).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

fn verify(bundle: &Path) {
    gapferry().arg("verify").arg(bundle).assert().success();
}

/// Imports `bundle` below `project` of `target`; fails the test if that fails. Returns stderr.
fn import(bundle: &Path, target: &Registry, options: &[&str]) -> String {
    let to = format!("{}/project", target.host());
    let output = gapferry().arg("import").arg(bundle).arg("--to").arg(to).args(options).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// Maps `127.0.0.1:PORT/a/b:tag` of the source to `project/a/b` and `tag` at the target.
fn at_target(pushed: &Pushed) -> (String, String) {
    let path = pushed.reference.split_once('/').unwrap().1;
    let (repository, tag) = path.rsplit_once(':').unwrap();
    (format!("project/{repository}"), tag.to_owned())
}

fn outs(directory: &Path) -> [PathBuf; 2] {
    [directory.join("bundle"), directory.join("bundle.tar")]
}

#[test]
fn every_kind_of_image_arrives_with_its_digest_in_both_forms_of_the_bundle() {
    let source = Registry::start();
    let pushed = Corpus::everything().push(&source);
    let references: Vec<&str> = pushed.iter().map(|image| image.reference.as_str()).collect();
    let directory = tempdir();
    for out in outs(directory.path()) {
        export(&references, &out, &[]);
        verify(&out);
        let target = Registry::start();
        import(&out, &target, &[]);
        for image in &pushed {
            let (repository, tag) = at_target(image);
            assert_eq!(target.digest(&repository, &tag).as_deref(), Some(image.digest.as_str()), "{}", image.reference);
            let name = format!("docker://{}/{repository}:{tag}", target.host());
            assert_eq!(skopeo::digest(&name), image.digest, "skopeo reads {name}");
        }
    }
}

#[test]
fn signatures_and_referrers_arrive_with_their_subjects() {
    let source = Registry::start();
    let image = images::oci_index("team/app", "1.0", "signed content");
    image.push(&source);
    let sbom = images::referrer(&image, "application/spdx+json", b"sbom of the index");
    let child_sbom = images::referrer(&image.children[0], "application/spdx+json", b"sbom of a child");
    let of_sbom = images::referrer(&sbom, "application/x-signature", b"signature of the sbom");
    for artifact in [&sbom, &child_sbom, &of_sbom] {
        artifact.push(&source);
    }
    images::referrers_tag(&image, std::slice::from_ref(&sbom)).push(&source);
    images::referrers_tag(&image.children[0], std::slice::from_ref(&child_sbom)).push(&source);
    images::referrers_tag(&sbom, std::slice::from_ref(&of_sbom)).push(&source);
    let signature = images::cosign_signature(&image);
    signature.push(&source);

    let directory = tempdir();
    let out = directory.path().join("bundle");
    export(&[&format!("{}/team/app:1.0", source.host())], &out, &[]);
    verify(&out);
    let target = Registry::start();
    import(&out, &target, &[]);
    for artifact in [&sbom, &child_sbom, &of_sbom] {
        assert_eq!(target.digest("project/team/app", &artifact.digest()), Some(artifact.digest()));
    }
    // distribution 2.8 has no referrers API, so the fallback tag must list them.
    for (subject, referrer) in [(&image, &sbom), (&image.children[0], &child_sbom), (&sbom, &of_sbom)] {
        let tag = subject.digest().replace(':', "-");
        let index = target.manifest("project/team/app", &tag).expect(200).json();
        assert_eq!(index["manifests"][0]["digest"], referrer.digest().as_str(), "{index}");
    }
    let tag = signature.tag.clone().unwrap();
    assert_eq!(target.digest("project/team/app", &tag), Some(signature.digest()));

    let without = directory.path().join("without");
    export(&[&format!("{}/team/app:1.0", source.host())], &without, &["--no-referrers"]);
    let listed = gapferry().arg("list").arg(&without).arg("--json").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(!listed.contains(&signature.digest()), "{listed}");
}

#[test]
fn a_blob_that_images_share_crosses_each_network_once() {
    let source = Registry::start();
    let shared = ["the base layer that all share"];
    for name in ["one", "two", "three"] {
        images::oci(&format!("team/{name}"), "1", &[shared[0], name]).push(&source);
    }
    let references = ["one", "two", "three"].map(|name| format!("{}/team/{name}:1", source.host()));
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let directory = tempdir();
    let out = directory.path().join("b.tar");
    let before = source.requests().len();
    export(&references, &out, &[]);
    let gets = source.requests()[before..].iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).count();
    // The shared base once, three layers of single images, three configs.
    assert_eq!(gets, 7);
    let target = Registry::start();
    import(&out, &target, &[]);
    assert_eq!(target.uploads(), 7, "{:#?}", target.requests());
}

#[test]
fn a_config_that_many_tags_share_is_read_once() {
    let source = Registry::start();
    let image = images::oci("a", "0", &["x"]);
    let tags: Vec<String> = (0..12).map(|n| n.to_string()).collect();
    tags.iter().for_each(|tag| image.named("a", tag).push(&source));
    let directory = tempdir();
    let before = source.requests().len();
    export(&[&format!("{}/a", source.host())], &directory.path().join("b"), &["-j", "12"]);
    let gets = source.requests()[before..].iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).count();
    assert_eq!(gets, 2, "one config, one layer");
}

#[test]
fn a_second_run_transfers_nothing() {
    let source = Registry::start();
    let pushed = Corpus::everything().push(&source);
    let references: Vec<&str> = pushed.iter().map(|image| image.reference.as_str()).collect();
    let directory = tempdir();
    for out in outs(directory.path()) {
        export(&references, &out, &[]);
        let before = source.requests().len();
        let sum = |out: &Path| if out.is_file() { vec![support::sha256_file(out)] } else { vec![] };
        let first = sum(&out);
        export(&references, &out, &[]);
        assert_eq!(sum(&out), first);
        let again = &source.requests()[before..];
        assert!(!again.iter().any(|r| r.method == "GET" && r.path.contains("/blobs/")), "{again:#?}");
    }
    let target = Registry::start();
    let out = directory.path().join("bundle.tar");
    import(&out, &target, &[]);
    let before = target.requests().len();
    import(&out, &target, &[]);
    let again = &target.requests()[before..];
    assert!(!again.iter().any(|r| matches!(r.method.as_str(), "POST" | "PUT" | "PATCH")), "{again:#?}");
}

#[test]
fn the_same_lock_gives_the_same_tar() {
    let source = Registry::start();
    let pushed = Corpus::everything().push(&source);
    let references: Vec<&str> = pushed.iter().map(|image| image.reference.as_str()).collect();
    let directory = tempdir();
    let lock = directory.path().join("images.lock");
    let first = directory.path().join("first.tar");
    export(&references, &first, &["--lock", lock.to_str().unwrap()]);
    let sums: Vec<String> = ["second.tar", "third.tar"]
        .iter()
        .zip([["-j", "1"], ["-j", "16"]])
        .map(|(name, jobs)| {
            let out = directory.path().join(name);
            let locked = lock.to_str().unwrap();
            export(&[], &out, &["--locked", locked, jobs[0], jobs[1]]);
            support::sha256_file(&out)
        })
        .collect();
    assert_eq!(sums, [support::sha256_file(&first), support::sha256_file(&first)]);
}

#[test]
fn source_date_epoch_makes_independent_exports_equal() {
    let source = Registry::start();
    images::oci("a", "1", &["x"]).push(&source);
    let directory = tempdir();
    let sums = ["one.tar", "two.tar"].map(|name| {
        let out = directory.path().join(name);
        let reference = format!("{}/a:1", source.host());
        let run =
            gapferry().env("SOURCE_DATE_EPOCH", "1700000000").args(["export", &reference, "-o"]).arg(&out).output();
        assert!(run.unwrap().status.success());
        support::sha256_file(&out)
    });
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn a_lock_whose_content_is_gone_names_the_moved_tags() {
    let source = Registry::start();
    let old = images::oci("a", "1", &["old"]);
    old.push(&source);
    let directory = tempdir();
    let lock = directory.path().join("lock.json");
    let reference = format!("{}/a:1", source.host());
    gapferry().args(["lock", &reference, "-o"]).arg(&lock).assert().success();
    let new = images::oci("a", "1", &["new"]);
    new.push(&source);
    source.request("DELETE", &format!("/v2/a/manifests/{}", old.digest())).send().expect(202);
    let out = directory.path().join("b.tar");
    let run = gapferry().args(["export", "--locked"]).arg(&lock).arg("-o").arg(&out).output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(4), "{stderr}");
    assert!(
        stderr.contains(&reference) && stderr.contains(&old.digest()) && stderr.contains(&new.digest()),
        "{stderr}"
    );
    assert!(!out.exists());
}

#[test]
fn a_moved_tag_whose_old_content_is_still_there_is_exported_as_locked() {
    let source = Registry::start();
    let old = images::oci("a", "1", &["old"]);
    old.push(&source);
    let directory = tempdir();
    let lock = directory.path().join("lock.json");
    let reference = format!("{}/a:1", source.host());
    gapferry().args(["lock", &reference, "-o"]).arg(&lock).assert().success();
    images::oci("a", "1", &["new"]).push(&source);
    let out = directory.path().join("b");
    export(&[], &out, &["--locked", lock.to_str().unwrap()]);
    assert_eq!(skopeo::digest(&format!("oci:{}:{reference}", out.display())), old.digest());
}

#[test]
fn an_index_can_be_trimmed_kept_sparse_or_reduced_to_one_platform() {
    let source = Registry::start();
    let index = images::oci_index("a", "1", "multi");
    index.push(&source);
    let reference = format!("{}/a:1", source.host());
    let directory = tempdir();
    let target = Registry::start();
    let amd64 = index.children[0].digest();

    let trimmed = directory.path().join("trimmed");
    export(&[&reference], &trimmed, &["--platform", "linux/amd64", "--index", "trim"]);
    verify(&trimmed);
    import(&trimmed, &target, &[]);
    let json = target.manifest("project/a", "1").expect(200).json();
    let left: Vec<&str> = json["manifests"].as_array().unwrap().iter().filter_map(|m| m["digest"].as_str()).collect();
    assert!(left.contains(&amd64.as_str()) && !left.contains(&index.children[1].digest().as_str()), "{json}");
    let bundle = std::fs::read_to_string(trimmed.join("bundle.json")).unwrap();
    assert!(bundle.contains(&index.digest()), "the old digest is recorded");

    let single = directory.path().join("single");
    // The default for one platform: the digest it has upstream.
    export(&[&reference], &single, &["--platform", "linux/amd64"]);
    verify(&single);
    import(&single, &target, &[]);
    assert_eq!(target.digest("project/a", "1"), Some(amd64));

    let sparse = directory.path().join("sparse.tar");
    export(&[&reference], &sparse, &["--platform", "linux/amd64", "--index", "sparse"]);
    verify(&sparse);
    // distribution refuses an index with missing children: the error must suggest a remedy.
    let empty = Registry::start();
    let run = gapferry().arg("import").arg(&sparse).args(["--to", empty.host()]).output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("--index trim"), "{stderr}");
}

#[test]
fn a_missing_platform_or_a_broken_digest_pin_is_refused() {
    let source = Registry::start();
    let index = images::oci_index("a", "1", "multi");
    index.push(&source);
    let directory = tempdir();
    let out = directory.path().join("b.tar");
    images::oci("single", "1", &["amd64 only"]).push(&source);
    for (reference, platform, says) in [
        (format!("{}/a:1", source.host()), "linux/s390x", "available platforms: linux/amd64, linux/arm64"),
        (format!("{}/single:1", source.host()), "linux/arm64", "available platforms: linux/amd64"),
        (format!("{}/a@{}", source.host(), index.digest()), "linux/amd64", "pinned by digest"),
    ] {
        let run = gapferry().args(["export", &reference, "--platform", platform, "-o"]).arg(&out).output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
        assert!(!out.exists());
    }
}

#[test]
fn dry_runs_write_nothing() {
    let source = Registry::start();
    images::oci("a", "1", &["x"]).push(&source);
    let reference = format!("{}/a:1", source.host());
    let directory = tempdir();
    let out = directory.path().join("b.tar");
    let run = gapferry().args(["export", &reference, "--dry-run", "-o"]).arg(&out).output().unwrap();
    assert!(run.status.success());
    let stdout = String::from_utf8_lossy(&run.stdout);
    assert!(stdout.contains(&reference) && stdout.contains("linux/amd64"), "{stdout}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    // The export makes a lock with a later time: an operator must not read these words to the other side.
    assert!(!stdout.contains("\nfingerprint ") && stdout.contains("known after the export"), "{stdout}");

    export(&[&reference], &out, &[]);
    let target = Registry::start();
    let run = gapferry().arg("import").arg(&out).args(["--to", target.host(), "--dry-run"]).output().unwrap();
    assert!(run.status.success());
    assert!(!target.requests().iter().any(|r| r.method != "GET" && r.method != "HEAD"), "{:#?}", target.requests());

    let again = directory.path().join("again.tar");
    let run =
        gapferry().arg("export").arg("--locked").arg(&out).arg("--dry-run").arg("-o").arg(&again).output().unwrap();
    let stdout = String::from_utf8_lossy(&run.stdout);
    let fingerprint = gapferry().arg("fingerprint").arg(&out).output().unwrap();
    let fingerprint = String::from_utf8_lossy(&fingerprint.stdout);
    let words = fingerprint.lines().next().expect("the words");
    assert!(stdout.contains(words), "{stdout}: {words}");
}

/// `/mnt/usb/today` without the stick mounted is a directory on the wrong disk.
#[test]
fn a_directory_that_an_export_creates_for_its_output_is_announced() {
    let source = Registry::start();
    images::oci("a", "1", &["x"]).push(&source);
    let reference = format!("{}/a:1", source.host());
    let directory = tempdir();
    let out = directory.path().join("usb/today/b.tar");
    let export = || {
        let run = gapferry().args(["export", &reference, "-o"]).arg(&out).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8_lossy(&run.stderr).contains("usb/today does not exist and will be created")
    };
    assert_eq!((export(), export()), (true, false));
}

#[test]
fn all_missing_images_are_named_at_once_and_nothing_is_published() {
    let source = Registry::start();
    images::oci("a", "1", &["x"]).push(&source);
    let host = source.host();
    let directory = tempdir();
    let out = directory.path().join("b");
    let (gone, nowhere, good) = (format!("{host}/a:gone"), format!("{host}/nowhere:1"), format!("{host}/a:1"));
    let run = gapferry().args(["export", &gone, &nowhere, &good, "-o"]).arg(&out).output().unwrap();
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains(&gone) && stderr.contains(&nowhere), "{stderr}");
    assert!(!out.exists());
}

#[test]
fn skopeo_reads_the_bundle_as_an_oci_layout_and_as_an_archive() {
    let source = Registry::start();
    let image = images::oci("team/app", "1.0", &["one"]);
    image.push(&source);
    images::docker("team/other", "2", &["two"]).push(&source);
    let reference = format!("{}/team/app:1.0", source.host());
    let directory = tempdir();
    let [dir, tar] = outs(directory.path());
    let both = [reference.as_str(), &format!("{}/team/other:2", source.host())];
    export(&both, &dir, &[]);
    export(&both, &tar, &[]);
    assert_eq!(skopeo::digest(&format!("oci:{}:{reference}", dir.display())), image.digest());
    assert_eq!(skopeo::digest(&format!("oci-archive:{}:{reference}", tar.display())), image.digest());
    let sums = std::process::Command::new("sha256sum").args(["-c", "--quiet", "SHA256SUMS"]).current_dir(&dir).status();
    assert!(sums.unwrap().success());
}

#[test]
fn omitted_foreign_layers_are_reported() {
    let source = Registry::start();
    let image = images::with_foreign_layer("win", "1");
    image.push(&source);
    let directory = tempdir();
    let out = directory.path().join("b");
    let stderr = export(&[&format!("{}/win:1", source.host())], &out, &[]);
    assert!(stderr.contains("foreign layer"), "{stderr}");
    verify(&out);
}

#[test]
fn foreign_layers_are_fetched_from_their_urls_on_request() {
    let (source, elsewhere) = (Registry::start(), Registry::start());
    let layer = images::layer_tar("windows", b"a base layer that registries do not hold");
    images::push_blob(&elsewhere, "base", &layer);
    let digest = support::sha256(&layer);
    let mut image = images::oci("win", "1", &["own layer"]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let layers = manifest["layers"].as_array_mut().unwrap();
    layers.push(serde_json::json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": digest, "size": layer.len(),
        "urls": ["http://127.0.0.1:9/nowhere", format!("{}/v2/base/blobs/{digest}", elsewhere.url())],
    }));
    image.manifest = serde_json::to_vec(&manifest).unwrap();
    image.push(&source);
    let directory = tempdir();
    let out = directory.path().join("b");
    export(&[&format!("{}/win:1", source.host())], &out, &["--foreign-layers"]);
    verify(&out);
    assert!(out.join("blobs").join(digest.replace(':', "/")).exists());
}

#[test]
fn a_missing_foreign_layer_is_named_with_its_url_and_a_remedy() {
    let (source, elsewhere) = (Registry::start(), Registry::start());
    let mut image = images::with_foreign_layer("win", "1");
    let (gone, away) = (format!("{}/v2/gone", elsewhere.url()), "http://127.0.0.1:9/away".to_owned());
    for (url, why, code) in [(gone, "404", 4), (away, "refused", 5)] {
        let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        manifest["layers"][0]["urls"] = serde_json::json!([url]);
        image.manifest = serde_json::to_vec(&manifest).unwrap();
        image.push(&source);
        let directory = tempdir();
        let reference = format!("{}/win:1", source.host());
        let arguments = ["export", &reference, "--foreign-layers", "--retries", "0", "-o"];
        let run = gapferry().args(arguments).arg(directory.path().join("b")).output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(&url) && stderr.contains(why), "{stderr}");
        let hint = stderr.split("hint: ").nth(1).unwrap_or_default();
        assert!(
            hint.contains("leave out --foreign-layers") && !stderr.contains("push the image there again"),
            "{stderr}"
        );
    }
}

#[test]
fn one_missing_blob_is_one_problem_however_many_images_need_it() {
    let source = Registry::start();
    let shared = images::oci("one", "1", &["shared by both", "own"]);
    shared.push(&source);
    images::oci("two", "1", &["shared by both"]).push(&source);
    let directory = tempdir();
    let out = directory.path().join("b");
    export(&[&format!("{}/one:1", source.host()), &format!("{}/two:1", source.host())], &out, &[]);
    let manifest: serde_json::Value = serde_json::from_slice(&shared.manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    std::fs::remove_file(out.join("blobs").join(&layer)).unwrap();
    let run = gapferry().arg("verify").arg(&out).arg("--json").output().unwrap();
    assert_eq!(run.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "{report}");
    assert_eq!(problems[0]["images"].as_array().unwrap().len(), 2, "{report}");
}

/// One bundle of every format version that was ever released is kept, `fixtures/bundle-format-N.tar`.
#[test]
fn bundles_of_every_format_version_stay_readable() {
    for number in 1..=gapferry::bundle::FORMAT_VERSION {
        let name = format!("fixtures/bundle-format-{number}.tar");
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
        assert!(kept.is_file(), "{name} is missing: keep a bundle of every version");
        verify(&kept);
        let target = Registry::start();
        import(&kept, &target, &[]);
        assert_eq!(target.tags("project/team/legacy"), ["7"], "{name}");
        // An index of two platforms, with an attestation and an SBOM that refers to it.
        let index = target.manifest("project/team/app", "2.1").expect(200).json();
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(3), "{name}: {index}");
    }
}

/// The bundle may be the only copy of its content.
#[test]
fn a_bundle_from_before_0_2_is_refused_with_a_remedy_and_not_overwritten() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bundle-draft.tar");
    let directory = tempdir();
    let old = directory.path().join("old.tar");
    std::fs::copy(&kept, &old).unwrap();
    let source = Registry::start();
    let image = images::oci("team/app", "1", &["a layer"]);
    image.push(&source);
    let reference = format!("{}/{}", source.host(), image.name());
    let volumes = directory.path().join("v.tar");
    let volumes = volumes.to_str().unwrap();
    let commands: [&[&str]; 6] = [
        &["verify"],
        &["list"],
        &["fingerprint"],
        &["import", "--to", "127.0.0.1:9"],
        &["split", "-o", volumes, "--volume-size", "1GB"],
        &["export", reference.as_str(), "-o"],
    ];
    for arguments in commands {
        let run = gapferry().args(arguments).arg(&old).output().unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("was written by gapferry before version 0.2; export the bundle again"),
            "{arguments:?}: {stderr}"
        );
    }
    assert!(std::fs::read(&old).unwrap() == std::fs::read(&kept).unwrap());
}
