//! What of a storage can be carried: every tagged image, complete or with the reason why not.

use std::collections::{HashMap, HashSet};

use crate::cli::context::Context;
use crate::content::{Cached, in_parallel};
use crate::error::{Error, Result};
use crate::graph::Image;
use crate::lock::IndexMode;
use crate::oci::{Descriptor, Digest};
use crate::progress::Silent;
use crate::resolve;
use crate::transport::storage::{Fault, Storage, Tagged};
use crate::walk::{Options, Walk, Wanted};

/// Images by their tags, and what else is wrong.
pub struct Collected {
    pub images: Vec<(Tagged, Result<Image>)>,
    pub repositories: usize,
    /// What costs no image that could be named, or a tag whose meaning is lost.
    pub faults: Vec<Fault>,
}

/// Reads every manifest; looks for every blob and at its size.
///
/// # Errors
/// The storage itself cannot be read. What is wrong in it costs the images it touches.
pub async fn collect(storage: &Storage, jobs: usize, context: &Context) -> Result<Collected> {
    let survey = storage.survey()?;
    let cached = Cached::new(storage, None);
    // Tags of signatures are images of their own here.
    let options = Options { index: IndexMode::Sparse, referrers: false, foreign_layers: false };
    let walk = Walk::new(&cached, options, std::sync::Arc::new(Silent));
    let reference = |found: &Tagged| found.repository.with_tag(found.tag.clone());
    let wanted = |found: &Tagged| Wanted { reference: reference(found), rename: None, platforms: Vec::new() };
    let wanted: Vec<Wanted> = survey.tags.iter().map(wanted).collect();
    let mut images = resolve::discover_each(&walk, &wanted, jobs, &context.events).await;
    let missing = missing_blobs(storage, &images);
    for image in &mut images {
        let lacks = |image: &Image| image.blobs.iter().find_map(|blob| missing.get(&blob.digest));
        if let Some(reason) = image.as_ref().ok().and_then(lacks) {
            *image = Err(Error::damaged(reason.clone()));
        }
    }
    let images = survey.tags.into_iter().zip(images).collect();
    Ok(Collected { images, repositories: survey.repositories.len(), faults: survey.faults })
}

/// The blobs that are not there as the manifests say, and why.
fn missing_blobs(storage: &Storage, images: &[Result<Image>]) -> HashMap<Digest, String> {
    let mut seen = HashSet::new();
    let all = images.iter().flatten().flat_map(|image| &image.blobs);
    let distinct: Vec<&Descriptor> = all.filter(|blob| seen.insert(blob.digest)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let looked = in_parallel(&distinct, threads, |blob| match storage.data(&blob.digest) {
        Ok(slice) if slice.size() == blob.size => None,
        Ok(slice) => Some(format!("{} has {} bytes instead of {}", slice.path().display(), slice.size(), blob.size)),
        Err(error) => Some(error.chain()),
    });
    distinct.iter().zip(looked).filter_map(|(blob, wrong)| Some((blob.digest, wrong?))).collect()
}
