//! A registry's storage as files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::images::Image;
use super::{gapferry, sha256};

/// The file of a blob or manifest below the root directory of a registry.
pub fn data(root: &Path, digest: &str) -> PathBuf {
    let hex = digest.replace("sha256:", "");
    root.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
}

/// The digest of an image's last layer.
pub fn layer(image: &Image) -> String {
    sha256(image.blobs.last().expect("a layer"))
}

/// A tar of all below `root`.
pub fn pack(root: &Path, tar: &Path) {
    let mut command = Command::new("tar");
    command.arg("-C").arg(root).arg("-cf").arg(tar).arg(".");
    assert!(command.status().expect("tar").success());
}

/// `gapferry migrate STORAGE OPTION TO MORE…`.
pub fn migrate(storage: &Path, option: &str, to: &Path, more: &[&str]) -> Output {
    gapferry().arg("migrate").arg(storage).arg(option).arg(to).args(more).output().expect("running gapferry")
}

/// The messages of a successful migration.
#[track_caller]
pub fn migrated(storage: &Path, option: &str, to: &Path, more: &[&str]) -> String {
    let output = migrate(storage, option, to, more);
    let message = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(0), "{message}");
    message
}

/// A directory on a different file system than `here`; `None` if the machine has none.
pub fn elsewhere(here: &Path) -> Option<tempfile::TempDir> {
    use std::os::unix::fs::MetadataExt;
    let elsewhere = tempfile::tempdir_in("/dev/shm").ok()?;
    let device = |path: &Path| path.metadata().expect("metadata").dev();
    assert!(device(elsewhere.path()) != device(here), "the test needs another file system");
    Some(elsewhere)
}
