//! Checks the lock of a bundle, and then its manifests, against an allowlist.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{NOTHING, NamedAllowlist};
use crate::base::error::{Error, Fact, Result};
use crate::content::{Cached, Source};
use crate::oci::{Digest, Manifest, Platform};
use crate::pipeline::allowlist::judged_by_config;
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::lock::Lock;
use crate::pipeline::walk::{MAX_CONFIG, platform_of_config};

/// Configs read at the same time.
const AT_ONCE: usize = 4;

/// The allowlist of an import. Without one, everything is allowed.
pub struct Allowed<'a>(pub Option<&'a NamedAllowlist>);

impl Allowed<'_> {
    /// Checks the lock.
    ///
    /// # Errors
    /// Lists every image that the allowlist does not allow according to the lock.
    pub fn check(&self, lock: &Lock) -> Result<()> {
        let Some(NamedAllowlist { name, list }) = self.0 else { return Ok(()) };
        none_of(name, lock.images.iter().filter_map(|image| list.refusal(image)).collect())
    }

    /// Checks what only the manifests show.
    ///
    /// # Errors
    /// Lists every image that the allowlist does not allow.
    pub fn check_content(&self, graph: &Graph) -> Result<()> {
        let Some(NamedAllowlist { name, list }) = self.0 else { return Ok(()) };
        let manifests = graph.images.iter().flat_map(|image| &image.manifests).map(Manifest::digest).collect();
        none_of(name, graph.images.iter().filter_map(|image| list.refusal_of_content(image, &manifests)).collect())
    }

    /// Reads the platforms of single images and companions from their configs, if the list restricts platforms. Configs
    /// that are not `available` yet are checked in the run that has them.
    ///
    /// # Errors
    /// Lists every image that the allowlist does not allow, or a config cannot be read.
    pub async fn check_configs(
        &self,
        source: &dyn Source,
        graph: &Graph,
        is_available: impl Fn(&Digest) -> bool,
    ) -> Result<()> {
        let Some(NamedAllowlist { name, list }) = self.0.filter(|allowed| allowed.list.bounds_platforms()) else {
            return Ok(());
        };
        let (cached, is_available) = (Cached::new(source, None), &is_available);
        let asked = stream::iter(&graph.images).map(|image| async { platforms(&cached, image, is_available).await });
        let platforms: Vec<HashMap<Digest, Platform>> = asked.buffered(AT_ONCE).try_collect().await?;
        let images = graph.images.iter().zip(&platforms);
        none_of(name, images.filter_map(|(image, platforms)| list.refusal_of_configs(image, platforms)).collect())
    }
}

/// Returns the platforms stated in the configs of an image, by manifest.
async fn platforms(
    source: &Cached<'_>,
    image: &Image,
    is_available: &impl Fn(&Digest) -> bool,
) -> Result<HashMap<Digest, Platform>> {
    let mut platforms = HashMap::new();
    for (manifest, config) in judged_by_config(image).filter(|(_, config)| is_available(&config.digest)) {
        let bytes = source.small_blob(&image.locked.reference.repository, config, MAX_CONFIG).await;
        let platform = bytes.and_then(|bytes| platform_of_config(&bytes));
        let attempt = |error: Error| error.while_doing(format!("{NOTHING}: image {}", image.locked.reference));
        platforms.extend(platform.map_err(attempt)?.map(|platform| (manifest, platform)));
    }
    Ok(platforms)
}

fn none_of(name: &str, refusals: Vec<String>) -> Result<()> {
    if refusals.is_empty() {
        return Ok(());
    }
    let images = refusals.len();
    let fact = NotAllowed { list: name.to_owned(), images };
    let error = Error::damaged(format!("{fact}; {NOTHING}:")).with_fact(fact);
    Err(error.listing(refusals.iter().map(|refusal| format!("  {refusal}"))))
}

/// A bundle has images that an allowlist does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{list} does not allow {images} images of the bundle")]
pub struct NotAllowed {
    /// The name of the allowlist.
    pub list: String,
    pub images: usize,
}

impl Fact for NotAllowed {}
