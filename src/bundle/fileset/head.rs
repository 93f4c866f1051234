//! The files that follow from the contents, generated from a lock and its manifests with the same bytes every time.

use std::collections::HashMap;

use serde::Serialize;

use crate::base::canonical;
use crate::base::error::{Error, Result};
use crate::bundle::basis::{Assumed, Parent, Removed};
use crate::bundle::format::{
    BUNDLE_JSON, BundleJson, DOCKER_JSON, FORMAT_VERSION, FileEntry, INDEX_JSON, MAX_DOCKER_JSON, MOST_DOCKER_VALUES,
    Metadata, OCI_LAYOUT, SUMS, SUMS512, check_number, identity_of, sums,
};
use crate::bundle::loaders::{docker_json, index_json, load_platform, whole_images};
use crate::bundle::sums::MAX_SUMS;
use crate::bundle::{Contents, Tool};
use crate::files::{MAX_INDEX, MOST_INDEX_VALUES};
use crate::oci::{Algorithm, Descriptor, Digest, Manifest, has_at_most_values};
use crate::pipeline::lock::Lock;

/// Everything before tools and blobs, without signatures, and the resulting identity.
#[derive(Clone, Debug)]
pub struct Head {
    /// In tar order.
    pub files: Vec<Metadata>,
    /// SHA-256 of `bundle.json`.
    pub identity: Digest,
}

impl Contents {
    /// The metadata files.
    ///
    /// # Errors
    /// There are more files or bytes than a bundle can have.
    pub fn head(&self) -> Result<Head> {
        let bytes = self.all().map(|(_, size)| size).fold(0, u64::saturating_add);
        check_number(self.manifests.len() + self.blobs.len(), self.lock.images.len(), bytes)
            .map_err(|why| Error::input(format!("planning the bundle: {why}")))?;
        let by_digest: HashMap<Digest, &Manifest> = self.manifests.iter().map(|m| (m.digest(), m)).collect();
        let find = |wanted: &Descriptor| by_digest.get(&wanted.digest).copied().cloned();
        let assumed = self.basis.assumed.iter().map(|assumed| assumed.digest).collect();
        let images = whole_images(&self.lock, &assumed, &find);
        let layout = Metadata::new(OCI_LAYOUT, br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let index = Metadata::new(INDEX_JSON, to_bytes(&index_json(&images, &find))?);
        let platform = load_platform(&self.lock);
        let docker = Metadata::new(DOCKER_JSON, to_bytes(&docker_json(&images, &platform, &find))?);
        let paths: Vec<(String, Digest)> =
            self.all().filter(|(digest, _)| is_long(digest)).map(|(digest, _)| (digest.blob_path(), digest)).collect();
        let of_512 = sums::sha512sums(paths.iter().map(|(path, digest)| (path.as_str(), *digest)));
        let of_512 = of_512.map(|text| Metadata::new(SUMS512, text.into_bytes()));
        let declared: Vec<FileEntry> =
            [&layout, &index, &docker].into_iter().chain(&of_512).map(Metadata::entry).collect();
        let files = Files { declared: &declared, contents: self };
        let document = canonical::to_bytes(&Document {
            gapferry_bundle: FORMAT_VERSION,
            parents: &self.basis.parents,
            assumed: &self.basis.assumed,
            removed: &self.basis.removed,
            lock: &self.lock,
            files: &files,
        });
        let document = Metadata::new(BUNDLE_JSON, document.map_err(internal)?);
        let identity = identity_of(&document.bytes);
        let sums = Metadata::new(SUMS, sums::sha256sums(identity, files.iter()).into_bytes());
        let files: Vec<Metadata> = [layout, document, index, docker].into_iter().chain(of_512).chain([sums]).collect();
        files.iter().try_for_each(check_readable)?;
        Ok(Head { files, identity })
    }

    /// The identity of the bundle, known before any blob is fetched.
    ///
    /// # Errors
    /// As for [`Contents::head`].
    pub fn identity(&self) -> Result<Digest> {
        self.head().map(|head| head.identity)
    }
}

fn is_long(digest: &Digest) -> bool {
    digest.algorithm() == Algorithm::Sha512
}

/// Makes sure that what is written can be read again.
///
/// # Errors
/// A file is longer, or has more values, than its reader accepts.
fn check_readable(file: &Metadata) -> Result<()> {
    let (most, values) = match &*file.path {
        INDEX_JSON => (MAX_INDEX, MOST_INDEX_VALUES),
        DOCKER_JSON => (MAX_DOCKER_JSON, MOST_DOCKER_VALUES),
        SUMS | SUMS512 => (MAX_SUMS, usize::MAX),
        _ => (u64::MAX, usize::MAX),
    };
    let Metadata { path, bytes } = file;
    // A value takes at least two bytes.
    let has_few_values = bytes.len() / 2 <= values || has_at_most_values(bytes, values);
    let text = || format!("planning the bundle: {path} would be too large to be read again; make several bundles");
    if bytes.len() as u64 > most || !has_few_values {
        return Err(Error::input(text()));
    }
    match &**path {
        BUNDLE_JSON => BundleJson::check_readable(bytes).map_err(|e| Error::input(text()).because(e)),
        _ => Ok(()),
    }
}

/// [`BundleJson`] for writing, without copying thousands of images.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    gapferry_bundle: u32,
    parents: &'a [Parent],
    assumed: &'a [Assumed],
    removed: &'a [Removed],
    lock: &'a Lock,
    files: &'a Files<'a>,
}

/// Every declared file, in tar order.
struct Files<'a> {
    /// Metadata.
    declared: &'a [FileEntry],
    contents: &'a Contents,
}

impl Files<'_> {
    fn iter(&self) -> impl Iterator<Item = FileEntry> {
        let blobs = self.contents.all();
        let blobs = blobs.map(|(digest, size)| FileEntry { path: digest.blob_path(), size, digest });
        let tools = self.contents.tools.iter().map(Tool::entry);
        self.declared.iter().cloned().chain(tools).chain(blobs)
    }
}

impl Serialize for Files<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

fn to_bytes(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value).map_err(internal)?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

fn internal(error: serde_json::Error) -> Error {
    Error::input("writing the bundle's metadata").because(error)
}
