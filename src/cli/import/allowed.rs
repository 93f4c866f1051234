//! `import --allow`: what the isolated side lets in, asked of a bundle's lock and then of its manifests.

use std::path::{Path, PathBuf};

use super::{Args, NOTHING};
use crate::allowlist::{Allowlist, refused};
use crate::cli::allowlist::read_file;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::lock::Lock;

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
        none_of(path, graph.images.iter().filter_map(|image| list.refusal_of_content(image)).collect())
    }
}

fn none_of(path: &Path, refusals: Vec<String>) -> Result<()> {
    if refusals.is_empty() {
        return Ok(());
    }
    let images = refusals.len();
    let text = format!("{} does not allow {images} images of the bundle; {NOTHING}:", path.display());
    Err(Error::damaged(text).listing(refusals.iter().map(|refusal| format!("  {refusal}"))))
}
