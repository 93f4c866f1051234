//! One HTTP exchange: sends a request, follows redirects, and says what went wrong. Knows nothing of repositories and
//! tokens.
//!
//! **Threats.** A redirect may lead anywhere (`location`). `Authorization` is sent only to the origin it was made for.
//! At most ten redirects are followed, and none twice. A server may stall or trickle: the wait for an answer is
//! limited, and so is the speed of a body (`stall_timeout`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, Url};

use super::call::{Call, Payload};
use super::challenge::Challenge;
use super::config::RequestLimits;
use super::failure::{Failure, Retry, may_be_down};
use super::health::{self, Health};
use super::location::{is_same_server, misled, redirect};
use super::outage::{Evidence, Outage, ServerWork, Work};
use super::peers::{Peers, ServerRole};
use super::proxy::{Proxy, by_way_of};
use super::read_only::ReadOnly;
use super::reply::Reply;
use super::resolver::SystemResolver;
use super::tls::{self, TlsSettings};
use super::trace::{Log, Talk};
use super::unanswered::{silence, unanswered};
use super::upload_body::UploadWatch;
use super::{Config, answer, refusals, trace};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Events;

const MOST_REDIRECTS: usize = 10;

/// The connections of this run, on behalf of one registry.
pub(super) struct Wire {
    pub config: Arc<Config>,
    pub limits: RequestLimits,
    pub events: Events,
    pub log: Arc<Log>,
    pub outage: Arc<Outage>,
    pub read_only: Arc<ReadOnly>,
    /// Whether a garbage collection at the registry was reported.
    pub collection: Arc<AtomicBool>,
    /// The health check, if the registry is Harbor.
    pub health: Health,
    /// Other servers that the registry needs.
    peers: Peers,
    registry: String,
    /// The root URL of the registry, once it is known.
    pub home: OnceLock<Url>,
    /// Whether the routes allow plain HTTP and unverified certificates.
    insecure: bool,
    /// What was found out about each host, by origin.
    known: Mutex<HashMap<String, Connection>>,
    pools: Arc<Pools>,
}

/// One connection pool per distinct TLS setting and proxy.
type Pools = Mutex<HashMap<(TlsSettings, Option<Proxy>), Client>>;

/// How to reach a host.
#[derive(Clone)]
struct Connection {
    client: Client,
    proxy: Option<Proxy>,
}

impl Wire {
    pub fn new(config: Config, events: Events) -> Wire {
        let (limits, log) = (RequestLimits::of(&config), Log::new(config.log_http, &events));
        let outage = Arc::new(Outage::new("", &limits, &events));
        let read_only = Arc::new(ReadOnly::new("", &limits, &events));
        let peers = Peers::new("", &limits, &events);
        let (collection, health, registry, home, insecure, known, pools) = Default::default();
        let config = Arc::new(config);
        Wire {
            config,
            limits,
            events,
            log,
            outage,
            read_only,
            collection,
            health,
            peers,
            registry,
            home,
            insecure,
            known,
            pools,
        }
    }

    /// The same connections for another registry. The trust settings of `registry` also apply to the servers that it
    /// redirects to.
    pub fn on_behalf_of(&self, registry: &str, insecure: bool, limits: RequestLimits) -> Wire {
        Wire {
            config: self.config.clone(),
            outage: Arc::new(Outage::new(registry, &limits, &self.events)),
            read_only: Arc::new(ReadOnly::new(registry, &limits, &self.events)),
            collection: Arc::default(),
            health: Health::default(),
            peers: Peers::new(registry, &limits, &self.events),
            limits,
            events: self.events.clone(),
            log: self.log.clone(),
            registry: registry.to_owned(),
            home: OnceLock::new(),
            insecure,
            known: Mutex::default(),
            pools: self.pools.clone(),
        }
    }

    /// Whether credentials may be sent to the host of `url` without TLS.
    pub fn may_be_plain(&self, url: &Url) -> bool {
        self.config.plain_http || !self.config.tls_for(&self.registry, self.insecure, url).verify
    }

    /// From now on, the origin of `base` is the registry itself.
    pub fn set_home(&self, base: &Url) {
        self.home.get_or_init(|| base.clone());
    }

    /// Whether `url` belongs to the registry itself rather than to a server that it redirects to. Until the root is
    /// known, the registry is the server that was `asked`, perhaps by TLS.
    fn is_own(&self, url: &Url, asked: &Url) -> bool {
        match self.home.get() {
            Some(home) => home.origin() == url.origin(),
            None => is_same_server(asked, url),
        }
    }

    /// Sends `call` and follows its redirects. Any status is an answer.
    pub async fn send(&self, call: Call<'_>) -> Result<Reply, Failure> {
        let elsewhere = ServerRole::behind(&call);
        self.follow(call, elsewhere).await
    }

    /// Does the same for the token server of the registry.
    pub async fn send_to_token_server(&self, call: Call<'_>) -> Result<Reply, Failure> {
        self.follow(call, Some(ServerRole::Tokens)).await
    }

    /// `elsewhere` is the role of a server other than the registry.
    async fn follow(&self, mut call: Call<'_>, elsewhere: Option<ServerRole>) -> Result<Reply, Failure> {
        let mut visited = vec![call.url.clone()];
        let repeatable = !matches!(call.body, Payload::Stream(_));
        loop {
            let own = self.is_own(&call.url, &visited[0]);
            let outage = match own {
                true => Some(self.outage.clone()),
                false => elsewhere.map(|role| self.peers.outage(&call.url, role)),
            };
            let work = match elsewhere {
                Some(ServerRole::Tokens) => Work::Token,
                _ => Work::of(&call.method, &visited[0]),
            };
            let server = outage.map(|outage| ServerWork { outage, work });
            let (response, talk) = self.exchange_with(server.as_ref(), &mut call).await?;
            let Some(next) = redirect(&call, &response, repeatable)? else {
                let mut reply = Reply::new(response, self.limits.stall, talk, own, server);
                reply.asked = visited;
                return self.unless_down(&call, reply).await;
            };
            let reason = match () {
                () if visited.contains(&next) => "a redirect loop",
                () if visited.len() > MOST_REDIRECTS => "more than 10 redirects",
                () => {
                    visited.push(next.clone());
                    call.url = next;
                    continue;
                }
            };
            return Err(misled(call.what, format!("{reason}, at {}", trace::shown(&next))));
        }
    }

    /// Returns the answer, unless the server itself is down. Either its words say so, or the health check of a Harbor
    /// that refuses the account, or fails, does. The 401 of a HEAD shows neither.
    async fn unless_down(&self, call: &Call<'_>, mut reply: Reply) -> Result<Reply, Failure> {
        let status = reply.status();
        if status != 401 && !may_be_down(status) {
            return Ok(reply);
        }
        if status == 401 && refusals::is_down(status, reply.peek(answer::READ).await) {
            return Err(answer::refusal(call.what, reply).await);
        }
        if matches!(Challenge::of(&reply), Some(Challenge::Bearer(bearer)) if reply.own && bearer.is_harbor()) {
            self.health.note_harbor();
        }
        let is_refusal = status == 401 && call.authorization.is_some();
        let is_failure = may_be_down(status) && reply.header("retry-after").is_none();
        if reply.own
            && (is_refusal || is_failure)
            && let Some(server) = &reply.server
            && let Some(failure) =
                self.admitted(&format!("{}: {}", call.what, answer::status_words(status)), server.work).await
        {
            return Err(failure);
        }
        if let Some(server) = reply.server.as_ref().filter(|_| status == 401 && call.method != Method::HEAD) {
            server.outage.answered(server.work.min(Work::Enter));
        }
        Ok(reply)
    }

    /// Returns the outage that Harbor's health check admits; `attempt` at this work is what failed.
    pub async fn admitted(&self, attempt: &str, work: Work) -> Option<Failure> {
        let asking = self.beginning_of(health::PATH, "asking whether Harbor is healthy", health::READ);
        let illness = self.health.illness(Box::pin(asking), self.limits.stall).await?;
        let error = Error::new(Kind::Network, format!("{attempt}: {illness}"));
        Some(Failure::new(error, Retry::Down(Evidence::Admitted)).at(&ServerWork { outage: self.outage.clone(), work }))
    }

    /// Returns the first bytes of the registry's answer at `path`, if the status is 200. Does not record whether the
    /// registry answers.
    async fn beginning_of(&self, path: &str, what: &str, limit: usize) -> Option<Vec<u8>> {
        let url = self.home.get()?.join(path).ok()?;
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Payload::none());
        let mut call = Call { method, url, headers, body, authorization: None, what };
        let (response, talk) = self.exchange(None, &mut call).await.ok()?;
        let reply = Reply::new(response, self.limits.stall, talk, true, None);
        if reply.status() == 200 { Some(reply.body_start(limit).await) } else { None }
    }

    /// Returns the status of the answer to `call`, without following a redirect. Does not record whether the registry
    /// answers.
    pub async fn status(&self, mut call: Call<'_>) -> Result<u16, Failure> {
        let (response, _) = self.exchange(None, &mut call).await?;
        Ok(response.status().as_u16())
    }

    /// One exchange. Records whether `server` answers; the wait ends when the server is given up.
    async fn exchange_with(
        &self,
        server: Option<&ServerWork>,
        call: &mut Call<'_>,
    ) -> Result<(Response, Talk), Failure> {
        let Some(server) = server else {
            return self.exchange(None, call).await.map_err(Failure::of_another_server);
        };
        let (what, asked) = (call.what, Instant::now());
        let exchanging = async {
            let exchanged = self.exchange(Some(server), call).await;
            exchanged.map_err(|failure| Failure { asked: Some(asked), ..failure.at(server) })
        };
        let exchanged = self.unless_given_up(Some(server), what, exchanging).await?;
        // The meaning of a 401 is in its body.
        let status = exchanged.0.status().as_u16();
        if !may_be_down(status) && status != 401 {
            // Content counts once it has been received.
            let is_to_come = matches!(server.work, Work::Read | Work::Content) && matches!(status, 200 | 206);
            match is_to_come && call.method == Method::GET {
                true => server.outage.answered(Work::Enter),
                false => server.answered(),
            }
            if server.work == Work::Complete && (200..300).contains(&status) {
                server.outage.note_stored();
            }
        }
        Ok(exchanged)
    }

    async fn exchange(&self, server: Option<&ServerWork>, call: &mut Call<'_>) -> Result<(Response, Talk), Failure> {
        let mut headers = call.headers.clone();
        if let Some((value, home)) = &call.authorization
            && home.origin() == call.url.origin()
        {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let talk = self.log.asked(call.what, call.method.as_str(), &call.url, &headers, call.body.size());
        match self.transmit(server, call, headers).await {
            Ok(response) => {
                talk.answered(response.status().as_u16(), response.headers());
                Ok((response, talk))
            }
            Err(failure) => {
                talk.failed(&failure.error);
                Err(failure)
            }
        }
    }

    async fn transmit(
        &self,
        server: Option<&ServerWork>,
        call: &mut Call<'_>,
        headers: HeaderMap,
    ) -> Result<Response, Failure> {
        let Connection { client, proxy } = self.connection(&call.url).map_err(Failure::never)?;
        let proxy = proxy.as_ref();
        let mut request = client.request(call.method.clone(), call.url.clone()).headers(headers);
        let body = std::mem::replace(&mut call.body, Payload::none());
        let answer = match body {
            Payload::Bytes(bytes) => {
                call.body = Payload::Bytes(bytes.clone());
                if !bytes.is_empty() || matches!(call.method, Method::POST | Method::PUT | Method::PATCH) {
                    request = request.header(reqwest::header::CONTENT_LENGTH, bytes.len()).body(bytes);
                }
                self.answer_to(server, call.what, self.limits.stall, request, proxy).await?
            }
            Payload::Closing { stored } => {
                call.body = Payload::Closing { stored };
                let request = request.header(reqwest::header::CONTENT_LENGTH, 0).body(Bytes::new());
                let patience = self.limits.to_store(stored).max(self.limits.stall);
                self.answer_to(server, call.what, patience, request, proxy).await?
            }
            Payload::Stream(upload) => {
                let watch = upload.watch();
                let (stall, commit) = (self.limits.stall, self.limits.to_store(upload.length()));
                let source = self.limits.max_wait + self.limits.commit;
                let request = request.header(reqwest::header::CONTENT_LENGTH, upload.length()).body(upload.into_body());
                tokio::select! {
                    answer = request.send() => answer,
                    never = moves(server, &watch) => match never {},
                    never = self.report_if_long(server, call.what, Some(&watch), commit) => match never {},
                    (description, waited) = watch.stalled(stall, commit, source) => {
                        let text = format!("{}: {description}{}{}", call.what, self.limits.more_than(waited), by_way_of(proxy));
                        return Err(Failure::no_answer_in(waited, Error::new(Kind::Network, text)));
                    }
                }
            }
        };
        let response = answer.map_err(|e| unanswered(call.what, e, proxy))?;
        tracing::debug!(method = %call.method, url = %trace::shown(&call.url), status = response.status().as_u16(), "answer");
        Ok(response)
    }

    /// Sends the request and returns the answer, within `patience`.
    async fn answer_to(
        &self,
        server: Option<&ServerWork>,
        what: &str,
        patience: Duration,
        request: reqwest::RequestBuilder,
        proxy: Option<&Proxy>,
    ) -> Result<reqwest::Result<Response>, Failure> {
        let answer = async {
            tokio::select! {
                answer = request.send() => answer,
                never = self.report_if_long(server, what, None, patience) => match never {},
            }
        };
        tokio::time::timeout(patience, answer)
            .await
            .map_err(|_| silence(what, patience, self.limits.more_than(patience), proxy))
    }

    /// Returns the connection to the URL's host. Its certificates are read at the first request to it.
    fn connection(&self, url: &Url) -> Result<Connection> {
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let origin = url.origin().ascii_serialization();
        if let Some(connection) = known.get(&origin) {
            return Ok(connection.clone());
        }
        let proxy = self.config.proxies.for_url(url).cloned();
        let client = self.pool(self.config.tls_for(&self.registry, self.insecure, url), proxy.clone())?;
        let connection = Connection { client, proxy };
        known.insert(origin, connection.clone());
        Ok(connection)
    }

    fn pool(&self, settings: TlsSettings, proxy: Option<Proxy>) -> Result<Client> {
        let mut pools = self.pools.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (settings, proxy);
        if let Some(client) = pools.get(&key) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::client_config(&key.0)?)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(SystemResolver))
            .retry(reqwest::retry::never())
            // `proxy` decides which host has one.
            .no_proxy()
            .user_agent(&self.config.user_agent)
            .default_headers(as_it_is())
            .connect_timeout(self.config.connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            // `stall_timeout` limits how slowly the peer may read. The library's own limit is 30 seconds.
            .tcp_user_timeout(None)
            .pool_max_idle_per_host(self.config.per_host * 3 + 2);
        let failed =
            |e: reqwest::Error| Error::new(Kind::Network, "setting up HTTP connections").because(e.without_url());
        if let Some(proxy) = &key.1 {
            builder = builder.proxy(reqwest::Proxy::all(proxy.url().clone()).map_err(failed)?);
        }
        let client = builder.build().map_err(failed)?;
        pools.insert(key, client.clone());
        Ok(client)
    }
}

/// Content that is proven by its digest must not be compressed on the connection.
fn as_it_is() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

/// While polled, records in the outage of `server` that an upload makes progress. Never completes.
async fn moves(server: Option<&ServerWork>, upload: &UploadWatch) -> Infallible {
    match server {
        Some(server) => server.outage.follow(upload).await,
        None => std::future::pending().await,
    }
}
