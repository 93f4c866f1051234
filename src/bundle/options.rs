//! How a bundle is written, what that takes, and what comes of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::volumes::{Replaceable, VolumeOptions};
use crate::base::fsops;
use crate::content::LinkMode;
use crate::files::Layout;
use crate::oci::Digest;

/// How the names of compressed tars end.
const COMPRESSED: &[u8] = b".tar.zst";

/// The form in which a bundle is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Directory,
    Tar,
    /// A tar that is compressed while it is written, in one pass.
    Compressed,
    Volumes(VolumeOptions),
}

impl Form {
    /// The form that a name means: a tar ends in `.tar`, a compressed one in `.tar.zst`, a directory in neither.
    pub fn named(out: &Path) -> Form {
        let name = out.file_name().unwrap_or_default().as_encoded_bytes().to_ascii_lowercase();
        match () {
            () if is_tar(out) => Form::Tar,
            () if name.ends_with(COMPRESSED) => Form::Compressed,
            () => Form::Directory,
        }
    }
}

/// How a bundle is written.
#[derive(Clone, Debug)]
pub struct Options {
    /// Not [`Form::Compressed`], which only one pass writes.
    pub form: Form,
    /// How the directory form takes blobs that their source keeps as files; every other blob is copied.
    pub link: LinkMode,
    /// The device where a link is likely to succeed: no room is asked for there.
    pub device: Option<u64>,
    /// Bundles that may have some of its blobs, asked in this order; none of them is believed.
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
pub struct SpaceNeeds {
    /// Length of the bundle in bytes.
    pub total: u64,
    /// Bytes of blobs that are there already.
    pub present: u64,
    /// Bytes that writing takes from the file system.
    pub needed: u64,
    /// Bytes the file system has left.
    pub free: u64,
}

/// Whether a name means a tar.
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
