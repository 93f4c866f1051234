//! Reads through mirrors: each request goes to the endpoints of a repository in order, until one has the answer.
//!
//! A mirror that lacks something, is down or refuses is passed over with a warning. The registry itself comes last, and
//! only its “no” counts. Content from a mirror is verified like any other. Once something is found at one endpoint, its
//! parts are read there too: the endpoint of a tag's manifest is asked for the manifest's children. A mirror that fails
//! repeatedly is left out for a while (`health`). A mirror that gave wrong bytes is not asked for that blob again
//! (`suspects`), and is left out for a while if it does so often. The registry itself is asked again a few times,
//! because no other endpoint is left. When an endpoint breaks off within a blob, the next one continues (`failover`).

mod endpoint;
mod failover;
mod health;
mod suspects;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use serde::Serialize;

use super::auth::Scopes;
use super::failure::Failure;
use super::retry::Tries;
use super::{Reach, Registries, download, manifests, referrers, tags};
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::{Event, Events};
use crate::content::{Body, Need, ReferrerList, TagList};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::routes::{PullSource, Serves};
use endpoint::Endpoint;
use failover::Failover;
use health::CircuitBreaker;
use suspects::{EndpointReads, Suspects, WrongBlob};

/// The endpoints of the repositories read so far.
#[derive(Default)]
pub(super) struct Mirrors {
    endpoints: Mutex<HashMap<Repository, Arc<Endpoints>>>,
    breakers: Mutex<HashMap<Reach, Arc<CircuitBreaker>>>,
}

/// What one endpoint delivered of a repository that has mirrors or has moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// The repository as references name it.
    pub repository: Repository,
    /// The repository it was read from.
    pub from: Repository,
    /// Number of manifests that were read there.
    pub manifest_count: u64,
    pub blobs: u64,
    /// Bytes of blobs.
    pub bytes: u64,
}

impl Registries {
    /// What was read from where, for repositories that have mirrors or have moved; sorted.
    pub fn served(&self) -> Vec<Served> {
        let known = self.0.mirrors.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut served: Vec<Served> =
            known.values().filter(|endpoints| !endpoints.is_plain()).flat_map(|endpoints| endpoints.served()).collect();
        served.sort_by(|a, b| (&a.repository, &a.from).cmp(&(&b.repository, &b.from)));
        served
    }

    /// The repository from which the manifest with this digest was read, if that was a mirror or the place to which
    /// `repository` has moved.
    pub fn served_by(&self, repository: &Repository, digest: &Digest) -> Option<Repository> {
        let known = self.0.mirrors.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = known.get(repository)?;
        let from = &endpoints.all.get(endpoints.found_at(digest)?)?.repository;
        (from != repository).then(|| from.clone())
    }

    /// # Errors
    /// The repository is blocked, or the routes do not yield a valid name for it.
    pub(super) fn endpoints(&self, repository: &Repository) -> Result<Arc<Endpoints>> {
        let known = self.0.mirrors.endpoints.lock().unwrap_or_else(PoisonError::into_inner).get(repository).cloned();
        if let Some(endpoints) = known {
            return Ok(endpoints);
        }
        let places = self.0.wire.config.routes.pull(repository)?;
        let own = places.len() - 1;
        let all =
            places.into_iter().enumerate().map(|(at, place)| Arc::new(self.endpoint(repository, place, at == own)));
        let (all, events) = (all.collect(), self.0.wire.events.clone());
        let (found, suspects, tries) = Default::default();
        let endpoints = Arc::new(Endpoints { repository: repository.clone(), all, found, suspects, tries, events });
        let mut known = self.0.mirrors.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.entry(repository.clone()).or_insert(endpoints).clone())
    }

    fn endpoint(&self, wanted: &Repository, place: PullSource, last: bool) -> Endpoint {
        let PullSource { repository, insecure, serves } = place;
        let mirror = !last || repository.registry() != wanted.registry();
        let reach = Reach { registry: repository.registry().to_owned(), insecure, mirror, patient: last };
        let mut breakers = self.0.mirrors.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let breaker = (!last).then(|| breakers.entry(reach.clone()).or_default().clone());
        Endpoint::new(self.reach(reach), repository, serves, breaker)
    }
}

/// The endpoints of one repository.
pub(super) struct Endpoints {
    repository: Repository,
    /// In the order in which they are asked; never empty. The last is the registry itself.
    all: Vec<Arc<Endpoint>>,
    /// The endpoint that has a manifest, and what the manifest points to if that is not where it would be looked for.
    found: Mutex<HashMap<Digest, usize>>,
    suspects: Suspects,
    /// The retries for blobs of which the registry itself gave wrong bytes.
    tries: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Tries>>>>,
    events: Events,
}

impl Endpoints {
    /// Whether the repository has no mirrors and has not moved.
    fn is_plain(&self) -> bool {
        self.all.len() == 1 && self.all.iter().all(|endpoint| endpoint.repository == self.repository)
    }

    pub async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        let ask = |endpoint: Arc<Endpoint>| async move {
            manifests::resolve(&endpoint.host, &endpoint.named(reference), Scopes::pull(&endpoint.repository), need)
                .await
        };
        let found = self.first(reference, need, ask).await.map_err(of_object)?;
        Ok(found.map(|(at, descriptor)| {
            self.note(descriptor.digest, at);
            descriptor
        }))
    }

    pub async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        let ask = |endpoint: Arc<Endpoint>| async move {
            manifests::get(&endpoint.host, &endpoint.named(reference), Scopes::pull(&endpoint.repository), need).await
        };
        let found = self.first(reference, need, ask).await.map_err(of_object)?;
        Ok(found.map(|(at, manifest)| {
            self.note_manifest(&manifest, at);
            manifest
        }))
    }

    /// The first list that is not empty and not in doubt. A mirror with an empty list may know less than the registry,
    /// so the registry is asked as well. If no endpoint has such a list, a list in doubt is returned, or an empty one
    /// if any endpoint answered.
    pub async fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        let (mut nothing, mut doubtful): (bool, Option<ReferrerList>) = Default::default();
        let (order, need) = (self.order(Some(subject)), Need::Optional);
        for (place, at) in order.iter().enumerate() {
            let endpoint = self.endpoint(*at);
            let asked = referrers::list(&endpoint.host, &endpoint.repository, subject);
            match endpoint.attempt(asked, need, &self.events).await {
                Ok(list) if !list.found.is_empty() && list.doubt.is_none() => return Ok(list),
                Ok(list) if list.found.is_empty() => nothing = true,
                Ok(list) => doubtful = doubtful.or(Some(list)),
                Err(error) if !passes_on(&error) => return Err(error),
                Err(error) if place + 1 == order.len() && !nothing && doubtful.is_none() => return Err(error),
                Err(error) => self.passed_over(&endpoint, &error),
            }
        }
        Ok(doubtful.unwrap_or_default())
    }

    /// The registry's own list, because a mirror may have only part of it; a mirror's list only if the registry cannot
    /// be reached.
    pub async fn tags(&self, need: Need) -> Result<TagList> {
        let own = self.all.len() - 1;
        let endpoint = self.endpoint(own);
        let asked = tags::list(&endpoint.host, &endpoint.repository, need);
        let error = match endpoint.attempt(asked, need, &self.events).await {
            Ok(tags) => return Ok(tags),
            Err(error) if error.kind() != Kind::Network => return Err(error),
            Err(error) => error,
        };
        for at in self.order(None).into_iter().filter(|at| *at != own) {
            let endpoint = self.endpoint(at);
            let asked = tags::list(&endpoint.host, &endpoint.repository, need);
            match endpoint.attempt(asked, need, &self.events).await {
                Ok(mut list) => {
                    let (own, why) = (&self.repository, error.chain());
                    let text = format!(
                        "the list of tags of {own} comes from {} and may be incomplete: {why}",
                        endpoint.repository
                    );
                    list.doubts.push(text);
                    return Ok(list);
                }
                Err(other) if !passes_on(&other) => return Err(other),
                Err(other) => self.passed_over(&endpoint, &other),
            }
        }
        Err(error)
    }

    pub async fn blob(self: &Arc<Endpoints>, blob: &Descriptor, offset: u64) -> Result<Body> {
        let opened = match self.is_plain() {
            true => {
                let endpoint = self.endpoint(0);
                download::blob(endpoint.host.clone(), &endpoint.repository, blob, offset).await
            }
            false => Failover::open(self.clone(), blob, offset).await,
        };
        let Body { offset, stream, .. } = opened.map_err(of_object)?;
        Ok(Body::new(offset, stream.map(|piece| piece.map_err(of_object)).boxed()))
    }

    /// See [`Source::gave_wrong`](crate::content::Source::gave_wrong).
    pub async fn gave_wrong(&self, blob: &Descriptor, error: Error) -> Result<()> {
        let own = self.all.len() - 1;
        let WrongBlob { given, from } = self.suspects.accuse(&blob.digest, own);
        given.into_iter().for_each(|(at, given)| self.all[at].discount(given));
        if from.is_empty() || from == [own] {
            return self.own_gave_wrong(&blob.digest, error).await;
        }
        let places: Vec<String> = from.iter().map(|at| self.all[*at].repository.to_string()).collect();
        let (places, why) = (places.join(" and "), error.chain());
        let text = match from[..] {
            [_] => format!("mirror {places} gave wrong bytes and is not asked for this blob again: {why}"),
            _ => format!(
                "the parts of a blob from {places} do not fit together; reading all of it from one of them: {why}"
            ),
        };
        self.events.report(Event::Warning(text));
        if let [mirror] = from[..] {
            self.all[mirror].gave_wrong(&error, &self.events);
        }
        Ok(())
    }

    /// Waits before the registry itself is asked again, a limited number of times: no other endpoint is left.
    async fn own_gave_wrong(&self, blob: &Digest, error: Error) -> Result<()> {
        let own = self.endpoint(self.all.len() - 1);
        let tries = {
            let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || own.host.tries(&format!("reading blob {blob} of {}", own.repository)).after_wrong_answer();
            tries.entry(*blob).or_insert_with(|| Arc::new(new().into())).clone()
        };
        let again = tries.lock().await.again(Failure::soon(error)).await;
        again.map_err(|error| error.while_doing(format!("reading from {}", own.repository)))
    }

    /// Records what an endpoint gave of a blob. Whether the bytes are right is not known yet.
    fn note_given(&self, blob: &Digest, at: usize, given: EndpointReads) {
        self.all[at].count(given);
        self.suspects.note(blob, at, given);
    }

    /// Announces that the repository will be read.
    pub fn expect(&self) {
        self.all.iter().for_each(|endpoint| endpoint.host.auth.expect(endpoint.repository.path()));
    }

    pub fn counts_pulls(&self) -> bool {
        self.all.iter().any(|endpoint| endpoint.host.gate.counts_pulls())
    }

    /// The endpoint at this index.
    fn endpoint(&self, at: usize) -> Arc<Endpoint> {
        self.all[at].clone()
    }

    /// The indices of the endpoints to ask, for a digest or, with `None`, for a tag.
    fn order(&self, digest: Option<&Digest>) -> Vec<usize> {
        let unfit = if digest.is_some() { Serves::Tags } else { Serves::Digests };
        let found = digest.and_then(|digest| self.found_at(digest));
        let fit = (0..self.all.len()).filter(|at| self.all[*at].serves != unfit && Some(*at) != found);
        found.into_iter().chain(fit).collect()
    }

    fn found_at(&self, digest: &Digest) -> Option<usize> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(digest).copied()
    }

    fn note(&self, digest: Digest, at: usize) {
        if !self.is_plain() {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, at);
        }
    }

    /// Records where a manifest was found. What it points to is looked for there as well.
    fn note_manifest(&self, manifest: &Manifest, at: usize) {
        if self.is_plain() {
            return;
        }
        self.all[at].count_manifest();
        self.note(manifest.digest(), at);
        let usual = self.all.iter().position(|endpoint| endpoint.serves != Serves::Tags);
        if usual != Some(at) {
            manifest.children().iter().for_each(|child| self.note(child.descriptor.digest, at));
        }
    }

    fn served(&self) -> Vec<Served> {
        let served = self.all.iter().map(|endpoint| endpoint.served(&self.repository));
        served.filter(|served| served.manifest_count + served.blobs > 0).collect()
    }

    /// The first answer that is not “no”, with the index of its endpoint. Without one, the registry's own answer
    /// counts.
    async fn first<T, F>(
        &self,
        wanted: &Reference,
        need: Need,
        ask: impl Fn(Arc<Endpoint>) -> F,
    ) -> Result<Option<(usize, T)>>
    where
        F: Future<Output = Result<Option<T>>>,
    {
        let (mut own, mut lacking): (_, Vec<Arc<Endpoint>>) = (Ok(None), Vec::new());
        for at in self.order(wanted.digest.as_ref()) {
            let endpoint = self.endpoint(at);
            let is_own = at + 1 == self.all.len();
            match endpoint.attempt(ask(endpoint.clone()), need, &self.events).await {
                Ok(Some(found)) => {
                    lacking.iter().for_each(|lacking| self.lacks(lacking, wanted, &endpoint));
                    return Ok(Some((at, found)));
                }
                Ok(None) if is_own => own = Ok(None),
                Ok(None) => lacking.push(endpoint),
                Err(error) if !passes_on(&error) => return Err(error),
                Err(error) if is_own => own = Err(error),
                Err(error) => self.passed_over(&endpoint, &error),
            }
        }
        own
    }

    fn lacks(&self, mirror: &Endpoint, wanted: &Reference, found: &Endpoint) {
        let text = format!("mirror {} lacks {wanted}; {} has it", mirror.repository, found.repository);
        self.events.report(Event::Warning(text));
    }

    /// Warns that an endpoint failed, unless it was left out, which was reported before.
    fn passed_over(&self, endpoint: &Endpoint, error: &Error) {
        if !health::is_left_out(error) {
            let text = format!("passing over {}: {}", endpoint.repository, error.chain());
            self.events.report(Event::Warning(text));
        }
    }
}

/// Changes the kind of an error if the registry fails on one object and answers other requests: it refuses this object,
/// and the network works.
fn of_object(error: Error) -> Error {
    match error.reason() {
        Some(Reason::Undelivered) => error.of_kind(Kind::Refused),
        _ => error,
    }
}

/// Whether another endpoint may succeed. None helps with a problem on this side.
fn passes_on(error: &Error) -> bool {
    match error.kind() {
        Kind::Input | Kind::Disk | Kind::Lacking | Kind::Interrupted => false,
        Kind::Damaged | Kind::NotFound | Kind::Unauthorized | Kind::Refused | Kind::RateLimited | Kind::Network => true,
    }
}
