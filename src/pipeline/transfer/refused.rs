//! Companions whose manifests a target does not accept: older registries do not support referrers, and a gateway may
//! reject one. The image is pushed without them.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use super::listed::{Cause, Unlisted};
use super::{TagOutcome, Transfer};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::oci::{Digest, Manifest, Reference};
use crate::pipeline::graph::Image;
use crate::pipeline::plan::{CompanionAction, ImageStep};

/// What is left out of an image.
#[derive(Default)]
pub struct Refused {
    /// Companions, each with the reason.
    pub companions: HashMap<Digest, String>,
    /// Manifests that nothing else needs, each with the companion that it belongs to.
    pub manifests: HashMap<Digest, Digest>,
}

impl Refused {
    /// Leaves out the companions that need the manifest `name`, and those that refer to them.
    ///
    /// # Errors
    /// `error`, if the image itself needs it, or if it concerns more than this manifest.
    pub fn add(&mut self, image: &Image, name: Reference, error: Error) -> Result<()> {
        let tree = |root: Digest| image.below(root).into_iter().map(Manifest::digest).collect::<HashSet<_>>();
        let own = tree(image.locked.digest);
        let Some(refused) = name.digest.filter(|digest| is_of_manifest_alone(&error) && !own.contains(digest)) else {
            return Err(error);
        };
        let (chain, attempt) = (error.chain(), format!("storing manifest {name}: "));
        let why = chain.strip_prefix(&attempt).unwrap_or(&chain);
        let (mut gone, mut kept) = (HashMap::new(), own);
        // Each comes after its subject.
        for companion in image.locked.companions() {
            let carried = tree(companion.digest);
            if gone.contains_key(&companion.subject) || carried.contains(&refused) {
                self.companions.entry(companion.digest).or_insert_with(|| why.to_owned());
                gone.extend(carried.into_iter().map(|manifest| (manifest, companion.digest)));
            } else {
                kept.extend(carried);
            }
        }
        if gone.is_empty() {
            return Err(error);
        }
        self.manifests.extend(gone.into_iter().filter(|(manifest, _)| !kept.contains(manifest)));
        Ok(())
    }
}

/// Whether storing a manifest failed because of what it is, while the target accepts others.
fn is_of_manifest_alone(error: &Error) -> bool {
    let is_refusal = match error.reason() {
        None => matches!(error.kind(), Kind::Refused | Kind::NotFound | Kind::Damaged | Kind::Input),
        Some(reason) => matches!(
            reason,
            Reason::Undelivered | Reason::DamagedTarget | Reason::ForeignLayer | Reason::UnknownContent(_)
        ),
    };
    is_refusal && error.stopped().is_none()
}

impl Transfer<'_> {
    /// Records the results for companions that the target refused.
    pub(super) fn note_refused(&self, step: &ImageStep, refused: &Refused) {
        let repository = &step.to.repository;
        for (manifest, companion) in &refused.manifests {
            let Some(why) = refused.companions.get(companion) else { continue };
            let own = step.companions.iter().find(|own| own.digest == *companion);
            if let Some(own) = own {
                let outcome =
                    TagOutcome { action: CompanionAction::Obstructed { reason: why.clone() }, state: own.state };
                self.companions.lock().unwrap_or_else(PoisonError::into_inner).record(&own.tag, own.digest, outcome);
            }
            let what = own.map_or_else(|| repository.with_digest(*companion), |own| own.tag.clone());
            let unlisted = Unlisted { what, why: why.clone(), cause: Cause::Refused };
            let mut all = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert((repository.clone(), *manifest), unlisted);
        }
    }
}
