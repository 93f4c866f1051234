//! The root of a registry, `GET /v2/` (distribution-spec, "Determining Support"). It is requested first, to find out
//! the scheme and the challenge, and later to find out whether the registry is up.
//!
//! A gateway may answer there that knows only the paths of images. A refusal is therefore not final: later requests
//! show what works.

use std::sync::Arc;
use std::time::Instant;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use tokio::sync::OnceCell;

use super::answer::{excerpt_without, refusal};
use super::auth::{Auth, Scopes};
use super::call::{Call, Payload};
use super::challenge::Challenge;
use super::failure::{Failure, is_transient, may_be_down};
use super::location::is_same_server;
use super::loopback::is_loopback;
use super::reply::Reply;
use super::unanswered::spoke_tls;
use super::wire::Wire;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Event;

/// How much of a refusal is read, in bytes.
const MOST_SHOWN: usize = 4096;

/// The root of one registry.
pub(super) struct Root {
    /// The registry as the user wrote it, `host[:port]`.
    registry: String,
    wire: Arc<Wire>,
    auth: Arc<Auth>,
    url: OnceCell<Url>,
    /// Held by the request that probes; the others wait for its result.
    turn: tokio::sync::Mutex<()>,
}

impl Root {
    pub fn new(registry: &str, wire: &Arc<Wire>, auth: &Arc<Auth>) -> Root {
        let (url, turn) = Default::default();
        Root { registry: registry.to_owned(), wire: wire.clone(), auth: auth.clone(), url, turn }
    }

    /// Returns the root URL, if it is known.
    pub fn known(&self) -> Option<&Url> {
        self.url.get()
    }

    /// Returns the root URL. The first request that needs it awaits `finding`.
    pub async fn url(&self, finding: impl Future<Output = Result<Url>>) -> Result<&Url> {
        let found = async { finding.await.inspect(|url| self.wire.set_home(url)) };
        self.url.get_or_try_init(|| found).await
    }

    /// Tries once to find the root URL; `what` names the attempt in errors. Uses https alone, unless plain HTTP is
    /// allowed or the host is this machine. Sends no credentials.
    pub async fn find(&self, what: &str) -> Result<Url, Failure> {
        let (first, second) = self.schemes(what)?;
        let failure = match self.find_at(&first, what).await {
            Ok(url) => return Ok(url),
            Err(failure) => failure,
        };
        let Some(second) = second else { return Err(failure) };
        match self.find_at(&second, what).await {
            Ok(url) => Ok(url),
            // The server speaks TLS, and the error says what is wrong.
            Err(other) if spoke_tls(&other) => Err(other),
            Err(_) => Err(failure),
        }
    }

    /// Returns the URLs to try, in order.
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

    async fn find_at(&self, base: &Url, what: &str) -> Result<Url, Failure> {
        let fail = |e| Failure::never(Error::input(what).because(e));
        let url = base.join("/v2/").map_err(fail)?;
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Payload::none());
        let reply = self.wire.send(Call { method, url, headers, body, authorization: None, what }).await?;
        let (status, url, challenge) = (reply.status(), reply.url().clone(), Challenge::of(&reply));
        match status {
            200 | 401 => {}
            400 if url.scheme() == "http" => self.refuse_plain(what, reply).await?,
            400..=499 if !is_transient(status) => self.warn(status),
            500 | 501 => self.warn(status),
            _ => return Err(refusal(what, reply).await),
        }
        // A challenge from a server that it redirects to is ignored: our credentials are not meant for that server.
        if let Some(challenge) = challenge.filter(|_| status != 200 && is_same_server(base, &url)) {
            self.auth.challenged(challenge);
        }
        // If a proxy redirects every request to TLS, use TLS from now on.
        let secured = url.scheme() == "https" && url.host_str() == base.host_str();
        Ok(if secured { url.join("/").map_err(fail)? } else { base.clone() })
    }

    /// Warns about a root that is refused; other paths may still work.
    fn warn(&self, status: u16) {
        let registry = &self.registry;
        let text = format!(
            "{registry} answered GET /v2/ with {status} instead of 200 or 401; trying the requests that images need anyway"
        );
        self.wire.events.report(Event::Warning(text));
    }

    /// # Errors
    /// The server requires TLS. nginx, Apache and Go's servers say so with a 400.
    async fn refuse_plain(&self, what: &str, reply: Reply) -> Result<(), Failure> {
        let (status, secrets) = (reply.status(), reply.secrets());
        let text = excerpt_without(&reply.body_start(MOST_SHOWN).await, &secrets);
        let words = text.to_lowercase();
        if ["https", "ssl", "tls"].iter().any(|word| words.contains(word)) {
            return Err(Failure::never(Error::new(Kind::Refused, format!("{what}: {status} Bad Request: {text}"))));
        }
        self.warn(status);
        Ok(())
    }

    /// Records in the outage whether the registry is up, unless a probe after `failure` has already done so.
    ///
    /// A gateway may answer this path itself as long as the request is anonymous. So does Harbor's core, which stands
    /// in front of the registry. The probe therefore sends the credentials that other requests would send.
    pub async fn probe(&self, failure: Instant) {
        let _turn = self.turn.lock().await;
        let outage = &self.wire.outage;
        if !outage.is_unprobed_since(failure) {
            return;
        }
        let at = Instant::now();
        tokio::select! {
            is_up = self.is_up() => outage.note_probe(at, is_up),
            _ = outage.over() => {}
        }
    }

    /// Tries once. Any answer except a server error comes from the registry.
    async fn is_up(&self) -> bool {
        let Some(url) = self.url.get().and_then(|base| base.join("/v2/").ok()) else { return false };
        let Ok(shown) = self.auth.header(&self.wire, &Scopes::enter("")).await else { return false };
        let authorization = shown.map(|value| (value, url.clone()));
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Payload::none());
        let call = Call { method, url, headers, body, authorization, what: "asking whether the registry is up" };
        self.wire.status(call).await.is_ok_and(|status| !may_be_down(status))
    }
}
