//! A connected-side registry with a small corpus, and the faulty connection to it; checks of a bundle and a target.

use std::path::{Path, PathBuf};

use gapferry::oci::media_type;
use serde_json::Value;

use crate::soak::process::program;
use crate::support::faulty::{Answer, Proxy, Seen, exchange};
use crate::support::images::{self, Image};
use crate::support::registry::Registry;
use crate::support::{files_below, sha256, tempdir};

/// The time recorded in every bundle, so that all have the same bytes.
pub const EPOCH: &str = "1767225600";

/// The connected side of one lane.
pub struct TestSite {
    pub proxy: Proxy,
    pub images: Vec<Image>,
    pub references: Vec<String>,
    /// Bundles made without faults.
    tar: Vec<u8>,
    directory: Vec<(String, Vec<u8>)>,
    pub lock: PathBuf,
    _kept: tempfile::TempDir,
    _source: Registry,
}

impl TestSite {
    pub fn new(seed: u64) -> TestSite {
        let source = Registry::start();
        let images = corpus(seed);
        images.iter().for_each(|image| image.push(&source));
        let proxy = Proxy::with_tokens(source.host());
        let named = images.iter().filter(|image| is_named(image));
        let references: Vec<String> = named.map(|image| format!("{}/{}", proxy.address, image.name())).collect();
        let kept = tempdir();
        let at = |name: &str| kept.path().join(name);
        for out in ["bundle.tar", "bundle"] {
            let mut export = program();
            export.env("SOURCE_DATE_EPOCH", EPOCH).arg("export").args(&references);
            export.arg("-o").arg(at(out)).arg("--lock").arg(at("lock"));
            let output = export.output().expect("the program");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let (tar, directory) = (std::fs::read(at("bundle.tar")).expect("the tar"), files_below(&at("bundle")));
        TestSite { proxy, images, references, tar, directory, lock: at("lock"), _kept: kept, _source: source }
    }

    /// Checks that a bundle with its final name is complete and correct.
    pub fn check_bundle(&self, path: &Path) -> Result<(), String> {
        let wrong = match path.extension() {
            Some(_) => (std::fs::read(path).map_err(|e| e.to_string())? != self.tar).then(String::new),
            None => different(&files_below(path), &self.directory),
        };
        let fault = |what: String| Err(format!("{} is there, and not what it should be: {what}", path.display()));
        wrong.map_or(Ok(()), fault)
    }
}

/// The first file that differs between two directories, or that only one of them has.
fn different(found: &[(String, Vec<u8>)], right: &[(String, Vec<u8>)]) -> Option<String> {
    let not_in = |files: &[(String, Vec<u8>)], all: &[(String, Vec<u8>)]| {
        files.iter().find(|file| !all.contains(file)).map(|(name, _)| name.clone())
    };
    not_in(found, right).or_else(|| not_in(right, found))
}

/// All images, including signatures.
fn corpus(seed: u64) -> Vec<Image> {
    let noise = |n: u64, length| images::noise(seed ^ (n << 32), length);
    let base = noise(1, 300_000);
    let app = images::oci("team/app", "1", &[&base, &noise(2, 120_000)]);
    let sbom = images::referrer(&app, "application/spdx+json", noise(3, 5_000).as_bytes());
    vec![
        images::oci("team/base", "1", &[&base]),
        images::docker("team/docker", "1", &[&base, &noise(4, 700_000)]),
        images::oci_index("library/multi", "1", &noise(5, 60_000)),
        images::cosign_signature(&app),
        images::referrers_tag(&app, &[sbom]),
        app.named("team/copy", "2"),
        app,
    ]
}

fn is_named(image: &Image) -> bool {
    image.tag.as_deref().is_some_and(|tag| !tag.starts_with("sha256-"))
}

/// Whether an image at a registry is complete and correct (`true`) or absent (`false`).
pub fn look(registry: &str, image: &Image) -> Result<bool, String> {
    let tag = image.tag.clone().unwrap_or_else(|| image.digest());
    let name = image.name();
    let Some(found) = manifest(registry, &image.repository, &tag)? else { return Ok(false) };
    if is_named(image) && found != image.manifest {
        return Err(format!("{name} is {} at the target instead of {}", sha256(&found), image.digest()));
    }
    below(registry, &image.repository, &found).map_err(|what| format!("{name} is at the target, but {what}"))?;
    Ok(true)
}

/// Checks that everything a manifest refers to exists with the right size and, for manifests, the right bytes.
fn below(registry: &str, repository: &str, bytes: &[u8]) -> Result<(), String> {
    let view: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    for child in view["manifests"].as_array().into_iter().flatten() {
        let digest = child["digest"].as_str().unwrap_or_default();
        let found = manifest(registry, repository, digest)?.ok_or(format!("manifest {digest} is not"))?;
        if sha256(&found) != digest {
            return Err(format!("manifest {digest} is {}", sha256(&found)));
        }
        below(registry, repository, &found)?;
    }
    for blob in view["layers"].as_array().into_iter().flatten().chain(view.get("config")) {
        let digest = blob["digest"].as_str().unwrap_or_default();
        let answer = ask(registry, "HEAD", &format!("/v2/{repository}/blobs/{digest}"))?;
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        if answer.status != 200 || length != blob["size"].as_u64() {
            return Err(format!("blob {digest} is {} with {length:?} bytes", answer.status));
        }
    }
    Ok(())
}

/// Reads every byte of every blob below an image.
pub fn prove(registry: &str, image: &Image) -> Result<(), String> {
    for digest in image.blob_digests() {
        let answer = ask(registry, "GET", &format!("/v2/{}/blobs/{digest}", image.repository))?;
        if answer.status != 200 || sha256(&answer.body) != digest {
            return Err(format!("{}: blob {digest} is {} {}", image.name(), answer.status, sha256(&answer.body)));
        }
    }
    Ok(())
}

fn manifest(registry: &str, repository: &str, reference: &str) -> Result<Option<Vec<u8>>, String> {
    let answer = ask(registry, "GET", &format!("/v2/{repository}/manifests/{reference}"))?;
    match answer.status {
        200 => Ok(Some(answer.body)),
        404 => Ok(None),
        other => Err(format!("{repository} {reference}: {other}")),
    }
}

/// Asks the registry directly, not through the faulty connection. distribution 2.8 answers 500 for a moment while the
/// same blob is uploaded again, because it does not replace its link files atomically.
fn ask(registry: &str, method: &str, path: &str) -> Result<Answer, String> {
    let mut request = Seen::new(method, path);
    request.headers.insert("accept".into(), media_type::ACCEPT_MANIFESTS.into());
    let mut answer = exchange(registry, &request);
    for _ in 0..100 {
        if answer.as_ref().is_ok_and(|answer| answer.status != 500) {
            break;
        }
        answer = exchange(registry, &request);
    }
    answer.map_err(|e| format!("{method} {path}: {e}"))
}

#[test]
fn look_detects_missing_and_wrong_content() {
    let registry = Registry::start();
    let images = corpus(1);
    let (multi, app) = (&images[2], images.last().expect("the app"));
    assert_eq!(look(registry.host(), multi), Ok(false));
    images.iter().for_each(|image| image.push(&registry));
    for image in &images {
        assert_eq!(look(registry.host(), image), Ok(true));
        assert_eq!(prove(registry.host(), image), Ok(()));
    }
    // Incomplete: a layer of a child is missing.
    let layer = multi.children[1].blob_digests().pop().expect("a layer");
    registry.request("DELETE", &format!("/v2/{}/blobs/{layer}", multi.repository)).send().expect(202);
    assert!(look(registry.host(), multi).unwrap_err().contains(&layer));
    // Wrong: the tag names another image.
    images[0].named(&app.repository, "1").push(&registry);
    assert!(look(registry.host(), app).unwrap_err().contains("instead of"));
}

#[test]
fn check_bundle_detects_one_wrong_byte() {
    let site = TestSite::new(1);
    let directory = tempdir();
    let out = directory.path().join("bundle.tar");
    std::fs::write(&out, &site.tar).expect("writing");
    assert_eq!(site.check_bundle(&out), Ok(()));
    let mut wrong = site.tar.clone();
    let last = wrong.len() - 2000;
    wrong[last] ^= 1;
    std::fs::write(&out, &wrong).expect("writing");
    assert!(site.check_bundle(&out).is_err());
    assert!(site.check_bundle(&directory.path().join("absent.tar")).is_err());
}
