//! Immutable tags that this account cannot read because of a policy.

use std::sync::PoisonError;

use super::publish::manifest_of;
use super::{Done, Transfer};
use crate::base::error::{Error, Reason, Result};
use crate::pipeline::graph::Image;
use crate::pipeline::plan::{ImageStep, TagState};

impl Transfer<'_> {
    /// Returns the outcome of an image whose tag could not be set. Harbor refuses to set an immutable tag even to the
    /// digest that it already refers to and, if a policy forbids pulling, does not tell a robot which digest that is.
    /// It does say whether a digest exists.
    ///
    /// # Errors
    /// The refusal, unless the image was at the target before, so that the tag may already refer to it.
    pub(super) async fn keep_immutable(&self, image: &Image, step: &ImageStep, refusal: Error) -> Result<Done> {
        let digest = image.locked.digest;
        let is_hidden = step.tag == TagState::Blocked && step.withheld.contains_key(&digest);
        if !is_hidden || refusal.reason() != Some(&Reason::ImmutableTag) {
            return Err(refusal);
        }
        // If the registry accepts the manifest, everything below it exists too.
        self.put_once(image, &step.to.repository, manifest_of(image, &digest)?).await?;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(step.to.clone());
        Ok(Done::Present)
    }
}
