//! `--prove`: reads back what a push uploaded or found.

use std::sync::Arc;

use super::{Ended, Push, PushRequest};
use crate::app::prove::{self, Proof};
use crate::base::error::Result;
use crate::pipeline::graph::Image;
use crate::pipeline::lock::Attached;
use crate::pipeline::plan::{self, CompanionStep, ImageStep};
use crate::pipeline::prove::{Claim, Confirmed};
use crate::pipeline::transfer::{self, Done};
use crate::transport::registry::Registries;

impl Push<'_> {
    /// Reads back the images that are at the target. An image that is not proven counts as failed. Returns `None` if there
    /// was nothing to read. The receipt is written first, so that a proof of hours cannot lose it.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub(super) async fn prove(
        &self,
        registries: &Registries,
        request: &PushRequest<'_>,
        ended: &mut Ended<'_>,
        outcome: &mut transfer::TransferOutcome,
    ) -> Result<Option<Proof>> {
        self.write_receipt(&self.receipt(request, ended, outcome))?;
        let (graph, plan) = (&request.graph, ended.plan);
        let images = graph.images.iter().zip(&plan.images).zip(&outcome.images);
        let is_there = |result: &Result<Done, _>| matches!(result, Ok(Done::Pushed | Done::Present));
        let there = images.filter(|(_, result)| is_there(result));
        let claims: Vec<Claim> = there.map(|((image, step), _)| claim(image, step, outcome)).collect();
        if claims.is_empty() {
            return Ok(None);
        }
        let lists = graph.images.iter().zip(&plan.images).flat_map(|(image, step)| plan::lists(image, &step.to));
        let lists = lists.map(|(_, list)| (list.digest(), list.clone())).collect();
        let digests = transfer::confirmed(graph, plan, outcome);
        let confirmed = Confirmed { digests, lists, ..Confirmed::default() };
        let state = self.options.receipt.as_ref().map(|receipt| prove::state_beside(&receipt.path));
        let options = crate::pipeline::prove::Options { jobs: self.jobs(), every_repository: false };
        let (registry, state, dry_run) = (self.registry(), state.as_deref(), false);
        let proof = prove::Job { registries, registry, options, state, dry_run };
        let proof = proof.run(&claims, &confirmed, self.environment).await?;
        let there = outcome.images.iter_mut().zip(&mut ended.proven).filter(|(result, _)| is_there(result));
        for ((result, proven), found) in there.zip(&proof.images) {
            let failure = prove::failure(found);
            *proven = Some(failure.is_none() && found.withheld().is_none());
            if let Some(error) = failure {
                *result = Err(Arc::new(error));
            }
        }
        Ok(Some(proof))
    }
}

/// Returns what is expected of an image. A companion whose tag was not changed was not pushed, so it is not included.
fn claim(image: &Image, step: &ImageStep, outcome: &transfer::TransferOutcome) -> Claim {
    let is_left = |attached: &&Attached| {
        let of_it = |own: &&CompanionStep| own.tag.tag == attached.tag && own.digest == attached.digest;
        step.companions.iter().find(of_it).is_some_and(|own| outcome.action(own).leaves_tag())
    };
    let companions = image.locked.companions().iter().filter(|attached| !is_left(attached));
    let companions = companions.map(|attached| {
        let tag = attached.tag.clone().map(|tag| step.to.repository.with_tag(tag));
        (tag, attached.digest)
    });
    Claim { reference: step.to.clone(), digest: image.locked.digest, companions: companions.collect() }
}
