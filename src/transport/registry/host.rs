//! One registry: how it is reached, and requests to it with authentication and retries.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::{OnceCell, Semaphore};

use super::answer::{Purpose, refusal, refusal_of};
use super::arrived::Arrived;
use super::auth::{Auth, Challenge, Granted, Scopes};
use super::limit::Gate;
use super::location::is_same_server;
use super::probe::Probe;
use super::projects::Projects;
use super::reply::Reply;
use super::retry::{Failure, Retry, Tries, is_transient};
use super::wire::{Call, Payload, Wire, is_loopback, spoke_tls};
use crate::credentials::Store;
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, Reference, Repository, Tag};

/// A registry as this run knows it.
pub(super) struct Host {
    /// As the user wrote it, `host[:port]`.
    pub registry: String,
    pub wire: Arc<Wire>,
    pub auth: Arc<Auth>,
    base: Arc<OnceCell<Url>>,
    probe: Arc<Probe>,
    /// Concurrent requests. Uploads have a lane of their own: while one holds it, it may wait for a download from this
    /// same registry, never the other way round. So have mounts, manifests and tags, which are small and shall not wait
    /// behind large blobs.
    pub reads: Arc<Semaphore>,
    pub uploads: Arc<Semaphore>,
    pub changes: Arc<Semaphore>,
    /// What the registry's limits allow.
    pub gate: Arc<Gate>,
    /// Uploads and mounts of one project, which wait here before they take a lane.
    pub projects: Arc<Projects>,
    pub memory: Memory,
}

/// Whoever holds it may change what it stands for.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Something that is found out once, by whoever holds it first.
type Known = Arc<tokio::sync::Mutex<Option<ReferrersApi>>>;

/// What was found out about the referrers API of a repository.
pub(super) enum ReferrersApi {
    Present,
    Absent,
    /// It refused to answer, and why.
    Unusable(Kind, String),
}

/// What earlier answers taught about a registry's repositories.
#[derive(Default)]
pub(super) struct Memory {
    /// Which repositories have a referrers API; locked while the first question finds it out.
    pub referrers_apis: Mutex<HashMap<Repository, Known>>,
    /// Why no answer of the referrers API of this registry reached us.
    unusable_api: Mutex<Option<String>>,
    /// Of repositories whose tags were listed: those named after a digest.
    pub companion_tags: Mutex<HashMap<Repository, HashSet<Tag>>>,
    /// Tags that were read: a list without them is not whole.
    pub answered_tags: Mutex<HashMap<Repository, HashSet<Tag>>>,
    /// Upload sessions that a refused mount has opened.
    pub sessions: Mutex<HashMap<(Repository, Digest), Url>>,
    pub arrived: Arrived,
    /// Blobs that it has claimed to have and does not have as they should be, in whichever repository: registries keep one copy.
    /// What they say after another upload is not believed either.
    pub suspects: Mutex<HashSet<Digest>>,
    /// PATCH was refused as such: uploads go in one request.
    pub patchless: AtomicBool,
    /// Whether GET agreed when HEAD said that a manifest is not there; locked while that is found out.
    pub head_tells: tokio::sync::Mutex<Option<bool>>,
    /// The same of blobs.
    pub blob_head_tells: tokio::sync::Mutex<Option<bool>>,
    /// Entries of the longest page of tags: a server that cuts lists cuts none that is shorter.
    pub longest_page: AtomicUsize,
    /// By origin: servers that the registry redirects to, as anybody may read them.
    elsewhere: Mutex<HashMap<String, Arc<Auth>>>,
    /// Whether repositories take uploads, where a look into them was denied.
    uploads: Mutex<HashMap<Repository, Arc<OnceCell<bool>>>>,
    denied: AtomicBool,
    /// The registry's API beside the protocol did not answer, as was said.
    pub no_api: AtomicBool,
    /// Held while the fallback list of a subject is read, changed and written.
    pub fallback_lists: Mutex<HashMap<(Repository, Digest), Turn>>,
}

/// A request that can be repeated.
pub(super) struct Ask<'a> {
    pub method: Method,
    /// Below the registry's root, beginning with `/`; or a whole URL.
    pub target: Target,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub scopes: Scopes,
    /// The attempt, for errors and events.
    pub what: &'a str,
}

pub(super) enum Target {
    Path(String),
    Url(Url),
}

impl<'a> Ask<'a> {
    pub fn new(method: Method, path: String, scopes: Scopes, what: &'a str) -> Ask<'a> {
        Ask { method, target: Target::Path(path), headers: HeaderMap::new(), body: Bytes::new(), scopes, what }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Result<Ask<'a>> {
        let value = HeaderValue::from_str(value)
            .map_err(|e| Error::input(format!("{}: header {name} {value:?}", self.what)).because(e))?;
        self.headers.insert(name, value);
        Ok(self)
    }
}

impl Ask<'_> {
    /// The failure that an answer other than the wanted one stands for.
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
            Target::Path(path) => path,
            Target::Url(url) => url.path(),
        }
    }

    /// Whether registries that count pulls count this one.
    fn is_pull(&self) -> bool {
        self.method == Method::GET && self.path().contains("/manifests/")
    }
}

impl Host {
    pub fn new(registry: &str, wire: Arc<Wire>, store: Store, projects: Arc<Projects>) -> Host {
        let lane = || Arc::new(Semaphore::new(wire.config.per_host.max(1)));
        let (reads, uploads, changes) = (lane(), lane(), lane());
        let (auth, base) = (Arc::new(Auth::new(registry, store)), Arc::default());
        let probe = Arc::new(Probe::new(&wire, &auth, &base));
        let gate = Arc::new(Gate::new(registry, &wire.limits, &wire.events));
        Host {
            registry: registry.to_owned(),
            wire,
            auth,
            base,
            probe,
            reads,
            uploads,
            changes,
            gate,
            projects,
            memory: Memory::default(),
        }
    }

    /// The registry's root URL, found out by the first request to need it.
    pub async fn base(&self) -> Result<&Url> {
        self.base.get_or_try_init(|| self.ping()).await.inspect(|base| self.wire.set_home(base))
    }

    pub async fn url(&self, path: &str) -> Result<Url> {
        let base = self.base().await?;
        base.join(path).map_err(|e| Error::input(format!("asking {}: {path:?} is no path", self.registry)).because(e))
    }

    pub fn tries(&self, what: &str) -> Tries {
        Tries::new(what, false, &self.gate, &self.wire).with_probe(&self.probe)
    }

    /// Returns when the registry may be asked: neither its limits nor an outage stand against it.
    ///
    /// # Errors
    /// Nothing more may be asked in this run.
    pub async fn pass(&self, what: &str) -> Result<()> {
        self.wire.outage.pass(what).await?;
        self.gate.pass(what).await
    }

    /// Sends until there is an answer that is not transient, and gives it back whatever its status.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<Reply> {
        let lane = if ask.method == Method::GET || ask.method == Method::HEAD { &self.reads } else { &self.changes };
        let mut tries = Tries::new(ask.what, ask.is_pull(), &self.gate, &self.wire).with_probe(&self.probe);
        loop {
            let _turn = if ask.is_pull() { Some(self.gate.pull(ask.what).await?) } else { None };
            let permit = lane.clone().acquire_owned().await.ok();
            let failure = match self.once(ask).await {
                Ok(reply) if is_transient(reply.status()) => ask.refused(reply).await,
                Ok(mut reply) => {
                    reply.permit = permit;
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            drop(permit);
            tries.again(failure).await?;
        }
    }

    /// Asks what another request can settle: one try, and only the registry's own limit is waited for. `None`: no answer.
    pub async fn hint(&self, ask: &Ask<'_>) -> Result<Option<Reply>> {
        let permit = self.reads.clone().acquire_owned().await.ok();
        let failure = match self.once(ask).await {
            Ok(reply) if reply.own && reply.status() == 429 => refusal(ask.what, reply).await,
            Ok(mut reply) => {
                reply.permit = permit;
                return Ok(Some(reply));
            }
            Err(failure) => failure,
        };
        drop(permit);
        match failure.retry {
            _ if failure.error.kind() == Kind::RateLimited => {
                self.tries(ask.what).again(failure).await?;
                self.ask(ask).await.map(Some)
            }
            Retry::Never => Err(failure.error),
            _ => Ok(None),
        }
    }

    /// One try, and a second one with a new token if the first was refused for the old.
    pub async fn once(&self, ask: &Ask<'_>) -> Result<Reply, Failure> {
        self.pass(ask.what).await.map_err(Failure::never)?;
        let url = match &ask.target {
            Target::Path(path) => self.url(path).await.map_err(Failure::never)?,
            Target::Url(url) => url.clone(),
        };
        let sent = self.auth.header(&self.wire, &ask.scopes).await?;
        let reply = self.send(ask, url.clone(), Payload::Bytes(ask.body.clone()), sent.as_ref()).await?;
        if !reply.own {
            return self.without_credentials(ask, reply).await;
        }
        if !Auth::concerns(&reply) {
            return Ok(reply);
        }
        match self.auth.renewed(&self.wire, &ask.scopes, sent.as_ref(), &reply).await? {
            Some(other) => self.send(ask, url, Payload::Bytes(ask.body.clone()), Some(&other)).await,
            None => Ok(reply),
        }
    }

    /// Behind a host that only redirects may be a registry with tokens of its own. It is read as anybody may read it: our
    /// credentials are for the host that was named.
    async fn without_credentials(&self, ask: &Ask<'_>, mut reply: Reply) -> Result<Reply, Failure> {
        if !matches!(ask.method, Method::GET | Method::HEAD) {
            return Ok(reply);
        }
        let (auth, mut sent) = (self.memory.anonymous(&self.registry, reply.url()), None);
        // Twice: the first token may be of an earlier request, and too old.
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

    /// One try with a body that cannot be sent twice. When the token was refused a new one is got, and the failure says
    /// that another try may be made now.
    pub async fn once_with(&self, ask: &Ask<'_>, url: Url, body: Payload) -> Result<Reply, Failure> {
        self.pass(ask.what).await.map_err(Failure::never)?;
        let sent = self.auth.header(&self.wire, &ask.scopes).await?;
        let reply = self.send(ask, url, body, sent.as_ref()).await?;
        if !reply.own || !Auth::concerns(&reply) {
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
        let (method, headers) = (ask.method.clone(), ask.headers.clone());
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

    /// Gets tokens for whole projects, of each of which `paths` names a repository, and uses them from now on. What they grant.
    pub async fn share_tokens(&self, paths: Vec<String>) -> Result<Granted> {
        self.base().await?;
        let what = format!("asking {} what may be done there", self.registry);
        let mut granted = Granted::new();
        for shared in self.auth.announce(paths).await? {
            let mut tries = self.tries(&what);
            loop {
                match self.auth.granted(&self.wire, &shared).await {
                    Ok(told) => break granted.extend(told.unwrap_or_default()),
                    Err(failure) => tries.again(failure).await?,
                }
            }
        }
        Ok(granted)
    }

    /// Finds the scheme and the challenge: `GET /v2/` (distribution-spec, "Determining Support").
    async fn ping(&self) -> Result<Url> {
        let what = format!("asking {} whether it is a registry", self.registry);
        let mut tries = self.tries(&what);
        loop {
            let failure = match self.ping_once(&what).await {
                Ok(base) => return Ok(base),
                Err(failure) => failure,
            };
            tries.again(failure).await?;
        }
    }

    /// https alone, unless plain HTTP was allowed or the host is this machine. No credentials are sent.
    async fn ping_once(&self, what: &str) -> Result<Url, Failure> {
        let (first, second) = self.schemes(what)?;
        let failure = match self.ping_at(&first, what).await {
            Ok(base) => return Ok(base),
            Err(failure) => failure,
        };
        let Some(second) = second else { return Err(failure) };
        match self.ping_at(&second, what).await {
            Ok(base) => Ok(base),
            // It does speak TLS, then, and has told what is wrong.
            Err(other) if spoke_tls(&other) => Err(other),
            Err(_) => Err(failure),
        }
    }

    /// What to try, in this order.
    fn schemes(&self, what: &str) -> Result<(Url, Option<Url>), Failure> {
        let host = match self.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let at = |scheme: &str| {
            let fail = |e| Failure::never(Error::input(what.to_owned()).because(e));
            Url::parse(&format!("{scheme}://{host}/")).map_err(fail)
        };
        let (http, https) = (at("http")?, at("https")?);
        Ok(match () {
            () if self.wire.config.plain_http => (http, None),
            () if is_loopback(&https) => (http, Some(https)),
            () if self.wire.may_be_plain(&https) => (https, Some(http)),
            () => (https, None),
        })
    }

    async fn ping_at(&self, base: &Url, what: &str) -> Result<Url, Failure> {
        let fail = |e| Failure::never(Error::input(what).because(e));
        let url = base.join("/v2/").map_err(fail)?;
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Payload::none());
        let reply = self.wire.send(Call { method, url, headers, body, authorization: None, what }).await?;
        if !matches!(reply.status(), 200 | 401) {
            return Err(refusal(what, reply).await);
        }
        // Of a server that it redirects to nothing is learned: our credentials are not for that one.
        if reply.status() == 401 && is_same_server(base, reply.url()) {
            self.auth.set_challenge(Challenge::choose(reply.texts("www-authenticate")));
        }
        // A proxy that sends everybody on to TLS is spoken to by TLS from now on.
        let secured = reply.url().scheme() == "https" && reply.url().host_str() == base.host_str();
        Ok(if secured { reply.url().join("/").map_err(fail)? } else { base.clone() })
    }
}

impl Memory {
    pub fn fallback_list(&self, repository: &Repository, subject: &Digest) -> Turn {
        let mut lists = self.fallback_lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.entry((repository.clone(), *subject)).or_default().clone()
    }

    /// Who we are to a server that the registry redirects to: anybody.
    pub fn anonymous(&self, registry: &str, url: &Url) -> Arc<Auth> {
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        let auth = elsewhere.entry(url.origin().ascii_serialization());
        auth.or_insert_with(|| Arc::new(Auth::new(registry, Store::anonymous()))).clone()
    }

    /// Whether a repository takes uploads, to be found out once.
    pub fn takes_uploads(&self, repository: &Repository) -> Arc<OnceCell<bool>> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.entry(repository.clone()).or_default().clone()
    }

    /// Whether nothing was denied before.
    pub fn is_first_denial(&self) -> bool {
        !self.denied.swap(true, Ordering::Relaxed)
    }

    pub fn referrers_api(&self, repository: &Repository) -> Known {
        let mut known = self.referrers_apis.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(repository.clone()).or_default().clone()
    }

    /// The error of an earlier question, if no other should be asked.
    pub fn unusable_api(&self) -> Option<Error> {
        let why = self.unusable_api.lock().unwrap_or_else(PoisonError::into_inner);
        why.as_ref().map(|why| Error::new(Kind::Network, why.clone()))
    }

    pub fn note_unusable_api(&self, error: &Error) {
        *self.unusable_api.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.chain());
    }

    /// Remembers which of a repository's `tags` may speak of a manifest.
    pub fn note_tags<'a>(&self, repository: &Repository, tags: impl IntoIterator<Item = &'a Tag>) {
        let companions = tags.into_iter().filter(|tag| tag.as_str().starts_with("sha")).cloned().collect();
        let mut known = self.companion_tags.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(repository.clone(), companions);
    }

    /// Remembers that the registry has this tag.
    pub fn note_answered(&self, reference: &Reference) {
        if let (Some(tag), None) = (&reference.tag, &reference.digest) {
            let mut answered = self.answered_tags.lock().unwrap_or_else(PoisonError::into_inner);
            answered.entry(reference.repository.clone()).or_default().insert(tag.clone());
        }
    }

    /// The registry no longer has this tag.
    pub fn forget_answered(&self, reference: &Reference) {
        let mut answered = self.answered_tags.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(tags), Some(tag)) = (answered.get_mut(&reference.repository), &reference.tag) {
            tags.remove(tag);
        }
    }

    /// The tags of a repository that were read in this run.
    pub fn answered_tags(&self, repository: &Repository) -> Vec<Tag> {
        let answered = self.answered_tags.lock().unwrap_or_else(PoisonError::into_inner);
        answered.get(repository).into_iter().flatten().cloned().collect()
    }

    /// Whether a tag named after a digest is missing in the repository's list; `false` when there is no list.
    pub fn lacks_tag(&self, repository: &Repository, tag: &Tag) -> bool {
        let known = self.companion_tags.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(repository).is_some_and(|tags| !tags.contains(tag))
    }

    pub fn suspect(&self, blob: &Digest) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).insert(*blob);
    }

    pub fn is_suspect(&self, blob: &Digest) -> bool {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).contains(blob)
    }

    pub fn refuses_patch(&self) -> bool {
        self.patchless.load(Ordering::Relaxed)
    }

    pub fn set_refuses_patch(&self) {
        self.patchless.store(true, Ordering::Relaxed);
    }

    pub fn keep_session(&self, repository: &Repository, blob: &Digest, location: Url) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert((repository.clone(), *blob), location);
    }

    /// Those that nobody has used.
    pub fn take_sessions(&self) -> HashMap<(Repository, Digest), Url> {
        std::mem::take(&mut *self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn take_session(&self, repository: &Repository, blob: &Digest) -> Option<Url> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&(repository.clone(), *blob))
    }
}

/// An error for an answer that breaks the protocol.
pub(super) fn strange(what: &str, reason: impl std::fmt::Display) -> Error {
    Error::new(Kind::Network, format!("{what}: {reason}"))
}
