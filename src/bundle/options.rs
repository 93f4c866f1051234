//! Options and results of writing a bundle.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::volumes::{Replaceable, VolumeOptions};
use crate::base::fsops;
use crate::content::LinkMode;
use crate::files::Layout;
use crate::oci::Digest;

/// The extension of compressed tars.
const COMPRESSED: &[u8] = b".tar.zst";

/// The form in which a bundle is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Directory,
    Tar,
    /// A tar that is compressed while it is written in a single pass.
    Compressed,
    Volumes(VolumeOptions),
}

impl Form {
    /// The form that a name means: `.tar` for a tar, `.tar.zst` for a compressed one, anything else for a directory.
    pub fn named(out: &Path) -> Form {
        let name = out.file_name().unwrap_or_default().as_encoded_bytes().to_ascii_lowercase();
        match () {
            () if is_tar(out) => Form::Tar,
            () if name.ends_with(COMPRESSED) => Form::Compressed,
            () => Form::Directory,
        }
    }
}

/// How to write a bundle.
#[derive(Clone, Debug)]
pub struct Options {
    /// Not [`Form::Compressed`], which needs a single pass.
    pub form: Form,
    /// How the directory form takes blobs that are files in their source; other blobs are copied.
    pub link: LinkMode,
    /// The device on which a link is likely to succeed; no space is reserved for it.
    pub device: Option<u64>,
    /// Bundles that may have some of the blobs, in order. Nothing in them is trusted.
    pub supplies: Vec<Arc<Layout>>,
    /// Which files volumes may replace.
    pub replaceable: Replaceable,
}

impl Options {
    /// Every blob is copied.
    pub fn copying(form: Form) -> Options {
        Options { form, link: LinkMode::Copy, device: None, supplies: Vec::new(), replaceable: Replaceable::default() }
    }
}

/// A complete bundle under its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub path: PathBuf,
    /// SHA-256 of `bundle.json`.
    pub identity: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Whether it existed already and is unchanged.
    pub unchanged: bool,
}

/// The space needed to write a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceNeeds {
    /// Size of the bundle in bytes.
    pub total: u64,
    /// Bytes of blobs that exist already.
    pub present: u64,
    /// Bytes that writing takes on the file system.
    pub needed: u64,
    /// Free bytes on the file system.
    pub free: u64,
}

/// Whether the name means a tar.
pub fn is_tar(out: &Path) -> bool {
    out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tar"))
}

/// The directory that will contain `out`, or its nearest existing parent.
pub(super) fn existing_ancestor(out: &Path) -> PathBuf {
    let mut directory = fsops::parent(out);
    while !directory.exists() {
        directory = fsops::parent(directory);
    }
    directory.to_owned()
}
