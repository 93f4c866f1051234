//! `import --allow`: what the isolated side lets in, asked of a bundle's lock and then of its manifests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Args, NOTHING};
use crate::base::error::{Error, Result};
use crate::cli::allowlist::read_file;
use crate::content::{Cached, Source};
use crate::oci::{Digest, Manifest, Platform};
use crate::pipeline::allowlist::{Allowlist, judged_by_config, refused};
use crate::pipeline::graph::{Graph, Image};
use crate::pipeline::lock::Lock;
use crate::pipeline::walk::{MAX_CONFIG, platform_of_config};

/// Configs read at the same time.
const AT_ONCE: usize = 4;

/// The list of `--allow`; without one, everything may enter.
pub struct Allowed(Option<(PathBuf, Allowlist)>);

impl Allowed {
    /// # Errors
    /// Not readable, or no allowlist.
    pub fn read(args: &Args) -> Result<Allowed> {
        let Some(path) = &args.allow else { return Ok(Allowed(None)) };
        let list = Allowlist::parse_sources(&[], &[read_file(path)?]);
        let list = list.map_err(|problems| refused("the allowlist", &problems))?;
        Ok(Allowed(Some((path.clone(), list))))
    }

    /// # Errors
    /// Every image that the list does not allow, as far as the lock tells.
    pub fn check(&self, lock: &Lock) -> Result<()> {
        let Some((path, list)) = &self.0 else { return Ok(()) };
        none_of(path, lock.images.iter().filter_map(|image| list.refusal(image)).collect())
    }

    /// # Errors
    /// The same, of what the manifests tell besides.
    pub fn check_content(&self, graph: &Graph) -> Result<()> {
        let Some((path, list)) = &self.0 else { return Ok(()) };
        let manifests = graph.images.iter().flat_map(|image| &image.manifests).map(Manifest::digest).collect();
        none_of(path, graph.images.iter().filter_map(|image| list.refusal_of_content(image, &manifests)).collect())
    }

    /// Reads what single images and attached ones are for in their configs, where the list bounds platforms. Those that are not
    /// `at_hand` yet are checked in the run that has them.
    ///
    /// # Errors
    /// Every image that the list does not allow, or a config that cannot be read.
    pub async fn check_configs(
        &self,
        source: &dyn Source,
        graph: &Graph,
        at_hand: impl Fn(&Digest) -> bool,
    ) -> Result<()> {
        let Some((path, list)) = self.0.as_ref().filter(|(_, list)| list.bounds_platforms()) else { return Ok(()) };
        let (cached, at_hand) = (Cached::new(source, None), &at_hand);
        let asked = stream::iter(&graph.images).map(|image| async { platforms(&cached, image, at_hand).await });
        let platforms: Vec<HashMap<Digest, Platform>> = asked.buffered(AT_ONCE).try_collect().await?;
        let images = graph.images.iter().zip(&platforms);
        none_of(path, images.filter_map(|(image, platforms)| list.refusal_of_configs(image, platforms)).collect())
    }
}

/// What the configs of an image say, by the manifests that they belong to.
async fn platforms(
    source: &Cached<'_>,
    image: &Image,
    at_hand: &impl Fn(&Digest) -> bool,
) -> Result<HashMap<Digest, Platform>> {
    let mut platforms = HashMap::new();
    for (manifest, config) in judged_by_config(image).filter(|(_, config)| at_hand(&config.digest)) {
        let bytes = source.small_blob(&image.locked.reference.repository, config, MAX_CONFIG).await;
        let platform = bytes.and_then(|bytes| platform_of_config(&bytes));
        let attempt = |error: Error| error.while_doing(format!("{NOTHING}: image {}", image.locked.reference));
        platforms.extend(platform.map_err(attempt)?.map(|platform| (manifest, platform)));
    }
    Ok(platforms)
}

fn none_of(path: &Path, refusals: Vec<String>) -> Result<()> {
    if refusals.is_empty() {
        return Ok(());
    }
    let images = refusals.len();
    let text = format!("{} does not allow {images} images of the bundle; {NOTHING}:", path.display());
    Err(Error::damaged(text).listing(refusals.iter().map(|refusal| format!("  {refusal}"))))
}
