//! A bundle can be read without gapferry: a reader written from `docs/format.md` alone reads every form of real
//! bundles, agrees on the identity, and refuses damaged ones. If this fails, the document and the program differ.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, sha256, skopeo, tempdir};

/// A registry with images of several kinds, a lock of them, a key and a tool.
struct TestSite {
    registry: Registry,
    images: Vec<Image>,
    directory: tempfile::TempDir,
}

impl TestSite {
    fn new() -> TestSite {
        let registry = Registry::start();
        let large = images::noise(1, 5_000_000);
        let images = vec![
            images::oci("team/one", "1", &[&large, "small", ""]),
            images::docker("team/two", "2.0", &[&large, "other"]),
            images::oci_index("team/index", "1", "of two platforms"),
            images::artifact("charts/app", "0.1", b"a chart"),
        ];
        images.iter().for_each(|image| image.push(&registry));
        let attached = images::referrer(&images[2], "application/spdx+json", b"a list of parts");
        attached.push(&registry);
        images::referrers_tag(&images[2], &[attached]).push(&registry);
        let site = TestSite { registry, images, directory: tempdir() };
        fs::write(site.path("hello"), "#!/bin/sh\n").unwrap();
        let key = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"];
        let made = Command::new("openssl").args(key).current_dir(site.directory.path()).output().unwrap();
        assert!(made.status.success());
        let references: Vec<String> = site.images.iter().map(|image| site.reference(image)).collect();
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        site.run(&[&["lock", "-o", "images.lock"], &references[..]].concat()).ended(0);
        site
    }

    fn reference(&self, image: &Image) -> String {
        format!("{}/{}", self.registry.host(), image.name())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(gapferry().current_dir(self.directory.path()).args(args))
    }

    fn export(&self, out: &str, more: &[&str]) -> Ran {
        let args = ["export", "--locked", "images.lock", "--tool-file", "hello", "--sign-key", "key.pem", "-o", out];
        self.run(&[&args[..], more].concat()).ended(0)
    }

    /// Runs the reader; the bundle `-` is the file `piped` on standard input.
    fn read(&self, args: &[&str], piped: Option<&Path>) -> Ran {
        let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/bundle.py");
        let stdin = piped.map_or_else(Stdio::null, |path| File::open(path).unwrap().into());
        let mut command = Command::new("python3");
        command.arg("-B").arg(reader).args(args).current_dir(self.directory.path()).stdin(stdin);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// All volumes of this set, in order.
    fn volumes(&self, name: &str) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|found| found.into_string().unwrap());
        let mut names: Vec<String> = names.filter(|found| found.starts_with(&format!("{name}."))).collect();
        names.sort();
        names
    }
}

/// The identity that the reader prints.
fn identity(ran: Ran) -> String {
    ran.ended(0).stderr.trim().to_owned()
}

#[test]
fn a_reader_written_from_the_format_document_reads_every_form() {
    let site = TestSite::new();
    site.export("bundle", &[]);
    site.export("bundle.tar", &[]);
    site.export("bundle.tar.zst", &[]);
    site.export("volumes.tar", &["--volume-size", "3MB"]);
    site.run(&["split", "bundle.tar", "-o", "cut.tar", "--volume-size", "2MB"]).ended(0);
    let (exported, cut) = (site.volumes("volumes"), site.volumes("cut"));
    assert!(exported.len() > 1 && cut.len() > exported.len(), "{exported:?} {cut:?}");
    let json = fs::read(site.path("bundle/bundle.json")).unwrap();
    let forms: [(Vec<&str>, Option<PathBuf>); 6] = [
        (vec!["bundle"], None),
        (vec!["bundle.tar"], None),
        (vec!["-"], Some(site.path("bundle.tar"))),
        (vec!["bundle.tar.zst"], None),
        (exported.iter().map(String::as_str).collect(), None),
        (cut.iter().rev().map(String::as_str).collect(), None),
    ];
    for (number, (form, piped)) in forms.iter().enumerate() {
        let found = identity(site.read(&[&["verify"], &form[..]].concat(), piped.as_deref()));
        assert_eq!(found, sha256(&json), "{form:?}");
        let listed = site.read(&[&["list"], &form[..]].concat(), piped.as_deref()).ended(0).stdout;
        for (at, image) in site.images.iter().enumerate() {
            let reference = site.reference(image);
            let line = listed.lines().nth(at).unwrap_or_default();
            assert!(line.starts_with(&format!("{reference} {}", image.digest())), "{form:?}: {listed}");
            let out = format!("image-{number}-{at}");
            site.read(&[&["extract", &reference, &out], &form[..]].concat(), piped.as_deref()).ended(0);
            let layout = format!("oci:{}", site.path(&out).display());
            assert_eq!(skopeo::digest(&layout), image.digest(), "{form:?}: {reference}");
            let blobs = files_below(&site.path(&out).join("blobs/sha256"));
            assert!(blobs.iter().all(|(name, bytes)| sha256(bytes) == format!("sha256:{name}")), "{form:?}");
        }
    }
}

#[test]
fn the_reader_reads_a_stream_and_refuses_a_truncated_one() {
    let site = TestSite::new();
    let mut command = crate::support::gapferry_process();
    let args = ["export", "--locked", "images.lock", "-o", "-"];
    let streamed = command.current_dir(site.directory.path()).args(args).output().unwrap();
    assert!(streamed.status.success());
    let (whole, part) = (site.path("stream.tar"), site.path("part.tar"));
    fs::write(&whole, &streamed.stdout).unwrap();
    site.read(&["verify", "-"], Some(&whole)).ended(0);
    for length in [streamed.stdout.len() - 1024, streamed.stdout.len() / 2, 1024] {
        fs::write(&part, &streamed.stdout[..length]).unwrap();
        site.read(&["verify", "-"], Some(&part)).ended(1).reported(&["refused"]);
    }
}

#[test]
fn the_reader_finds_one_changed_byte_in_any_file() {
    let site = TestSite::new();
    site.export("bundle", &[]);
    for (name, bytes) in files_below(&site.path("bundle")) {
        // The reader has neither keys nor BLAKE3.
        if name.ends_with(".sig") || name == "chunks.b3" || bytes.is_empty() {
            continue;
        }
        let path = site.path("bundle").join(&name);
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        fs::write(&path, &changed).unwrap();
        site.read(&["verify", "bundle"], None).ended(1).reported(&["refused"]);
        fs::write(&path, &bytes).unwrap();
    }
    site.read(&["verify", "bundle"], None).ended(0);
    fs::write(site.path("bundle/undeclared"), "").unwrap();
    site.read(&["verify", "bundle"], None).ended(1).reported(&["undeclared is not declared"]);
}
