//! A registry: how it is reached, and requests to it with authentication and retries.

mod optional;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reqwest::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use reqwest::{Method, Url};

use super::answer::{Purpose, refusal, refusal_of};
use super::auth::{Auth, Granted, Scopes, is_bearer};
use super::call::{Call, Payload};
use super::failure::{Failure, Retry, is_transient};
use super::heads::Heads;
use super::lane::Lane;
use super::limit::Gate;
use super::location::is_misled;
use super::memory::Memory;
use super::outage::Work;
use super::projects::Projects;
use super::questions::Question;
use super::reply::{Read, Reply};
use super::retry::Tries;
use super::root::Root;
use super::wire::Wire;
use crate::base::error::{Error, Kind, Result};
use crate::credentials::Store;
use crate::oci::Digest;

/// A registry as known in this run.
pub(super) struct Host {
    /// As the user wrote it, `host[:port]`.
    pub registry: String,
    pub wire: Arc<Wire>,
    pub auth: Arc<Auth>,
    root: Arc<Root>,
    /// Parallel requests. Uploads have their own lane: while one holds it, it may wait for a download from this same registry,
    /// never the reverse. So do mounts, manifests and tags, which are small and should not wait for large blobs.
    pub reads: Arc<Lane>,
    pub uploads: Arc<Lane>,
    pub changes: Arc<Lane>,
    /// What the registry's limits allow.
    pub gate: Arc<Gate>,
    /// Uploads and mounts of one project, which wait here before they take a lane.
    pub projects: Arc<Projects>,
    pub memory: Memory,
}

/// A request that can be repeated.
pub(super) struct Ask<'a> {
    pub method: Method,
    /// Below the registry's root, starting with `/`; or a complete URL.
    pub target: RequestTarget,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub scopes: Scopes,
    /// The kind of request, if an image can do without the response.
    pub optional: Option<Question>,
    /// The attempt, for errors and events.
    pub what: &'a str,
}

pub(super) enum RequestTarget {
    Path(String),
    Url(Url),
}

impl<'a> Ask<'a> {
    pub fn new(method: Method, path: String, scopes: Scopes, what: &'a str) -> Ask<'a> {
        let (target, headers, body, optional) = (RequestTarget::Path(path), HeaderMap::new(), Bytes::new(), None);
        Ask { method, target, headers, body, scopes, optional, what }
    }

    pub fn optional(self, optional: Option<Question>) -> Ask<'a> {
        Ask { optional, ..self }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Result<Ask<'a>> {
        let value = HeaderValue::from_str(value)
            .map_err(|e| Error::input(format!("{}: header {name} {value:?}", self.what)).because(e))?;
        self.headers.insert(name, value);
        Ok(self)
    }
}

impl Ask<'_> {
    /// The failure for an unexpected response.
    pub async fn refused(&self, reply: Reply) -> Failure {
        let purpose = match self.method {
            Method::GET | Method::HEAD => Purpose::Read,
            Method::PUT if self.path().contains("/manifests/") => Purpose::WriteManifest,
            Method::POST => Purpose::BeginUpload,
            _ => Purpose::WriteBlob,
        };
        refusal_of(purpose, self.what, reply).await
    }

    fn path(&self) -> &str {
        match &self.target {
            RequestTarget::Path(path) => path,
            RequestTarget::Url(url) => url.path(),
        }
    }

    /// What is known about such requests, if this is a HEAD, and about those of the other kind.
    fn heads<'m>(&self, memory: &'m Memory) -> Option<(&'m Heads, &'m Heads)> {
        let (manifests, blobs) = (&memory.manifest_heads, &memory.blob_heads);
        match self.method == Method::HEAD {
            true if self.path().contains("/manifests/") => Some((manifests, blobs)),
            true if self.path().contains("/blobs/") => Some((blobs, manifests)),
            _ => None,
        }
    }

    /// Whether only the present state is an answer, as for what a target has, and for lists. A cache may return what it knew a
    /// minute ago, before something was pushed.
    fn is_of_now(&self) -> bool {
        let is_read = matches!(self.method, Method::GET | Method::HEAD);
        let is_list = ["/tags/list", "/referrers/"].iter().any(|part| self.path().contains(part));
        is_read && (self.scopes.may_push() || is_list)
    }

    /// Whether registries that count pulls count this request.
    pub fn is_pull(&self) -> bool {
        self.method == Method::GET && self.path().contains("/manifests/")
    }
}

impl Host {
    pub fn new(registry: &str, wire: Arc<Wire>, store: Store, projects: Arc<Projects>) -> Host {
        let lane = || Lane::new(wire.config.per_host);
        let (reads, uploads, changes) = (lane(), lane(), lane());
        let auth = Arc::new(Auth::new(registry, store));
        let gate = Gate::new(registry, &wire.limits, &wire.events);
        let gate = Arc::new(gate.over(&[&reads, &uploads, &changes]));
        let root = Arc::new(Root::new(registry, &wire, &auth));
        Host {
            registry: registry.to_owned(),
            wire,
            auth,
            root,
            reads,
            uploads,
            changes,
            gate,
            projects,
            memory: Memory::default(),
        }
    }

    /// The registry's root URL, determined by the first request that needs it.
    pub async fn base(&self) -> Result<&Url> {
        match self.root.known() {
            Some(url) => Ok(url),
            // Boxed: otherwise every request would reserve space for the whole search.
            None => self.root.url(Box::pin(self.find_root())).await,
        }
    }

    async fn find_root(&self) -> Result<Url> {
        let what = format!("connecting to {}", self.registry);
        let mut tries = Tries::new(&what, false, &self.gate, &self.wire).of_whole_registry();
        loop {
            let failure = match self.root.find(&what).await {
                Ok(url) => return Ok(url),
                Err(failure) => failure,
            };
            tries.again(failure).await?;
        }
    }

    pub async fn url(&self, path: &str) -> Result<Url> {
        let base = self.base().await?;
        base.join(path).map_err(|e| Error::input(format!("asking {}: {path:?} is no path", self.registry)).because(e))
    }

    pub fn tries(&self, what: &str) -> Tries {
        Tries::new(what, false, &self.gate, &self.wire).with_root(&self.root)
    }

    /// The retries of a request for this blob.
    ///
    /// # Errors
    /// It has failed too often for this blob.
    pub fn tries_of(&self, what: &str, blob: &Digest, work: Work) -> Result<Tries> {
        let blob = self.memory.spent.of(blob, work);
        blob.check(what)?;
        Ok(self.tries(what).of_blob(blob))
    }

    /// The registry has stored something that it did not acknowledge, so it does store.
    pub fn note_stored(&self) {
        self.wire.outage.answered(Work::Complete);
        self.wire.outage.note_stored();
    }

    /// Returns when neither the registry's limits nor an outage prevent a request.
    ///
    /// # Errors
    /// Nothing more may be requested in this run.
    pub async fn pass(&self, what: &str) -> Result<()> {
        self.wire.outage.pass(what).await?;
        self.gate.pass(what).await
    }

    /// Sends the request until there is a response that is not temporary, and returns it whatever its status.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<Reply> {
        match self.patiently(ask, None, &|_| ()).await? {
            Read::Unread(reply) => Ok(*reply),
            Read::Whole(..) => Err(strange(ask.what, "the answer was read before it was asked for")),
        }
    }

    /// Does the same, and reads a response with status 200 of at most `limit` bytes; one that breaks off or stalls is
    /// requested again. `head` extracts what is needed besides the body.
    pub async fn read<T>(&self, ask: &Ask<'_>, limit: u64, head: impl Fn(&Reply) -> T + Sync) -> Result<Read<T>> {
        self.patiently(ask, Some(limit), &head).await
    }

    async fn patiently<T>(
        &self,
        ask: &Ask<'_>,
        limit: Option<u64>,
        head: &(impl Fn(&Reply) -> T + Sync),
    ) -> Result<Read<T>> {
        if let Some(question) = ask.optional {
            return Box::pin(optional::ask(self, ask, question, limit, head)).await;
        }
        let lane = if ask.method == Method::GET || ask.method == Method::HEAD { &self.reads } else { &self.changes };
        let mut tries = Tries::new(ask.what, ask.is_pull(), &self.gate, &self.wire).with_root(&self.root);
        loop {
            let _turn = if ask.is_pull() { Some(self.gate.pull(ask.what).await?) } else { None };
            let permit = lane.enter().await;
            let failure = match self.once(ask).await {
                Ok(reply) if is_transient(reply.status()) => {
                    let failure = ask.refused(reply).await;
                    drop(permit);
                    failure
                }
                Ok(mut reply) => {
                    reply.permit = Some(permit);
                    let server = reply.server.clone();
                    let reading = reply.read(ask.what, limit, head);
                    match self.wire.unless_given_up(server.as_ref(), ask.what, reading).await {
                        Ok(read) => return Ok(read),
                        Err(failure) => match &server {
                            Some(server) => failure.of_body(server),
                            None => failure,
                        },
                    }
                }
                Err(failure) => {
                    drop(permit);
                    failure
                }
            };
            tries.again(failure).await?;
        }
    }

    /// Makes a request that another one can replace: one attempt, and only the registry's own limit is waited for. `None`
    /// means no response.
    ///
    /// # Errors
    /// The other request would fail in the same way: no token for this account, unreadable credentials, an untrusted
    /// certificate, or a registry that was given up.
    pub async fn hint(&self, ask: &Ask<'_>) -> Result<Option<Reply>> {
        if let Some(question) = ask.optional {
            self.memory.answers.check(question)?;
        }
        let permit = self.reads.enter().await;
        let heads = ask.heads(&self.memory);
        if heads.is_some_and(|(heads, others)| heads.are_ignored(others, &self.wire.outage)) {
            return Ok(None);
        }
        let failure = match self.once(ask).await {
            Ok(reply) if reply.own && reply.status() == 429 => refusal(ask.what, reply).await,
            Ok(mut reply) => {
                reply.permit = Some(permit);
                return Ok(Some(reply));
            }
            Err(failure) => failure,
        };
        drop(permit);
        match failure.retry {
            _ if failure.error.kind() == Kind::RateLimited && ask.optional.is_none() => {
                self.tries(ask.what).again(failure).await?;
                self.ask(ask).await.map(Some)
            }
            // The other request may be redirected elsewhere, or not at all.
            Retry::Never if !is_misled(&failure) => Err(failure.error),
            _ => Ok(None),
        }
    }

    /// One attempt, a second one with a new token if the first was refused, and a third one with Basic credentials if the
    /// registry accepts them too.
    pub async fn once(&self, ask: &Ask<'_>) -> Result<Reply, Failure> {
        let asked = self.authorized(ask).await;
        if let Some((heads, _)) = ask.heads(&self.memory) {
            match &asked {
                Ok(_) => heads.note_answer(),
                Err(Failure { asked: Some(sent), .. }) if sent.elapsed() >= self.wire.limits.stall => {
                    heads.note_silence(*sent);
                }
                Err(_) => {}
            }
        }
        asked
    }

    async fn authorized(&self, ask: &Ask<'_>) -> Result<Reply, Failure> {
        self.pass(ask.what).await.map_err(Failure::never)?;
        let url = match &ask.target {
            RequestTarget::Path(path) => self.url(path).await.map_err(Failure::never)?,
            RequestTarget::Url(url) => url.clone(),
        };
        let mut sent = self.auth.header(&self.wire, &ask.scopes).await?;
        let mut reply = self.send(ask, url.clone(), Payload::Bytes(ask.body.clone()), sent.as_ref()).await?;
        if !reply.own {
            return self.without_credentials(ask, reply).await;
        }
        for is_second in [false, true] {
            if !reply.own || !Auth::concerns(&reply, sent.as_ref()) {
                break;
            }
            let other = match is_second {
                false => self.auth.renewed(&self.wire, &ask.scopes, sent.as_ref(), &reply).await,
                true => self.auth.alternative(&self.wire, &ask.scopes, sent.as_ref(), &reply).await,
            };
            let other = match other {
                // GET may need none.
                Err(_) if ask.method == Method::HEAD && self.auth.goes_without(&ask.scopes) => None,
                other => other?,
            };
            let Some(other) = other else { continue };
            reply = self.send(ask, url.clone(), Payload::Bytes(ask.body.clone()), Some(&other)).await?;
            if is_second && !is_bearer(&other) && reply.status() != 401 {
                self.auth.prefer_basic(&ask.scopes);
            }
            sent = Some(other);
        }
        Ok(reply)
    }

    /// Behind a host that only redirects, there may be a registry with its own tokens. It is read anonymously, because our
    /// credentials are for the named host.
    async fn without_credentials(&self, ask: &Ask<'_>, mut reply: Reply) -> Result<Reply, Failure> {
        if !matches!(ask.method, Method::GET | Method::HEAD) {
            return Ok(reply);
        }
        let (auth, mut sent) = (self.memory.anonymous(&self.registry, reply.url()), None);
        // Twice: the first token may be from an earlier request, and expired.
        for _ in 0..2 {
            if reply.status() != 401 {
                break;
            }
            let Some(token) = auth.renewed(&self.wire, &ask.scopes, sent.as_ref(), &reply).await? else { break };
            let url = reply.url().clone();
            let (method, headers, body) = (ask.method.clone(), ask.headers.clone(), Payload::Bytes(ask.body.clone()));
            let authorization = Some((token.clone(), url.clone()));
            reply = self.wire.send(Call { method, url, headers, body, authorization, what: ask.what }).await?;
            sent = Some(token);
        }
        Ok(reply)
    }

    /// One attempt with a body that cannot be sent twice. If the token was refused, a new one is fetched, and the failure
    /// allows an immediate retry.
    pub async fn once_with(&self, ask: &Ask<'_>, url: Url, body: Payload) -> Result<Reply, Failure> {
        self.pass(ask.what).await.map_err(Failure::never)?;
        let sent = self.auth.header(&self.wire, &ask.scopes).await?;
        let reply = self.send(ask, url, body, sent.as_ref()).await?;
        if !reply.own || !Auth::concerns(&reply, sent.as_ref()) {
            return Ok(reply);
        }
        let other = self.auth.renewed(&self.wire, &ask.scopes, sent.as_ref(), &reply).await?;
        let failure = refusal(ask.what, reply).await;
        Err(if other.is_some() { Failure::now(failure.error) } else { failure })
    }

    async fn send(
        &self,
        ask: &Ask<'_>,
        url: Url,
        body: Payload,
        authorization: Option<&HeaderValue>,
    ) -> Result<Reply, Failure> {
        let home = self.base().await.map_err(Failure::never)?;
        let authorization = authorization.cloned().map(|value| (value, home.clone()));
        let (method, mut headers) = (ask.method.clone(), ask.headers.clone());
        if ask.is_of_now() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let sent = Instant::now();
        let reply = self.wire.send(Call { method, url, headers, body, authorization, what: ask.what }).await?;
        if reply.own {
            self.gate.note(&reply, ask.is_pull());
            if !matches!(ask.method, Method::GET | Method::HEAD) && (200..300).contains(&reply.status()) {
                self.wire.read_only.lifted(sent);
            }
        }
        Ok(reply)
    }

    /// Gets tokens for whole projects, of each of which `paths` names a repository, and uses them from now on. Returns what
    /// they grant.
    pub async fn share_tokens(&self, paths: Vec<String>) -> Result<Granted> {
        self.base().await?;
        let what = format!("asking {} what may be done there", self.registry);
        let mut granted = Granted::new();
        for shared in self.auth.announce(paths).await? {
            let mut tries = self.tries(&what);
            loop {
                match self.auth.granted(&self.wire, &shared).await {
                    Ok(more) => break granted.extend(more.unwrap_or_default()),
                    Err(failure) => tries.again(failure).await?,
                }
            }
        }
        Ok(granted)
    }
}

/// The error for a response that breaks the protocol.
pub(super) fn strange(what: &str, reason: impl std::fmt::Display) -> Error {
    Error::new(Kind::Network, format!("{what}: {reason}"))
}
