//! Bearer tokens: requested by GET with Basic credentials (distribution `docs/spec/auth/token.md`) or by POST with an identity
//! token (`docs/spec/auth/oauth.md`).
//!
//! **Threats.** The registry names the token server. Credentials go there only over TLS, unless it is this machine or plain
//! HTTP was requested. The response is bounded, and the token is a [`Secret`].

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::claims::{self, Granted};
use super::scope::Scopes;
use crate::base::error::{Error, Kind};
use crate::base::progress::conceal;
use crate::credentials::{Credentials, Secret};
use crate::transport::registry::answer::{excerpt_without, is_page, refusal_of_token};
use crate::transport::registry::call::{Call, Payload};
use crate::transport::registry::challenge::Bearer;
use crate::transport::registry::facts::WebPage;
use crate::transport::registry::failure::{Failure, is_transient};
use crate::transport::registry::loopback::is_loopback;
use crate::transport::registry::reply::Reply;
use crate::transport::registry::wire::Wire;

/// Default and minimum of `expires_in` according to the specification.
const SHORTEST_LIFE: u64 = 60;
/// Maximum size of a token server's response.
const MOST_BYTES: u64 = 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub secret: Secret,
    pub fetched: Instant,
    pub renew_at: Instant,
    /// What it grants, if it says so.
    pub granted: Option<Granted>,
}

/// A token that is refused at a greater age may have expired early or been revoked.
const FRESH: Duration = Duration::from_secs(60);

impl Token {
    /// Whether a request with this `Authorization` used it.
    pub fn is_sent_as(&self, sent: Option<&HeaderValue>) -> bool {
        header("Bearer", self.secret.expose()).ok().as_ref() == sent
    }

    pub fn is_fresh(&self) -> bool {
        self.fetched.elapsed() <= FRESH
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default, deserialize_with = "text")]
    token: Option<String>,
    #[serde(default, deserialize_with = "text")]
    access_token: Option<String>,
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<f64>,
}

/// A value that is not text counts as absent; the other field may contain the token.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text.trim().to_owned()),
        _ => None,
    })
}

/// A number, which some token servers send as text; anything else counts as absent.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    })
}

/// A valid response.
struct Issued {
    body: Bytes,
    /// See [`Reply::secrets`].
    secrets: Vec<String>,
    /// When it was requested.
    sent: Instant,
}

/// A request to a token server.
pub(super) struct TokenRequest<'a> {
    pub registry: &'a str,
    pub bearer: &'a Bearer,
    pub scopes: &'a Scopes,
    /// Scopes that the registry found missing in an earlier token, separated by spaces.
    pub extra: Option<&'a str>,
    pub credentials: Option<&'a Credentials>,
}

impl TokenRequest<'_> {
    pub async fn fetch(&self, wire: &Wire) -> Result<Token, Failure> {
        let what = format!("getting a token for {} from {}", self.registry, self.server());
        let realm: Url = self.bearer.realm.parse().map_err(|e| {
            Failure::never(Error::new(Kind::Network, format!("{what}: its realm is not a URL")).because(e))
        })?;
        self.refuse_to_leak(wire, &realm, &what)?;
        self.issued(wire, &realm, &what).await.map_err(|failure| self.named(failure))
    }

    async fn issued(&self, wire: &Wire, realm: &Url, what: &str) -> Result<Token, Failure> {
        let mut answer = self.ask(wire, realm, what).await?;
        // A proxy in front of the token server may have answered.
        if is_no_answer(&answer.body) {
            answer = self.ask(wire, realm, what).await?;
        }
        read(&answer, what)
    }

    /// A refusal with the repositories it concerns: some token servers refuse only some.
    fn named(&self, failure: Failure) -> Failure {
        let mut paths = self.scopes.paths().filter(|path| !path.is_empty());
        let (first, more) = (paths.next(), paths.count());
        let Some(first) = first.filter(|_| failure.error.is_absent_or_denied()) else { return failure };
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let text = format!("asking for access to {}/{first}{more}", self.registry);
        Failure { error: failure.error.while_doing(text), ..failure }
    }

    async fn ask(&self, wire: &Wire, realm: &Url, what: &str) -> Result<Issued, Failure> {
        let sent = Instant::now();
        let reply = match self.credentials.and_then(|c| c.identity_token.as_ref()) {
            Some(identity) => {
                let reply = self.post(wire, realm, identity, what).await?;
                // Token servers without OAuth2.
                if matches!(reply.status(), 404 | 405) { self.get(wire, realm, what).await? } else { reply }
            }
            None => self.get(wire, realm, what).await?,
        };
        let status = reply.status();
        if (200..300).contains(&status) {
            let secrets = reply.secrets();
            return Ok(Issued { body: reply.body(what, MOST_BYTES).await?, secrets, sent });
        }
        let mut failure = refusal_of_token(what, reply).await;
        // Whatever the token server rejects concerns the account.
        if (400..500).contains(&status) && !is_transient(status) {
            failure.error = failure.error.without_reason().of_kind(Kind::Unauthorized);
        }
        Err(failure)
    }

    fn words(&self) -> Vec<String> {
        let mut words = self.scopes.words();
        for extra in self.extra.unwrap_or_default().split_whitespace() {
            if !words.iter().any(|word| word == extra) {
                words.push(extra.to_owned());
            }
        }
        words
    }

    fn server(&self) -> String {
        self.bearer.realm.parse::<Url>().ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    fn refuse_to_leak(&self, wire: &Wire, realm: &Url, what: &str) -> Result<(), Failure> {
        let open = realm.scheme() != "https" && !is_loopback(realm);
        if open && self.credentials.is_some() && !wire.may_be_plain(realm) {
            let text = format!("{what}: it is asked by plain HTTP, where credentials must not go");
            return Err(Failure::never(Error::new(Kind::Unauthorized, text)));
        }
        Ok(())
    }

    async fn get(&self, wire: &Wire, realm: &Url, what: &str) -> Result<Reply, Failure> {
        let mut url = realm.clone();
        let basic = self.credentials.filter(|c| c.has_basic());
        {
            let mut query = url.query_pairs_mut();
            if let Some(credentials) = basic {
                query.append_pair("account", &credentials.username);
            }
            if let Some(service) = &self.bearer.service {
                query.append_pair("service", service);
            }
            for scope in self.words() {
                query.append_pair("scope", &scope);
            }
        }
        let authorization = basic.map(basic_header).transpose()?.map(|value| (value, url.clone()));
        let (method, headers) = (Method::GET, HeaderMap::new());
        wire.send_to_token_server(Call { method, url, headers, body: Payload::none(), authorization, what }).await
    }

    async fn post(&self, wire: &Wire, realm: &Url, identity: &Secret, what: &str) -> Result<Reply, Failure> {
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.bearer.service.as_deref().unwrap_or_default())
            .append_pair("scope", &self.words().join(" "))
            .append_pair("client_id", "gapferry")
            .append_pair("refresh_token", identity.expose());
        let body = Bytes::from(form.query().unwrap_or_default().to_owned());
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, form_type)]);
        let (method, url) = (Method::POST, realm.clone());
        wire.send_to_token_server(Call { method, url, headers, body: Payload::Bytes(body), authorization: None, what })
            .await
    }
}

/// Whether a body is a web page or empty, and therefore not from a token server.
fn is_no_answer(body: &[u8]) -> bool {
    body.trim_ascii().is_empty() || is_page(false, body)
}

fn read(answer: &Issued, what: &str) -> Result<Token, Failure> {
    let (body, sent) = (&*answer.body, answer.sent);
    if is_page(false, body) {
        let text = format!("{what}: the answer holds no token: {}", excerpt_without(body, &answer.secrets));
        return Err(Failure::never(Error::new(Kind::Network, text).with_fact(WebPage)));
    }
    // Never quoted: even a broken response may contain a token.
    let malformed = || Failure::never(Error::new(Kind::Unauthorized, format!("{what}: the answer holds no token")));
    // Programs for Windows start text with a byte order mark.
    let json = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let answer: Answer = serde_json::from_slice(json).map_err(|_| malformed())?;
    let given = [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty());
    let given = given.ok_or_else(malformed)?;
    let granted = claims::granted(&given);
    Ok(Token { secret: Secret::new(given), fetched: sent, renew_at: sent + usable_for(answer.expires_in), granted })
}

/// Renewed a little early, so that it does not expire in transit.
fn usable_for(expires_in: Option<f64>) -> Duration {
    let life = (expires_in.unwrap_or_default() as u64).clamp(SHORTEST_LIFE, 24 * 3600);
    Duration::from_secs(life - (life / 4).min(30))
}

pub(super) fn basic_header(credentials: &Credentials) -> Result<HeaderValue, Failure> {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    let encoded = STANDARD.encode(pair);
    // Too little of a short password is in there to be searched for.
    let bare = encoded.trim_end_matches('=');
    conceal(bare);
    conceal(&bare.replace('+', "-").replace('/', "_"));
    header("Basic", &encoded)
}

pub(super) fn header(scheme: &str, secret: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {secret}")).map_err(|_| {
        Failure::never(Error::new(Kind::Unauthorized, "the token holds characters no header can carry"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_token_is_read_in_whatever_form_it_is_sent() {
        for (sent, life) in [
            ("300", Some(300.0)),
            (r#""300""#, Some(300.0)),
            (r#"" 300 ""#, Some(300.0)),
            ("300.5", Some(300.5)),
            ("null", None),
            (r#""soon""#, None),
            ("[300]", None),
        ] {
            let answer: Answer = serde_json::from_str(&format!(r#"{{"token":"t","expires_in":{sent}}}"#)).unwrap();
            assert_eq!(answer.expires_in, life, "{sent}");
        }
        let mixed: Answer = serde_json::from_str(r#"{"token":"t\n","access_token":5}"#).unwrap();
        assert_eq!((mixed.token.as_deref(), mixed.access_token), (Some("t"), None));
        let bare: Answer = serde_json::from_str(r#"{"token":"t","access_token":null}"#).unwrap();
        assert_eq!((bare.token.as_deref(), bare.expires_in), (Some("t"), None));
    }

    #[test]
    fn what_stands_in_authorization_is_hidden_however_short_the_password_is() {
        for (user, password) in [("user", "pass"), ("a", "b"), ("robot$x", "~~?"), ("", "pw")] {
            let credentials = Credentials::basic(user, password);
            let header = basic_header(&credentials).unwrap();
            let sent = header.to_str().unwrap().trim_start_matches("Basic ").trim_end_matches('=').to_owned();
            for echoed in [sent.clone(), sent.replace('+', "-").replace('/', "_")] {
                let shown = crate::base::progress::redacted(&format!("Authorization: Basic {echoed}")).into_owned();
                assert_eq!(shown, "Authorization: Basic ***");
            }
        }
    }

    #[test]
    fn a_token_is_renewed_before_it_expires_and_not_at_every_request() {
        let seconds = |expires_in| usable_for(expires_in).as_secs();
        assert_eq!(seconds(None), 45);
        assert_eq!(seconds(Some(1.0)), 45);
        assert_eq!(seconds(Some(300.0)), 270);
        assert_eq!(seconds(Some(f64::MAX)), 24 * 3600 - 30);
        assert_eq!(seconds(Some(f64::NAN)), 45);
        assert_eq!(seconds(Some(-5.0)), 45);
    }
}
