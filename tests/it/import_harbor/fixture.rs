//! A server that behaves like Harbor, and bundles for it.

use std::path::{Path, PathBuf};

use crate::support::harbor::{Account, Harbor, Project, Right, Setup};
use crate::support::images::{self, Image};
use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};
use tempfile::TempDir;

pub const ADMIN: &str = "admin:Harbor12345";
/// Pushes to `base`, pulls from `apps`.
pub const CI: &str = "ci:Ci123456";
/// The same rights, without reading the project API.
pub const ROBOT: &str = "robot$base+ci:secret";

pub fn setup() -> Setup {
    Setup::default()
        .account(Account::user("ci", "Ci123456"))
        .account(Account::robot("base+ci", "secret"))
        .with(Project::new("base").member("ci", Right::Push).member("robot$base+ci", Right::Push))
        .with(Project::new("apps").member("ci", Right::Pull).member("robot$base+ci", Right::Pull))
}

/// A bundle of the images in a connected-side registry.
pub struct Bundle {
    pub path: PathBuf,
    pub _directory: TempDir,
}

pub fn bundle_of(source: &Registry, references: &[String], options: &[&str]) -> Bundle {
    let directory = tempdir();
    let path = directory.path().join("bundle");
    let output = gapferry().arg("export").args(references).arg("-o").arg(&path).args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(source.requests().len() > 1);
    Bundle { path, _directory: directory }
}

pub fn bundle(images: &[&Image]) -> Bundle {
    let source = Registry::start();
    images.iter().for_each(|image| image.push(&source));
    let references: Vec<String> = images.iter().map(|image| format!("{}/{}", source.host(), image.name())).collect();
    bundle_of(&source, &references, &[])
}

pub fn import(bundle: &Bundle, server: &Harbor, prefix: &str, creds: &str, options: &[&str]) -> Ran {
    let to = format!("{}{prefix}", server.registry());
    let mut command = gapferry();
    command.arg("import").arg(&bundle.path).args(["--to", &to, "--creds", creds, "--retries", "1"]).args(options);
    Ran::of(&mut command)
}

/// A map file that maps each repository of `rules` to another name.
pub fn map_file(directory: &Path, source_is_any: &[(&str, &str)]) -> String {
    let path = directory.join("names.map");
    let rules: String = source_is_any.iter().map(|(from, to)| format!("~ ^[^/]+/{from}$ -> {to}\n")).collect();
    std::fs::write(&path, rules).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn small(name: &str) -> Image {
    images::oci(&format!("team/{name}"), "1", &["what all share", name])
}
