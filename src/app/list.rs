//! Lists the contents of a bundle.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::listed::ListedImage;
use super::outcome::{JsonReport, REPORT_VERSION};
use crate::base::error::Result;
use crate::bundle::{Assumed, Bundle, FileEntry, Parent, Removed, is_tool, tools_of};
use crate::oci::Digest;
use crate::pipeline::lock::{Attached, LockedImage, MissingImage};

/// The bundle to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// A directory, a tar, or any volume of a set.
    pub bundle: Vec<PathBuf>,
}

/// The contents according to the bundle. Its bytes are not checked.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListReport {
    pub version: u32,
    pub ok: bool,
    pub identity: Digest,
    /// When the references were resolved.
    pub created: Timestamp,
    pub images: Vec<ListedImage>,
    /// Images that were requested for the bundle and are missing from it.
    pub missing: Vec<MissingImage>,
    /// Files that are added to the images.
    pub tools: Vec<FileEntry>,
    /// The bundles that this increment builds on.
    pub parents: Vec<Parent>,
    /// Content that the bundle expects at the target.
    pub assumed: Vec<Assumed>,
    /// Images of its parents that are no longer wanted.
    pub removed: Vec<Removed>,
    /// Size of all files of the images in bytes.
    #[serde(skip)]
    pub size: u64,
    /// Size of the images in bytes if they shared nothing.
    #[serde(skip)]
    pub unshared: u64,
}

impl JsonReport for ListReport {}

/// Reads the contents from the metadata of a bundle.
///
/// # Errors
/// `bundle` is not a bundle, or cannot be read.
pub fn list(request: &ListRequest) -> Result<ListReport> {
    let bundle = Bundle::open_any(&request.bundle)?;
    let (lock, json) = (bundle.lock(), bundle.json());
    let manifest_of = |_: &LockedImage, attached: &Attached| {
        // An increment may lack the manifest. Damage is reported by `verify`.
        bundle.layout().manifest_by_digest(&attached.digest, Some(&attached.media_type)).ok().flatten()
    };
    let of_images = bundle.files().iter().filter(|file| !is_tool(&file.path));
    let size = of_images.map(|file| file.size).fold(0, u64::saturating_add);
    let unshared = lock.images.iter().map(|image| image.total_size).fold(0, u64::saturating_add);
    Ok(ListReport {
        version: REPORT_VERSION,
        ok: true,
        identity: bundle.identity(),
        created: lock.created,
        images: lock.images.iter().map(|image| ListedImage::new(image, &manifest_of)).collect(),
        missing: lock.missing.clone(),
        tools: tools_of(json).cloned().collect(),
        parents: json.parents.clone(),
        assumed: json.assumed.clone(),
        removed: json.removed.clone(),
        size,
        unshared: unshared.max(size),
    })
}
