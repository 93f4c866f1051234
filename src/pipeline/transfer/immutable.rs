//! Tags that no push may change, and whose meaning a policy hides.

use std::sync::PoisonError;

use super::publish::manifest_of;
use super::{Done, Transfer};
use crate::base::error::{Error, Reason, Result};
use crate::pipeline::graph::Image;
use crate::pipeline::plan::{ImageStep, TagState};

impl Transfer<'_> {
    /// Interprets the failure to set the tag of `step`. Harbor refuses to set an immutable tag even to its current
    /// meaning, and if a policy forbids pulling, it does not tell a robot what that is. But it does say whether a
    /// digest exists.
    ///
    /// # Errors
    /// The refusal, unless the image existed before and so may be what the tag means.
    pub(super) async fn keep_immutable(&self, image: &Image, step: &ImageStep, refusal: Error) -> Result<Done> {
        let digest = image.locked.digest;
        let is_hidden = step.tag == TagState::Blocked && step.withheld.contains_key(&digest);
        if !is_hidden || refusal.reason() != Some(&Reason::ImmutableTag) {
            return Err(refusal);
        }
        // Its acceptance proves that everything below it exists, too.
        self.put_once(image, &step.to.repository, manifest_of(image, &digest)?).await?;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(step.to.clone());
        Ok(Done::Present)
    }
}
