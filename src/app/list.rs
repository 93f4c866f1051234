//! What is in a bundle.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::listed::ListedImage;
use super::outcome::{JsonReport, REPORT_VERSION};
use crate::base::error::Result;
use crate::bundle::{Assumed, Bundle, FileEntry, Parent, Removed, is_tool, tools_of};
use crate::oci::Digest;
use crate::pipeline::lock::{Attached, LockedImage, MissingImage};

/// What is to be listed.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// A directory or a tar; of a bundle that was split any volume.
    pub bundle: Vec<PathBuf>,
}

/// What the bundle says of itself. Whether its bytes are what it says is not looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListReport {
    pub version: u32,
    pub ok: bool,
    pub identity: Digest,
    /// When its references were resolved.
    pub created: Timestamp,
    pub images: Vec<ListedImage>,
    /// Images that it was to bring and lacks.
    pub missing: Vec<MissingImage>,
    /// Files that it takes along.
    pub tools: Vec<FileEntry>,
    /// What it builds on.
    pub parents: Vec<Parent>,
    /// What it expects at the target.
    pub assumed: Vec<Assumed>,
    /// Images of its parents that are not wanted any more.
    pub removed: Vec<Removed>,
    /// Bytes of everything that is there of the images.
    #[serde(skip)]
    pub size: u64,
    /// Bytes of the images if nothing were shared.
    #[serde(skip)]
    pub unshared: u64,
}

impl JsonReport for ListReport {}

/// Reads what a bundle says of itself.
///
/// # Errors
/// It is no bundle, or cannot be read.
pub fn list(request: &ListRequest) -> Result<ListReport> {
    let bundle = Bundle::open_any(&request.bundle)?;
    let (lock, json) = (bundle.lock(), bundle.json());
    let manifest_of = |_: &LockedImage, attached: &Attached| {
        // An increment need not have it, and what is damaged is for verify to tell.
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
