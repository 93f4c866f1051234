//! How a bundle is written, what that takes, and what comes of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::volumes::VolumeOptions;
use crate::base::fsops;
use crate::content::LinkMode;
use crate::files::Layout;
use crate::oci::Digest;

/// How a bundle is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the directory form takes blobs that their source keeps as files; every other blob is copied.
    pub link: LinkMode,
    /// The device where a link is likely to succeed: no room is asked for there.
    pub device: Option<u64>,
    /// It is written as volumes.
    pub volumes: Option<VolumeOptions>,
    /// Bundles that may have some of its blobs, asked in this order; none of them is believed.
    pub supplies: Vec<Arc<Layout>>,
}

impl Options {
    /// Every blob is copied.
    pub fn copying() -> Options {
        Options { link: LinkMode::Copy, device: None, volumes: None, supplies: Vec::new() }
    }
}

/// A bundle that is complete and has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub path: PathBuf,
    /// sha256 of `bundle.json`.
    pub identity: Digest,
    /// In bytes.
    pub size: u64,
    /// It was there already, the same.
    pub unchanged: bool,
}

/// What writing a bundle would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Length of the bundle in bytes.
    pub total: u64,
    /// Bytes of blobs that are there already.
    pub present: u64,
    /// Bytes that writing takes from the file system.
    pub needed: u64,
    /// Bytes the file system has left.
    pub free: u64,
}

/// `OUT` ending in `.tar` means the tar form.
pub fn is_tar(out: &Path) -> bool {
    out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// The directory that `out` is to be in, or the nearest above that is there.
pub(super) fn existing_ancestor(out: &Path) -> PathBuf {
    let mut directory = fsops::parent(out);
    while !directory.exists() {
        directory = fsops::parent(directory);
    }
    directory.to_owned()
}
