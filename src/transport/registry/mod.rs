//! Registries: the OCI distribution protocol over HTTP, as a [`Source`] and a [`Sink`].
//!
//! One value, [`Registries`], serves every registry of a run. It finds out how to reach each one, authenticates, shares
//! connections, repeats requests that failed for a temporary reason, and reports every wait. Everything here is
//! bounded, and hashed or counted: what a registry states counts only if the bytes agree. The module knows nothing of
//! bundles, plans and progress bars.
//!
//! From the outside in:
//!
//! - [`Registries`] picks a `host::Host`, for reading by way of `mirrors`.
//! - `manifests`, `tags`, `referrers`, `download` and `upload` each implement one part of the protocol. `presence`
//!   finds out whether a blob exists, `last_byte` whether it can be read, `stored` whether the registry keeps what it
//!   accepted; `upload_body` is the body of an upload, `projects` limits parallel uploads, and `auth_check` tests
//!   whether access is granted at all.
//! - `host` adds authentication (`auth`, `challenge`), requests that can fail without harm (`questions`), the gate that
//!   a registry's rate limits close (`limit`), and what earlier answers have shown (`memory`; `read_after_write` for
//!   content that may be denied for a moment, `spent` for blobs that have used up their retries, `heads` for whether
//!   HEAD is reliable).
//! - `retry` decides what follows a `failure`, with `outage` for a server that is down, `peers` for the servers that a
//!   registry needs besides itself, `read_only` for a registry that accepts no changes for now, `rounds` for waits that
//!   all requests share, and `liveness` for signs of life while a request waits. `root` finds the registry's root and
//!   asks whether the registry is up; `health` reads what a Harbor reports about itself.
//! - `wire` makes one HTTP exchange. It sends a `call` to the address that `resolver` finds, trusts servers as `tls`
//!   and `certs` say, follows redirects (`location`), and returns the `reply`, or the reason why there was no answer
//!   (`unanswered`). `stall_timeout` is how slow the other side may be; `answer` reads refusals, and `refusals` the
//!   causes they name; `facts` are what errors know; `trace` shows every exchange, masked.
//!
//! Dependencies run one way: no two files use each other, not even through others. A test checks this.

mod answer;
mod auth;
mod auth_check;
mod call;
mod certs;
mod challenge;
mod config;
mod content_range;
mod denials;
mod download;
mod facts;
mod failure;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod heads;
mod health;
mod host;
mod itself;
mod lane;
mod last_byte;
mod limit;
mod link;
mod liveness;
mod location;
mod loopback;
mod manifests;
mod memory;
mod mirrors;
mod mount;
mod outage;
mod paging;
mod peers;
mod presence;
mod projects;
mod proxy;
mod questions;
mod read_after_write;
mod read_only;
mod referrers;
mod refusals;
mod reply;
mod resolver;
mod retry;
mod retry_after;
mod root;
mod rounds;
mod spent;
mod stall_timeout;
mod stored;
mod tag_page;
mod tags;
mod tls;
mod tls_words;
mod trace;
mod unanswered;
mod upload;
mod upload_body;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::Method;

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events};
use crate::content::{
    Account, Api, ApiAnswer, ApiRequest, Body, Files, Lookup, Need, Origin, Probed, Readable, ReferrerList, Sink,
    Source, Stored, TagDeletion, TagList,
};
use crate::oci::{Descriptor, Digest, Manifest, Reference, Repository};
use crate::routes::PullSource;
pub use auth_check::AuthCheck;
use call::{Call, Payload};
pub use config::{Config, RegistryConfig, TlsConfig};
pub use denials::Denials;
pub use facts::{BlobFault, NoAnswer, Symptom, TlsProblem, UnexpectedStatus, WebPage};
use failure::is_transient;
use host::Host;
pub use itself::Itself;
pub use mirrors::Served;
use projects::Projects;
pub use proxy::Proxies;
use wire::Wire;

/// The largest answer to [`Api::call`], in bytes.
const MOST_API_BYTES: u64 = 4 * 1024 * 1024;
/// How often a Harbor is asked for its API before the API counts as unreachable.
const PROBES: u32 = 3;

/// All registries of a run. Cheap to clone; clones share connections, tokens and limits.
#[derive(Clone)]
pub struct Registries(Arc<Shared>);

struct Shared {
    wire: Arc<Wire>,
    hosts: Mutex<HashMap<Reach, Arc<Host>>>,
    /// By registry, `host[:port]`.
    projects: Mutex<HashMap<String, Arc<Projects>>>,
    mirrors: mirrors::Mirrors,
    denials: Mutex<Denials>,
}

/// A registry, and how it is reached.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Reach {
    registry: String,
    /// The registry need not prove its identity. The routes may say so for part of a registry, which then has two
    /// entries.
    insecure: bool,
    /// The registry is a mirror of another one.
    mirror: bool,
    /// No other endpoint is left to ask.
    patient: bool,
}

impl Registries {
    /// # Errors
    /// A certificate file in `config` cannot be used.
    pub fn new(config: Config, events: Events) -> Result<Registries> {
        config.check()?;
        let wire = Arc::new(Wire::new(config, events));
        let (hosts, projects, mirrors, denials) = Default::default();
        Ok(Registries(Arc::new(Shared { wire, hosts, projects, mirrors, denials })))
    }

    /// Sets how a target's denial of a look-up is treated from now on.
    pub fn take_denials(&self, as_what: Denials) {
        *self.0.denials.lock().unwrap_or_else(PoisonError::into_inner) = as_what;
    }

    /// From now on, allows at most `at_once` uploads into one project of `registry` at the same time, and as many
    /// mounts.
    pub fn limit_uploads_per_project(&self, registry: &str, at_once: usize) {
        self.projects(registry).limit(at_once);
    }

    /// Announces that these repositories will be read: if one token can serve several of them, a single one is
    /// requested.
    pub fn expect<'r>(&self, repositories: impl IntoIterator<Item = &'r Repository>) {
        // A repository that cannot be reached fails when it is read.
        repositories.into_iter().filter_map(|repository| self.endpoints(repository).ok()).for_each(|all| all.expect());
    }

    /// Notes that the tag was deleted, so that a list of tags without it may be complete.
    pub fn forget_tag(&self, tag: &Reference) {
        if let Ok(host) = self.target(&tag.repository) {
            host.memory.forget_answered(tag);
        }
    }

    fn host(&self, registry: &str) -> Arc<Host> {
        let insecure = self.0.wire.config.routes.is_insecure(registry);
        self.reach(Reach { registry: registry.to_owned(), insecure, mirror: false, patient: true })
    }

    /// One for all endpoints of a registry, because the same Harbor is behind them.
    fn projects(&self, registry: &str) -> Arc<Projects> {
        let mut projects = self.0.projects.lock().unwrap_or_else(PoisonError::into_inner);
        projects.entry(registry.to_owned()).or_default().clone()
    }

    /// The registry itself, to write to `repository`.
    fn target(&self, repository: &Repository) -> Result<Arc<Host>> {
        let PullSource { insecure, .. } = self.0.wire.config.routes.push(repository)?;
        Ok(self.reach(Reach { registry: repository.registry().to_owned(), insecure, mirror: false, patient: true }))
    }

    /// The repositories, grouped by how their registry is reached.
    fn by_host<'r>(&self, repositories: &'r [Repository]) -> Result<Vec<(Arc<Host>, Vec<&'r Repository>)>> {
        let mut hosts: Vec<(Arc<Host>, Vec<&Repository>)> = Vec::new();
        for repository in repositories {
            let host = self.target(repository)?;
            match hosts.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &host)) {
                Some((_, repositories)) => repositories.push(repository),
                None => hosts.push((host, vec![repository])),
            }
        }
        Ok(hosts)
    }

    fn reach(&self, mut reach: Reach) -> Arc<Host> {
        // A setting for the registry's name may override this.
        reach.insecure = self.0.wire.config.is_lax(&reach.registry, reach.insecure);
        let projects = self.projects(&reach.registry);
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |Reach { registry, insecure, mirror, patient }: &Reach| {
            let wire = &self.0.wire;
            let limits = if *patient { wire.limits.clone() } else { wire.limits.for_mirror() };
            let store = wire.config.store_for(registry, *mirror);
            Arc::new(Host::new(
                registry,
                Arc::new(wire.on_behalf_of(registry, *insecure, limits)),
                store,
                projects.clone(),
            ))
        };
        hosts.entry(reach).or_insert_with_key(new).clone()
    }
}

#[async_trait]
impl Source for Registries {
    async fn tags(&self, repository: &Repository, need: Need) -> Result<TagList> {
        self.endpoints(repository)?.tags(need).await
    }

    async fn resolve(&self, reference: &Reference, need: Need) -> Result<Option<Descriptor>> {
        self.endpoints(&reference.repository)?.resolve(reference, need).await
    }

    async fn manifest(&self, reference: &Reference, need: Need) -> Result<Option<Manifest>> {
        self.endpoints(&reference.repository)?.manifest(reference, need).await
    }

    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<ReferrerList> {
        self.endpoints(repository)?.referrers(subject).await
    }

    async fn blob(&self, repository: &Repository, blob: &Descriptor, offset: u64) -> Result<Body> {
        self.endpoints(repository)?.blob(blob, offset).await
    }

    async fn gave_wrong(&self, repository: &Repository, blob: &Descriptor, error: Error) -> Result<()> {
        match self.endpoints(repository) {
            Ok(endpoints) => endpoints.gave_wrong(blob, error).await,
            Err(_) => Err(error),
        }
    }

    /// True for Docker Hub, and for other registries that announce a limit.
    fn counts_pulls(&self, repository: &Repository) -> bool {
        self.endpoints(repository).is_ok_and(|endpoints| endpoints.counts_pulls())
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

/// Every request to a target has push scope, so that one token serves looking up and writing.
#[async_trait]
impl Sink for Registries {
    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool> {
        presence::has(&*self.target(repository)?, repository, blob).await
    }

    async fn can_read(&self, repository: &Repository, blob: &Descriptor) -> Result<Readable> {
        presence::can_read(&*self.target(repository)?, repository, blob).await
    }

    async fn resolve(&self, reference: &Reference) -> Result<Lookup> {
        let repository = &reference.repository;
        let denials = *self.0.denials.lock().unwrap_or_else(PoisonError::into_inner);
        manifests::look_up(&*self.target(repository)?, reference, denials).await
    }

    async fn read_manifest(&self, reference: &Reference) -> Result<Option<Manifest>> {
        let repository = &reference.repository;
        manifests::get(&*self.target(repository)?, reference, auth::Scopes::push(repository), Need::Required).await
    }

    async fn has_no_tags(&self, repository: &Repository) -> Result<bool> {
        tags::none(&*self.target(repository)?, repository).await
    }

    async fn mount(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool> {
        if repository.registry() != from.registry() || repository == from {
            return Ok(false);
        }
        mount::mount(&*self.target(repository)?, repository, blob, from).await
    }

    async fn put_blob(&self, repository: &Repository, blob: &Descriptor, origin: &Origin<'_>) -> Result<()> {
        upload::put(&*self.target(repository)?, repository, blob, origin).await
    }

    async fn is_listed(&self, repository: &Repository, manifest: &Manifest) -> Result<bool> {
        let Some(subject) = manifest.subject() else { return Ok(true) };
        let listed = referrers::list(&*self.target(repository)?, repository, &subject.digest).await;
        let listed = match listed {
            // If the manifest is not listed, storing it again lists it.
            Err(error) if error.stopped().is_none() && error.kind() != Kind::RateLimited => return Ok(false),
            listed => listed?,
        };
        Ok(listed.found.iter().any(|descriptor| descriptor.digest == manifest.digest()))
    }

    async fn put_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<Stored> {
        referrers::put(&*self.target(&reference.repository)?, reference, manifest).await
    }

    async fn delete_tag(&self, tag: &Reference) -> Result<TagDeletion> {
        manifests::delete(&*self.target(&tag.repository)?, tag).await
    }

    async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<TagDeletion> {
        manifests::delete(&*self.target(repository)?, &repository.with_digest(*digest)).await
    }

    async fn finish(&self) {
        let hosts: Vec<Arc<Host>> =
            self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for host in hosts {
            for ((repository, blob), session) in host.memory.take_sessions() {
                let what = format!("mounting blob {blob} into {repository}");
                upload::give_up(&host, &repository, session, &what).await;
            }
        }
    }
}

#[async_trait]
impl Api for Registries {
    async fn call(&self, account: Account<'_>, request: ApiRequest) -> Result<ApiAnswer> {
        let host = self.host(account.registry);
        let what = format!("calling {} {} of {}", request.method, request.path, account.registry);
        let mut tries = host.tries(&what);
        loop {
            let failure = match api_call(&host, account, &request, &what).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            tries.again(failure).await?;
        }
    }

    async fn accounts(&self, repositories: &[Repository]) -> Result<Vec<Vec<Repository>>> {
        let mut accounts = Vec::new();
        for (host, here) in self.by_host(repositories)? {
            let known = host.auth.by_account(here.iter().map(|it| it.path().to_owned()).collect()).await?;
            let named = |path: &String| here.iter().find(|it| it.path() == path).map(|it| (*it).clone());
            accounts.extend(known.iter().map(|paths| paths.iter().filter_map(named).collect()));
        }
        Ok(accounts)
    }

    async fn grants(&self, repositories: &[Repository]) -> Result<HashMap<Repository, BTreeSet<String>>> {
        let mut grants = HashMap::new();
        for (host, repositories) in self.by_host(repositories)? {
            let granted = host.share_tokens(repositories.iter().map(|it| it.path().to_owned()).collect()).await?;
            let of = |repository: &&Repository| Some(((*repository).clone(), granted.get(repository.path())?.clone()));
            grants.extend(repositories.iter().filter_map(of));
        }
        Ok(grants)
    }

    async fn probe(&self, account: Account<'_>, path: &str) -> Result<Probed> {
        let registry = account.registry;
        let host = self.host(registry);
        // A server that cannot be reached is an error, not an answer about Harbor's API.
        host.base().await?;
        let request = ApiRequest { method: "GET", path: path.to_owned(), ..ApiRequest::default() };
        let what = format!("calling GET {path} of {registry}");
        let is_harbor = host.auth.is_harbor();
        let (mut tries, mut left) = (host.tries(&what), if is_harbor { PROBES } else { 1 });
        let error = loop {
            let failure = match api_call(&host, account, &request, &what).await {
                Ok(answer) => return Ok(Probed::Answered(answer)),
                Err(failure) => failure,
            };
            left -= 1;
            if left == 0 {
                break failure.error;
            }
            if let Err(error) = tries.again(failure).await {
                break error;
            }
        };
        if is_harbor {
            return Ok(Probed::Unclear(error));
        }
        if !host.memory.no_api.swap(true, Ordering::Relaxed) {
            let text = format!("{registry} is treated as a registry without Harbor's API: {}", error.chain());
            host.wire.events.report(Event::Notice(text));
        }
        Ok(Probed::Nothing)
    }

    async fn wait_for_changes(&self, registry: &str, refusal: Error) -> Result<()> {
        let mut waited = read_only::Waited::default();
        self.host(registry).wire.read_only.wait(Instant::now(), &mut waited, refusal).await
    }

    fn takes_changes(&self, registry: &str) {
        self.host(registry).wire.read_only.lifted(Instant::now());
    }
}

async fn api_call(
    host: &Host,
    account: Account<'_>,
    request: &ApiRequest,
    what: &str,
) -> Result<ApiAnswer, failure::Failure> {
    let invalid = |reason: String| failure::Failure::never(Error::input(format!("{what}: {reason}")));
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|e| invalid(e.to_string()))?;
    let url = host.url(&request.path).await.map_err(failure::Failure::never)?;
    let mut headers = reqwest::header::HeaderMap::new();
    for (name, value) in &request.headers {
        let value =
            value.parse().map_err(|_| invalid(format!("header {name} has a value that is not allowed in a header")))?;
        headers.insert(*name, value);
    }
    let body = match &request.json {
        Some(json) => {
            headers.insert("content-type", reqwest::header::HeaderValue::from_static("application/json"));
            Bytes::from(json.to_string())
        }
        None => Bytes::new(),
    };
    let _lane = host.reads.enter().await;
    host.pass(what).await.map_err(failure::Failure::never)?;
    let authorization = host.auth.basic(account.path).await?.zip(Some(url.clone()));
    let call = Call { method, url, headers, body: Payload::Bytes(body), authorization, what };
    let reply = host.wire.send(call).await?;
    let status = reply.status();
    if is_transient(status) {
        let failure = answer::refusal(what, reply).await;
        // Some gateways forward only `/v2/` to the registry: their answers to other paths say nothing about it.
        return Err(failure.of_another_server());
    }
    Ok(ApiAnswer { status, body: reply.body(what, MOST_API_BYTES).await? })
}
