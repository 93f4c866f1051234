//! The commands as a person uses them: look into bundles and registries, write allowlists in every notation, and decide
//! at import which images enter, under which names, and what happens to existing tags.

mod allowlist;
mod bad_days;
mod existing;
mod loaders;
mod looking;
mod mirrors;
mod names;
mod network;
mod outage;
mod platforms;
mod signed_again;
mod trust;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::images::Image;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

fn run(arguments: &[&str]) -> Output {
    gapferry().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn succeed(arguments: &[&str]) -> Output {
    ends_with(0, arguments)
}

#[track_caller]
fn ends_with(code: i32, arguments: &[&str]) -> Output {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    output
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stdout(output)))
}

/// A source with some images and their names there.
struct Source {
    registry: Registry,
    references: Vec<String>,
    directory: tempfile::TempDir,
}

impl Source {
    fn of(images: &[Image]) -> Source {
        let registry = Registry::start();
        images.iter().for_each(|image| image.push(&registry));
        let references = images.iter().map(|image| format!("{}/{}", registry.host(), image.name())).collect();
        Source { registry, references, directory: tempdir() }
    }

    fn host(&self) -> &str {
        self.registry.host()
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Exports all images to a bundle of this name.
    #[track_caller]
    fn bundle(&self, name: &str) -> String {
        let out = self.path(name);
        gapferry().args(["export", "-q", "-o"]).arg(&out).args(&self.references).assert().success();
        out.display().to_string()
    }
}

/// Every repository and tag of a registry with the tag's digest, sorted.
fn everything(registry: &Registry) -> Vec<(String, String)> {
    let catalog = registry.request("GET", "/v2/_catalog").send().json();
    let repositories = catalog["repositories"].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for repository in repositories.iter().filter_map(Value::as_str) {
        for tag in registry.tags(repository) {
            all.push((format!("{repository}:{tag}"), registry.digest(repository, &tag).unwrap_or_default()));
        }
    }
    all.sort();
    all
}

fn names(registry: &Registry) -> Vec<String> {
    everything(registry).into_iter().map(|(name, _)| name).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
