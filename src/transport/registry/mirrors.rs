//! Reads through mirrors: each question goes to the endpoints of a repository in order until one has the answer.
//!
//! A mirror that lacks something, is down or refuses is skipped with a warning. The registry itself is last, and only
//! its "no" is believed. Content from a mirror is proven like any other. Whatever was found at one endpoint is read to
//! its end there: the children of a tag's manifest are where the manifest is. A mirror that fails repeatedly is skipped
//! for a while (`health`). A mirror that sent wrong bytes is not asked for that blob again (`suspects`), and if it does
//! so often, for nothing for a while. The registry itself is asked again, a few times, since no other endpoint is left.
//! If an endpoint breaks off within a blob, the next one continues (`failover`).

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

/// The endpoints of the repositories that were read so far.
#[derive(Default)]
pub(super) struct Mirrors {
    endpoints: Mutex<HashMap<Repository, Arc<Endpoints>>>,
    breakers: Mutex<HashMap<Reach, Arc<CircuitBreaker>>>,
}

/// What one endpoint delivered for a repository that has mirrors or has moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Served {
    /// The repository as references name it.
    pub repository: Repository,
    /// Where it was read.
    pub from: Repository,
    /// Number of manifests that were read there.
    pub manifest_count: u64,
    pub blobs: u64,
    /// Bytes of blobs.
    pub bytes: u64,
}

impl Registries {
    /// What was read where, for repositories that have mirrors or have moved, sorted.
    pub fn served(&self) -> Vec<Served> {
        let known = self.0.mirrors.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut served: Vec<Served> =
            known.values().filter(|endpoints| !endpoints.is_plain()).flat_map(|endpoints| endpoints.served()).collect();
        served.sort_by(|a, b| (&a.repository, &a.from).cmp(&(&b.repository, &b.from)));
        served
    }

    /// Returns where the manifest with this digest was read, if that was a mirror or the place that `repository` has
    /// moved to.
    pub fn served_by(&self, repository: &Repository, digest: &Digest) -> Option<Repository> {
        let known = self.0.mirrors.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = known.get(repository)?;
        let from = &endpoints.all.get(endpoints.found_at(digest)?)?.repository;
        (from != repository).then(|| from.clone())
    }

    /// # Errors
    /// The repository is blocked, or the routes lead to an invalid name.
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

/// The endpoints from which one repository is read.
pub(super) struct Endpoints {
    repository: Repository,
    /// In the order in which they are asked. Never empty; the last is the registry itself.
    all: Vec<Arc<Endpoint>>,
    /// Where each manifest was found, and where its children are, if that is not the default.
    found: Mutex<HashMap<Digest, usize>>,
    suspects: Suspects,
    /// The tries for blobs that the registry itself sent wrong.
    tries: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<Tries>>>>,
    events: Events,
}

impl Endpoints {
    /// Whether there is only the registry under its own name.
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

    /// Returns the first list that is not empty. A mirror without one may know less than the registry, so the registry
    /// is asked too. If it cannot be asked, the empty list stands, and the same holds for a list in doubt.
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

    /// Returns the registry's own list, since a mirror may have part of it. A mirror's list counts only if the registry
    /// cannot be asked.
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
                        "the tags of {own} are those {} has, maybe not all of them: {why}",
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
            [_] => format!("mirror {places} gave wrong bytes and is not asked for them again: {why}"),
            _ => format!("what {places} gave of a blob makes no whole; reading it from one of them alone: {why}"),
        };
        self.events.report(Event::Warning(text));
        if let [mirror] = from[..] {
            self.all[mirror].gave_wrong(&error, &self.events);
        }
        Ok(())
    }

    /// The registry itself is asked again, after a pause and a limited number of times, because no other endpoint is
    /// left.
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

    /// Records what an endpoint sent of a blob. It is not known yet whether the bytes are right.
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

    /// The endpoint with this number.
    fn endpoint(&self, at: usize) -> Arc<Endpoint> {
        self.all[at].clone()
    }

    /// Returns the numbers of the endpoints to ask, by digest or by tag.
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

    /// The children of a manifest are where the manifest was.
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

    /// Returns the first answer that is not "no", and the endpoint that gave it. If there is none, the registry's own
    /// answer counts.
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

    /// Warns that an endpoint failed. The pause of a mirror is reported elsewhere.
    fn passed_over(&self, endpoint: &Endpoint, error: &Error) {
        if !health::is_left_out(error) {
            let text = format!("passing over {}: {}", endpoint.repository, error.chain());
            self.events.report(Event::Warning(text));
        }
    }
}

/// A registry that fails on one object and answers otherwise is reachable: it does not deliver this object.
fn of_object(error: Error) -> Error {
    match error.reason() {
        Some(Reason::Undelivered) => error.of_kind(Kind::Refused),
        _ => error,
    }
}

/// Whether another endpoint may succeed. It cannot if the problem is on this side.
fn passes_on(error: &Error) -> bool {
    match error.kind() {
        Kind::Input | Kind::Disk | Kind::Lacking | Kind::Interrupted => false,
        Kind::Damaged | Kind::NotFound | Kind::Unauthorized | Kind::Refused | Kind::RateLimited | Kind::Network => true,
    }
}
