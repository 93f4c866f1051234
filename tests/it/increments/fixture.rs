//! Two sides and a medium between them.

use std::path::{Path, PathBuf};

use gapferry::bundle::{Bundle, BundleJson};
use serde_json::Value;

use crate::support::ran::Ran;
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

/// The connected side, the isolated side, and the medium, a directory.
pub struct Sides {
    pub source: Registry,
    pub target: Registry,
    pub stick: tempfile::TempDir,
}

impl Sides {
    pub fn new() -> Sides {
        Sides { source: Registry::start(), target: Registry::start(), stick: tempdir() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.stick.path().join(name)
    }

    /// `NAME.tar` of these images; `options` may be `--since` and a name on the stick.
    #[track_caller]
    pub fn export(&self, name: &str, images: &[&str], options: &[&str]) -> Ran {
        self.try_export(name, images, options).ended(0)
    }

    /// The same, with the given creation time (seconds since 1970).
    #[track_caller]
    pub fn export_at(&self, time: u64, name: &str, images: &[&str], options: &[&str]) -> Ran {
        let mut command = self.export_command(name, images, options);
        Ran::of(command.env("SOURCE_DATE_EPOCH", time.to_string())).ended(0)
    }

    pub fn try_export(&self, name: &str, images: &[&str], options: &[&str]) -> Ran {
        Ran::of(&mut self.export_command(name, images, options))
    }

    pub fn export_command(&self, name: &str, images: &[&str], options: &[&str]) -> assert_cmd::Command {
        let references = images.iter().map(|image| format!("{}/{image}", self.source.host()));
        let mut command = gapferry();
        command.current_dir(self.stick.path()).arg("export").args(references).args(options);
        command.args(["-o", &format!("{name}.tar")]);
        command
    }

    pub fn import(&self, name: &str, options: &[&str]) -> Ran {
        import_to(self.target.host(), self.stick.path(), name, options)
    }

    /// Imports `NAME.tar` and writes `NAME.receipt`.
    #[track_caller]
    pub fn deliver(&self, name: &str) -> Ran {
        self.import(name, &["--receipt", &format!("{name}.receipt")]).ended(0)
    }

    pub fn json(&self, name: &str) -> BundleJson {
        Bundle::open(&self.path(&format!("{name}.tar"))).expect("a bundle").json().clone()
    }

    /// Digests of the blobs and manifests that `NAME.tar` carries.
    pub fn carried(&self, name: &str) -> Vec<String> {
        let files = self.json(name).files;
        let blobs = files.iter().filter_map(|file| file.path.strip_prefix("blobs/"));
        blobs.map(|path| path.replacen('/', ":", 1)).collect()
    }

    pub fn read(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).expect("reading")).expect("JSON")
    }
}

pub fn import_to(host: &str, directory: &Path, name: &str, options: &[&str]) -> Ran {
    let mut command = gapferry();
    command.current_dir(directory).args(["import", &format!("{name}.tar"), "--to", host]);
    Ran::of(command.args(options))
}
