//! Proves what a plan relies on at the target before anything is pushed.
//!
//! A registry may claim a blob because of a cache that a garbage collection, a full disk or a restored backup did not
//! reach. So before a manifest that names such a blob is put, or the blob is mounted elsewhere, its last byte is read.
//! For a mount, the blob is proven at the place that it is mounted from: registries keep one copy, and a mount only
//! adds a name. An image that exists as a whole relies on nothing, so a run that changes nothing asks nothing more.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Action, Inventory, OnExisting, Plan, Targets};
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::content::{Readable, Sink};
use crate::oci::{Descriptor, Digest, Repository};
use crate::pipeline::graph::Graph;

/// Maximum number of lost blobs in a message.
const MOST_NAMED: usize = 20;

impl Plan {
    /// Returns a plan that relies only on blobs that can be read. `inventory` loses the others.
    ///
    /// # Errors
    /// A question without a clear answer.
    pub async fn proven(
        sink: &dyn Sink,
        graph: &Graph,
        targets: &Targets,
        inventory: &mut Inventory,
        on_existing: OnExisting,
        jobs: usize,
        events: &Events,
    ) -> Result<Plan> {
        let prover = Prover {
            sink,
            jobs: jobs.max(1),
            events,
            closed: Mutex::default(),
            blind: Mutex::default(),
            reported: Mutex::default(),
            sighted: Mutex::default(),
            assumed: inventory.elsewhere.clone(),
        };
        let mut asked = HashSet::new();
        loop {
            let plan = Plan::new(graph, targets, inventory, on_existing);
            let relied = plan.relied_on(graph, inventory);
            let new = relied.into_iter().filter(|(place, blob)| asked.insert(((*place).clone(), blob.digest)));
            let new = new.map(|(place, blob)| (place.clone(), blob.clone()));
            let lost = prover.lost(new.collect()).await?;
            if lost.is_empty() {
                return Ok(plan);
            }
            lost.iter().for_each(|(place, digest)| inventory.forget(place, digest));
        }
    }

    /// Returns the blobs that exist and that images to be pushed need, and those that will be mounted from somewhere.
    fn relied_on<'p>(&'p self, graph: &'p Graph, inventory: &Inventory) -> Vec<(&'p Repository, &'p Descriptor)> {
        let mut relied = Vec::new();
        for (image, step) in graph.images.iter().zip(&self.images).filter(|(_, step)| step.action == Action::Push) {
            let repository = &step.to.repository;
            let is_there = |blob: &&Descriptor| inventory.blobs.contains(&(repository.clone(), blob.digest));
            relied.extend(image.blobs.iter().filter(is_there).map(|blob| (repository, blob)));
        }
        relied.extend(self.blobs.iter().filter_map(|step| Some((step.present.first()?, &step.blob))));
        relied
    }
}

impl Inventory {
    /// Records that the repository does not have the blob after all.
    fn forget(&mut self, repository: &Repository, digest: &Digest) {
        self.blobs.remove(&(repository.clone(), *digest));
        if self.elsewhere.get(digest) == Some(repository) {
            self.elsewhere.remove(digest);
        }
    }
}

struct Prover<'a> {
    sink: &'a dyn Sink,
    jobs: usize,
    events: &'a Events,
    /// Repositories that this account may not read: no more is asked there.
    closed: Mutex<HashSet<Repository>>,
    /// Registries that deliver nothing here, because their storage is unreachable or answers strangely: no more is
    /// asked of them.
    blind: Mutex<HashSet<String>>,
    /// Registries for which that was reported.
    reported: Mutex<HashSet<String>>,
    /// Registries whose storage has delivered something.
    sighted: Mutex<HashSet<String>>,
    /// Blobs that the job lacks and expects at the target, and where.
    assumed: HashMap<Digest, Repository>,
}

impl Prover<'_> {
    /// Returns those that cannot be read.
    async fn lost(&self, blobs: Vec<(Repository, Descriptor)>) -> Result<Vec<(Repository, Digest)>> {
        if !blobs.is_empty() {
            let items = blobs.len() as u64;
            self.events.report(Event::Phase { phase: Phase::Inventory, items, bytes: 0 });
        }
        let mut lost: Vec<(Repository, Digest, String)> = stream::iter(blobs)
            .map(|(place, blob)| async move {
                let why = self.why_not_readable(&place, &blob).await?;
                self.events.report(Event::ItemDone);
                Ok::<_, Error>(why.map(|why| (place, blob.digest, why)))
            })
            .buffer_unordered(self.jobs)
            .try_filter_map(|lost| async move { Ok(lost) })
            .try_collect()
            .await?;
        lost.sort();
        for here in lost.chunk_by(|one, other| one.0.registry() == other.0.registry()) {
            self.events.report(Event::Warning(claimed(here)));
            here.iter()
                .for_each(|(place, digest, why)| tracing::info!("{place} claims to have blob {digest}, but {why}"));
        }
        Ok(lost.into_iter().map(|(place, digest, _)| (place, digest)).collect())
    }

    /// `None` if it can be read, or that cannot be found out; storing the manifest is the proof then.
    async fn why_not_readable(&self, place: &Repository, blob: &Descriptor) -> Result<Option<String>> {
        let registry = place.registry();
        let is_closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).contains(place);
        if is_closed || self.blind.lock().unwrap_or_else(PoisonError::into_inner).contains(registry) {
            return Ok(None);
        }
        let mut found = self.sink.can_read(place, blob).await?;
        // Storage that answers everything from here with 403 has not lost anything. What can be sent again is sent; for
        // the rest the manifest is the proof.
        if let Readable::PerhapsLost(why) = &found
            && self.assumed.get(&blob.digest) == Some(place)
            && !self.sighted.lock().unwrap_or_else(PoisonError::into_inner).contains(registry)
        {
            found = Readable::Unknown(why.clone());
        }
        let event = match found {
            Readable::Yes => {
                self.sighted.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned());
                return Ok(None);
            }
            Readable::No(why) | Readable::Failed(why) | Readable::PerhapsLost(why) => return Ok(Some(why)),
            Readable::Denied => {
                self.closed.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone());
                Event::Notice(format!(
                    "this account may not read from {registry}: only storing the manifests proves that existing \
                     content can be read"
                ))
            }
            Readable::Unknown(why) => {
                self.blind.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned());
                Event::Warning(format!(
                    "existing content of {registry} cannot be read from here, so only storing the manifests proves \
                     it: {why}"
                ))
            }
        };
        if self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned()) {
            self.events.report(event);
        }
        Ok(None)
    }
}

/// Describes blobs that one registry claims to have.
fn claimed(lost: &[(Repository, Digest, String)]) -> String {
    match lost {
        [(place, digest, why)] => format!("{place} claims to have blob {digest}, but {why}; uploading it again"),
        [(place, _, why), ..] => {
            let named = lost.iter().take(MOST_NAMED).map(|(_, digest, _)| digest.to_string());
            let more =
                lost.len().checked_sub(MOST_NAMED).filter(|more| *more > 0).map(|more| format!("and {more} more"));
            let named: Vec<String> = named.chain(more).collect();
            let (number, named) = (lost.len(), named.join(", "));
            let repositories = lost.chunk_by(|one, other| one.0 == other.0).count();
            let claims = match repositories {
                1 => format!("{place} claims to have {number} blobs"),
                several => format!("{} claims to have {number} blobs in {several} repositories", place.registry()),
            };
            format!("{claims} that cannot be read (the first: {why}); uploading them again: {named}")
        }
        [] => String::new(),
    }
}
