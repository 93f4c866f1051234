//! Plans a push: compares the target with the graph, and reports notices.

use std::collections::{BTreeMap, HashMap};

use super::{Push, PushRequest, notices, target};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;
use crate::base::progress::units::count;
use crate::oci::{Digest, Repository};
use crate::pipeline::plan::{self, Plan, Targets};
use crate::pipeline::prove;
use crate::transport::registry::Registries;

impl Push<'_> {
    /// Asks the target what it has, and plans the transfer.
    ///
    /// # Errors
    /// A question got no clear answer, or the target lacks content that the source expects there ([`Kind::Lacking`]).
    pub(super) async fn plan(
        &self,
        registries: &Registries,
        request: &PushRequest<'_>,
        targets: &Targets,
        prepared: &target::Prepared,
    ) -> Result<Plan> {
        let closed = |repository: &Repository| prepared.is_closed(repository);
        let jobs = self.jobs();
        let (graph, may_be_half) = (&request.graph, request.runs.is_some() || request.arrivals.is_some());
        let before = plan::Before { may_be_half, places: &request.places };
        let mut inventory = match self.options.reupload {
            true => {
                let mut inventory =
                    plan::take_tags(registries, graph, targets, &closed, jobs, &self.environment.events).await?;
                inventory.rely_on(&self.proven_places(registries, request).await?);
                inventory
            }
            false => {
                plan::take_inventory(registries, graph, targets, &closed, jobs, before, &self.environment.events)
                    .await?
            }
        };
        for (tag, digest) in prepared.read_blocked(&inventory, registries).await? {
            let why = inventory.blocked.remove(&tag).unwrap_or_default();
            inventory.withheld.insert((tag.repository.clone(), digest), why);
            if !self.options.reupload {
                inventory.manifests.insert((tag.repository.clone(), digest));
            }
            inventory.tags.insert(tag, digest);
        }
        let moved = inventory.moved(graph, targets);
        inventory.immutable = prepared.immutable(&moved, registries).await?;
        let on_existing = self.options.on_existing;
        let plan =
            Plan::proven(registries, graph, targets, &mut inventory, on_existing, jobs, &self.environment.events)
                .await?;
        check_places(request, &inventory)?;
        // The push itself reports it when it is done.
        let replaced =
            plan.images.iter().filter(|_| self.options.dry_run).filter_map(|step| Some((step, step.replaced()?)));
        for (step, digest) in replaced {
            self.environment.events.report(Event::Notice(format!("{} is overwritten; it was {digest}", step.to)));
        }
        notices::notices(&plan).into_iter().for_each(|notice| self.environment.events.report(Event::Notice(notice)));
        Ok(plan)
    }

    /// Returns which of the blobs that the source expects at the target are intact there. A push that relies on nothing
    /// else reads each of them to its end. A dry run does not read that much: it only requests the last bytes.
    ///
    /// # Errors
    /// A blob could not be read.
    async fn proven_places(
        &self,
        registries: &Registries,
        request: &PushRequest<'_>,
    ) -> Result<HashMap<Digest, Repository>> {
        let mut places = request.places.clone();
        if places.is_empty() || self.options.dry_run {
            return Ok(places);
        }
        let blobs = request.graph.blobs().into_iter();
        let blobs = blobs.filter_map(|blob| Some((places.get(&blob.digest)?.clone(), blob))).collect();
        let (target, events) = (registries.itself(), self.environment.events.clone());
        let options = prove::Options { jobs: self.jobs(), every_repository: false };
        for (digest, error) in (prove::ImageProver { target: &target, options, events }).broken(blobs).await? {
            self.environment.events.report(Event::Warning(error.chain()));
            places.remove(&digest);
        }
        Ok(places)
    }
}

/// Checks that the target can return every blob that the source expects there, because nothing else can supply them.
///
/// # Errors
/// [`Kind::Lacking`]: a blob cannot be returned.
fn check_places(request: &PushRequest<'_>, inventory: &plan::Inventory) -> Result<()> {
    let is_lost = |(digest, place): &(&Digest, &Repository)| inventory.elsewhere.get(digest) != Some(place);
    let lost: BTreeMap<_, _> = request.places.iter().filter(is_lost).collect();
    let Some((digest, place)) = lost.first_key_value() else { return Ok(()) };
    request.note_lacking.map_or(Ok(()), |note| note(&lost.keys().map(|digest| **digest).collect()))?;
    let blobs = count(lost.len(), "blob");
    let text =
        format!("the bundle relies on {blobs} that the target claims to have and cannot return: {digest} in {place}");
    Err(Error::new(Kind::Lacking, format!("{text}; nothing was pushed")))
}
