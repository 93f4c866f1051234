//! A small bundle as separate files, to be damaged and assembled again in either form.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::images::{self, Image};
use crate::support::registry::Registry;
use crate::support::{files_below, gapferry, sha256, tempdir};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Directory,
    Tar,
}

/// The files in tar order.
#[derive(Clone)]
pub struct Parts(pub Vec<(String, Vec<u8>)>);

impl Parts {
    pub fn bytes(&mut self, path: &str) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(name, _)| name == path).unwrap_or_else(|| panic!("no {path}")).1
    }

    pub fn remove(&mut self, path: &str) {
        self.0.retain(|(name, _)| name != path);
    }

    pub fn add(&mut self, path: &str, bytes: &[u8]) {
        self.0.push((path.to_owned(), bytes.to_vec()));
    }

    pub fn swap(&mut self, one: &str, other: &str) {
        let first = self.bytes(one).clone();
        let second = std::mem::replace(self.bytes(other), first);
        *self.bytes(one) = second;
    }

    /// Writes the files below `directory`; returns the bundle's path.
    pub fn write(&self, directory: &Path, form: Form) -> PathBuf {
        match form {
            Form::Directory => {
                let root = directory.join("bundle");
                for (path, bytes) in &self.0 {
                    let path = root.join(path);
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, bytes).unwrap();
                }
                root
            }
            Form::Tar => {
                let path = directory.join("bundle.tar");
                std::fs::write(&path, self.tar()).unwrap();
                path
            }
        }
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in &self.0 {
            builder.append(&header(path.as_bytes(), bytes.len() as u64, tar::EntryType::Regular), &bytes[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }
}

/// A tar header with any name, including names no proper program would write.
pub fn header(name: &[u8], size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_cksum();
    header
}

/// A file of the bundle, its kind, and the images that depend on it.
pub struct Location {
    pub what: &'static str,
    pub path: String,
    pub images: BTreeSet<String>,
}

/// Two images that share a layer, and an index of two platforms, written by a real export.
pub struct Fixture {
    pub images: Vec<Image>,
    pub parts: Parts,
    host: String,
}

impl Fixture {
    pub fn new() -> Fixture {
        let source = Registry::start();
        let images = vec![
            images::oci("team/one", "1", &["shared by both", "only in one"]),
            images::docker("team/two", "1", &["only in two", "another layer"]),
            images::oci("team/three", "1", &["shared by both", "only in three"]),
            images::oci_index("team/multi", "1", "multi"),
        ];
        images.iter().for_each(|image| image.push(&source));
        let host = source.host().to_owned();
        let directory = tempdir();
        let out = directory.path().join("bundle");
        let references: Vec<String> = images.iter().map(|image| format!("{host}/{}", image.name())).collect();
        gapferry().arg("export").args(references).arg("-o").arg(&out).assert().success();
        let fixture = Fixture { images, parts: in_tar_order(files_below(&out)), host };
        for form in [Form::Directory, Form::Tar] {
            let directory = tempdir();
            let report = verify(&fixture.parts.write(directory.path(), form));
            assert_eq!(report.code, 0, "undamaged, {form:?}: {report:#?}");
        }
        fixture
    }

    /// One file of each kind.
    pub fn locations(&self) -> Vec<Location> {
        let [one, two, _, multi] = &self.images[..] else { panic!("four images") };
        let blob = |what, digest: String| {
            let path = blob_path(&digest);
            Location { what, images: self.images_of(&path), path }
        };
        let mut locations = vec![
            blob("layer", sha256(&one.blobs[2])),
            blob("shared layer", sha256(&one.blobs[1])),
            blob("config", sha256(&two.blobs[0])),
            blob("manifest", one.digest()),
            blob("index", multi.digest()),
            blob("child manifest", multi.children[1].digest()),
        ];
        for what in ["index.json", "bundle.json", "SHA256SUMS", "manifest.json", "oci-layout"] {
            locations.push(Location { what, path: what.to_owned(), images: self.images_of(what) });
        }
        locations
    }

    /// Names of the images that need this file; files of the bundle as a whole affect all images.
    pub fn images_of(&self, path: &str) -> BTreeSet<String> {
        let needs = |image: &&Image| !path.starts_with("blobs/") || needed(image).iter().any(|d| blob_path(d) == path);
        self.images.iter().filter(needs).map(|image| format!("{}/{}", self.host, image.name())).collect()
    }

    /// A file of another image, to swap with.
    pub fn swap_partner(&self, path: &str) -> String {
        let [_, two, three, _] = &self.images[..] else { panic!("four images") };
        match path.starts_with("blobs/") {
            true => blob_path(&sha256(&three.blobs[2])),
            false => blob_path(&sha256(&two.blobs[1])),
        }
    }
}

fn needed(image: &Image) -> Vec<String> {
    let own = image.blobs.iter().map(|blob| sha256(blob)).chain([image.digest()]);
    own.chain(image.children.iter().flat_map(needed)).collect()
}

pub fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Sorts the files as the format requires: the metadata needed for planning comes first.
pub fn in_tar_order(mut files: Vec<(String, Vec<u8>)>) -> Parts {
    let first = ["oci-layout", "bundle.json", "index.json", "manifest.json", "SHA256SUMS"];
    let last = |path: &str| if path == "chunks.b3" { first.len() + 1 } else { first.len() };
    files.sort_by_key(|(path, _)| first.iter().position(|name| name == path).unwrap_or_else(|| last(path)));
    Parts(files)
}

/// The report of `gapferry verify --json`.
#[derive(Debug)]
pub struct Report {
    pub code: i32,
    pub problems: Vec<serde_json::Value>,
    pub stderr: String,
}

pub fn verify(bundle: &Path) -> Report {
    let output = gapferry().arg("verify").arg(bundle).arg("--json").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{}: {stderr}", bundle.display());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let problems = json["problems"].as_array().cloned().unwrap_or_default();
    Report { code: output.status.code().expect("ended by itself"), problems, stderr }
}

impl Report {
    pub fn paths(&self) -> BTreeSet<String> {
        self.problems.iter().filter_map(|problem| Some(problem["path"].as_str()?.to_owned())).collect()
    }

    pub fn images(&self) -> BTreeSet<String> {
        let images = self.problems.iter().flat_map(|problem| problem["images"].as_array().cloned().unwrap_or_default());
        images.filter_map(|image| Some(image.as_str()?.to_owned())).collect()
    }
}
