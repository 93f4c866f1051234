//! What a registry's refusal means, and how it is shown.
//!
//! **Threats.** A body is foreign text: it may be huge (only the first 64 KiB are read), be an HTML page, contain terminal
//! control characters (escaped), or repeat our secrets (masked).

use std::time::SystemTime;

use reqwest::header::{DATE, RETRY_AFTER};
use serde_json::Value;

use super::facts::{UnexpectedStatus, WebPage};
use super::failure::{Failure, Retry, is_gateway, is_transient, may_be_down};
use super::location;
use super::outage::{Evidence, Work};
use super::refusals;
use super::reply::Reply;
use super::retry_after::retry_after;
use super::trace;
use crate::base::error::{Error, Kind, PullPolicyWords, Reason};
use crate::base::progress::redacted_with;
use crate::oci::Digest;

/// Bytes of a refusal's body to read.
pub(super) const READ: usize = 64 * 1024;
/// Characters of it to show.
const SHOWN: usize = 300;

/// Appended to a 401 without a challenge: no credentials can help.
const NO_CHALLENGE: &str = " (without WWW-Authenticate, so it does not say how to log in)";

/// The purpose of a request: an error code means one thing for a push and another for a lookup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    /// Opens an upload session.
    BeginUpload,
    /// Uploads or mounts a blob.
    WriteBlob,
    WriteManifest,
}

/// The failure for an unexpected status. The status decides; from the body, only the objection is parsed ([`refusals`]), and
/// the rest is shown.
pub(super) async fn refusal(what: &str, reply: Reply) -> Failure {
    refusal_of(Purpose::Read, what, reply).await
}

/// Does the same for a request with a known purpose. What another server says about its limits does not concern the registry.
///
/// The codes in the body may give a [`Reason`]; then a retry would not help.
pub(super) async fn refusal_of(purpose: Purpose, what: &str, reply: Reply) -> Failure {
    let own = reply.own;
    let no_challenge = own && reply.status() == 401 && reply.texts("www-authenticate").next().is_none();
    let aside = match own {
        true if no_challenge => NO_CHALLENGE.to_owned(),
        true => String::new(),
        false => from(&reply),
    };
    let failure = failure_of(purpose, what, reply, &aside).await;
    if own { failure } else { failure.of_another_server() }
}

/// Notes that a server which the registry redirected to has answered.
fn from(reply: &Reply) -> String {
    format!(" (from {})", reply.url().origin().ascii_serialization())
}

/// Does the same, and returns the codes of the specification in the body.
pub(super) async fn refusal_with_codes(what: &str, reply: Reply) -> (Failure, Vec<String>) {
    let own = reply.own;
    let aside = if own { String::new() } else { from(&reply) };
    let (failure, body) = read(Purpose::Read, what, reply, &aside).await;
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    let errors = json.as_ref().and_then(|json| json.get("errors")).and_then(Value::as_array);
    let codes = errors.into_iter().flatten().map(code).collect();
    (if own { failure } else { failure.of_another_server() }, codes)
}

/// The refusal of a registry's token server, which may be another server. Its limit counts as the registry's, because nothing
/// can be requested without a token.
pub(super) async fn refusal_of_token(what: &str, reply: Reply) -> Failure {
    failure_of(Purpose::Read, what, reply, "").await
}

async fn failure_of(purpose: Purpose, what: &str, reply: Reply, aside: &str) -> Failure {
    read(purpose, what, reply, aside).await.0
}

/// `aside` is appended to the status.
async fn read(purpose: Purpose, what: &str, reply: Reply, aside: &str) -> (Failure, Vec<u8>) {
    let (status, server, own) = (reply.status(), reply.server.clone(), reply.own);
    // By the registry's own clock, which may be wrong: the difference between its two dates counts.
    let date = reply.header(DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.unwrap_or_else(SystemTime::now);
    let after = reply.header(RETRY_AFTER.as_str()).and_then(|header| retry_after(header, now));
    let secrets = reply.secrets();
    let to = reply.header("location").filter(|_| (300..400).contains(&status));
    let to = to.and_then(|to| location::resolve(reply.url(), to).ok());
    let to = to.map(|to| format!(" to {}", to.origin().ascii_serialization())).unwrap_or_default();
    let body = reply.body_start(READ).await;
    let shown = excerpt_shown(&body, &secrets);
    let separator = if shown.text.is_empty() { "" } else { ": " };
    let words = format!("{}{to}{aside}{separator}{}", status_words(status), shown.text);
    let symptom = refusals::symptom(status, &body, &shown.text);
    let answer = UnexpectedStatus { status, is_page: shown.is_page, symptom, words };
    let error = |kind| Error::new(kind, format!("{what}: {answer}")).with_fact(answer.clone());
    let retry = match after {
        _ if !is_transient(status) => Retry::Never,
        Some(delay) if matches!(status, 429 | 503) && !delay.is_zero() => Retry::After(delay),
        _ if server.is_some() && is_gateway(status) => Retry::Down(Evidence::Gateway),
        _ if server.is_some() && may_be_down(status) => Retry::Down(Evidence::Status),
        _ => Retry::Soon,
    };
    if refusals::is_down(status, &body) {
        let retry = if server.is_some() { Retry::Down(Evidence::Admitted) } else { Retry::Soon };
        return (Failure { server, ..Failure::new(error(Kind::Network), retry) }, body);
    }
    let stores = server.as_ref().is_some_and(|server| server.work >= Work::Begin);
    if own && stores && refusals::is_disk_full(status, &body) {
        let error = error(Kind::Refused).with_reason(Reason::Full { left: 0 });
        // Another replica may have space. There is at most one retry (`retry`).
        let retry = if is_transient(status) { Retry::Soon } else { Retry::Never };
        return (Failure { server, status: Some(status), ..Failure::new(error, retry) }, body);
    }
    let error = error(kind(status));
    if let Some(reason) = refusals::named(status, &body) {
        let error = match reason {
            Reason::PullPolicy => forbidden(error),
            reason => error.with_reason(reason),
        };
        return (Failure { server, status: Some(status), ..Failure::new(error, retry) }, body);
    }
    let failure = match reason(purpose, status, &body) {
        Some(reason) => Failure::never(error.with_reason(reason)),
        None => Failure { server, status: Some(status), ..Failure::new(error, retry) },
    };
    (failure, body)
}

/// The failure to read what a policy forbids pulling.
pub(super) fn forbidden(error: Error) -> Error {
    let words = error.find().map(|answer: &UnexpectedStatus| answer.words.clone()).unwrap_or_default();
    let words = words.strip_prefix(&format!("{}: ", status_words(412))).unwrap_or(&words);
    let words = words.strip_prefix("PROJECTPOLICYVIOLATION: ").unwrap_or(words).to_owned();
    error.with_reason(Reason::PullPolicy).with_fact(PullPolicyWords(words))
}

/// What the registry objects to, from the codes of the specification (distribution-spec, "Error Codes") or its words.
fn reason(purpose: Purpose, status: u16, body: &[u8]) -> Option<Reason> {
    if purpose == Purpose::Read {
        return None;
    }
    // A login service or captive portal answers every request like this.
    if purpose == Purpose::BeginUpload && status < 400 && is_page(false, body) {
        return Some(Reason::WebPage);
    }
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let errors = json.as_ref().and_then(|json| json.get("errors")).and_then(Value::as_array).map(Vec::as_slice);
    // distribution in maintenance sends no code; a cache of another registry sends this one. Azure denies pushes to a single
    // locked repository with the same status.
    let is_unsupported = |errors: &[Value]| errors.iter().all(|error| code(error) == "UNSUPPORTED");
    if purpose == Purpose::BeginUpload && status == 405 && errors.is_none_or(is_unsupported) {
        return Some(Reason::NoPushes);
    }
    if purpose == Purpose::BeginUpload && matches!(status, 401 | 403) {
        return Some(Reason::UploadDenied);
    }
    if purpose == Purpose::WriteManifest {
        let unknown = match errors {
            Some(errors) => unknown_content(status, errors),
            None => missing_by_words(status, &String::from_utf8_lossy(body)),
        };
        if let Some(digests) = unknown {
            return Some(Reason::UnknownContent(digests));
        }
    }
    let is_repository = errors.is_some_and(|errors| errors.iter().any(|error| code(error) == "NAME_UNKNOWN"));
    (is_repository && status == 404).then_some(Reason::UnknownRepository)
}

/// The digests that the errors of a refused manifest call unknown; empty if content is unknown and no digest is named. Harbor
/// answers 404 with its own code, and distribution may answer 500.
fn unknown_content(status: u16, errors: &[Value]) -> Option<Vec<Digest>> {
    let of_error = |error: &Value| match &*code(error) {
        "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN" => Some(digests_named_in(&error.to_string())),
        "NOT_FOUND" if status == 404 => Some(digests_named_in(&error.to_string())),
        _ => missing_by_words(status, &error.to_string()),
    };
    errors.iter().filter_map(of_error).reduce(|mut all, more| {
        all.extend(more);
        all
    })
}

fn code(error: &Value) -> String {
    error.get("code").and_then(Value::as_str).unwrap_or_default().to_ascii_uppercase()
}

/// The digests that a text calls missing. Quay, ECR and Artifactory have their own codes for that, and gateways send plain
/// text.
fn missing_by_words(status: u16, text: &str) -> Option<Vec<Digest>> {
    const WORDS: [&str; 10] = [
        "blob unknown",
        "unknown blob",
        "unknown layer",
        "layer unknown",
        "blob_unknown",
        "not found",
        "not_found",
        "not exist",
        "missing",
        " find ",
    ];
    if !matches!(status, 400 | 404 | 409 | 422) {
        return None;
    }
    let lower = text.to_lowercase();
    let digests = digests_named_in(text);
    (!digests.is_empty() && WORDS.iter().any(|words| lower.contains(words))).then_some(digests)
}

/// Every digest in a text.
fn digests_named_in(text: &str) -> Vec<Digest> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    words.filter_map(|word| word.parse().ok()).collect()
}

fn kind(status: u16) -> Kind {
    match status {
        401 => Kind::Unauthorized,
        404 => Kind::NotFound,
        429 => Kind::RateLimited,
        408 | 499 => Kind::Network,
        507 => Kind::Refused,
        400..=498 => Kind::Refused,
        _ => Kind::Network,
    }
}

pub(super) fn status_words(status: u16) -> String {
    let reason = reqwest::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

/// The body as text for people: the errors of the distribution protocol (distribution-spec, "Error Codes"), other JSON with a
/// message, or the text of a page.
pub(super) fn excerpt(body: &[u8]) -> String {
    excerpt_without(body, &[])
}

/// Does the same without these secrets, which are not remembered.
pub(super) fn excerpt_without(body: &[u8], secrets: &[String]) -> String {
    excerpt_shown(body, secrets).text
}

/// The body as text for people.
pub(super) struct ShownBody {
    pub text: String,
    /// Whether it is the text of a web page.
    pub is_page: bool,
}

impl ShownBody {
    /// Adds the facts about this body to an error.
    pub fn known_to(&self, error: Error) -> Error {
        if self.is_page { error.with_fact(WebPage) } else { error }
    }
}

/// The body as text, without these secrets.
pub(super) fn excerpt_shown(body: &[u8], secrets: &[String]) -> ShownBody {
    let text = String::from_utf8_lossy(body);
    let (message, is_page) = match serde_json::from_slice::<Value>(body) {
        Ok(json) => (from_json(&json).unwrap_or_else(|| text.to_string()), false),
        Err(_) if text.trim_start().starts_with('<') => match from_xml(&text) {
            Some(error) => (error, false),
            None => (format!("(a web page) {}", without_tags(&text)), true),
        },
        Err(_) => (text.to_string(), false),
    };
    // Before it is shortened, because part of a secret would not be found.
    ShownBody { text: shortened(&trace::quoted(&redacted_with(&message, secrets))), is_page }
}

/// The error of an object storage in S3's format: `<Error><Code>…</Code><Message>…</Message>…</Error>`. The rest repeats the
/// request.
fn from_xml(text: &str) -> Option<String> {
    let (_, error) = text.trim_start().starts_with('<').then(|| text.split_once("<Error>"))??;
    let element = |name: &str| {
        let (_, rest) = error.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(value, _)| value.trim()).filter(|value| !value.is_empty())
    };
    let parts: Vec<&str> = ["Code", "Message"].into_iter().filter_map(element).collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// The text of a web page that came instead of a registry's response, from a login service, a captive portal or another server
/// with that name. `None` if the response is not a web page.
pub(super) async fn page(reply: &mut Reply) -> Option<String> {
    if reply.header("docker-distribution-api-version").is_some() {
        return None;
    }
    let is_html = reply.header("content-type").is_some_and(is_html);
    let secrets = reply.secrets();
    let start = reply.peek(READ).await;
    is_page(is_html, start).then(|| excerpt_without(start, &secrets))
}

/// Whether it is a media type of web pages.
pub(super) fn is_html(media_type: &str) -> bool {
    media_type.trim_start().to_ascii_lowercase().starts_with("text/html")
}

/// Whether a body is a web page, by its type or its beginning.
pub(super) fn is_page(is_html: bool, body: &[u8]) -> bool {
    is_html || body.trim_ascii_start().starts_with(b"<")
}

fn from_json(json: &Value) -> Option<String> {
    let list = json.get("errors").and_then(Value::as_array)?;
    let errors: Vec<String> = list.iter().take(5).filter_map(one_error).collect();
    (!errors.is_empty()).then(|| errors.join("; "))
}

fn one_error(error: &Value) -> Option<String> {
    let code = error.get("code").and_then(Value::as_str);
    let message = error.get("message").and_then(Value::as_str).filter(|m| !m.is_empty());
    let detail = error.get("detail").filter(|d| !d.is_null()).map(|detail| match detail {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let mut parts: Vec<String> = [code, message].into_iter().flatten().map(str::to_owned).collect();
    let news = |detail: &String| !detail.is_empty() && detail != "{}" && detail != "[]" && !parts.contains(detail);
    if let Some(detail) = detail.filter(news) {
        parts.push(detail);
    }
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// The text between the tags of a page, each part once: many pages repeat their title as a heading.
fn without_tags(page: &str) -> String {
    let mut texts: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let text = piece.split_once('>').map_or("", |(_, text)| text).trim();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join(" ")
}

/// One line of at most [`SHOWN`] characters, cut between words, without control characters.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown = String::new();
    for (count, c) in line.chars().enumerate() {
        if count == SHOWN {
            // Half a media type would be another one, so the text is cut between words if possible.
            let words = shown.rfind([' ', ',']).filter(|at| *at > SHOWN / 2).unwrap_or(shown.len());
            shown.truncate(words);
            shown.push('…');
            break;
        }
        match c {
            // In addition to controls: characters that reorder a terminal line.
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                shown.extend(c.escape_unicode());
            }
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_words_are_shown() {
        let body = br#"{"errors":[{"code":"DENIED","message":"quota exceeded","detail":"upper limit 1GiB"},
            {"code":"UNKNOWN","message":"","detail":{}}]}"#;
        assert_eq!(excerpt(body), "DENIED: quota exceeded: upper limit 1GiB; UNKNOWN");
    }

    #[test]
    fn what_a_push_lacks_is_read_from_the_codes() {
        let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
        let manifest = |status, body: &str| reason(Purpose::WriteManifest, status, body.as_bytes());
        let unknown = |digests: &[Digest]| Some(Reason::UnknownContent(digests.to_vec()));
        let distribution = format!(
            r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown","detail":{{"digest":"{a}"}}}},
            {{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{b}"}}]}}"#
        );
        assert_eq!(manifest(400, &distribution), unknown(&[a, b]));
        let urls = format!(r#"{{"errors":[{{"code":"UNKNOWN"}},{{"code":"MANIFEST_BLOB_UNKNOWN","detail":"{a}"}}]}}"#);
        assert_eq!(manifest(500, &urls), unknown(&[a]));
        let harbor = r#"{"errors":[{"code":"NOT_FOUND","message":"blob not found"}]}"#;
        assert_eq!((manifest(404, harbor), manifest(400, harbor)), (unknown(&[]), None));
        assert_eq!(manifest(400, r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#), None);
        for own_words in [
            format!(r#"{{"errors":[{{"code":"manifest_blob_unknown","detail":"{a}"}}]}}"#),
            format!(r#"{{"errors":[{{"code":"MANIFEST_INVALID","detail":{{"message":"failed to find blob {a}"}}}}]}}"#),
            format!(r#"{{"errors":[{{"code":"LAYERS_NOT_FOUND","message":"Layer with digest '{a}' not found"}}]}}"#),
            format!(r#"{{"errors":[{{"code":"LAYER_NOT_FOUND","message":"Layers [{a}] do not exist"}}]}}"#),
            format!("blob unknown to registry: {a}\n"),
            format!(r#"{{"message":"missing layer {a}"}}"#),
        ] {
            assert_eq!(manifest(400, &own_words), unknown(&[a]), "{own_words}");
        }
        let media_type =
            format!(r#"{{"errors":[{{"code":"MANIFEST_INVALID","message":"unknown media type of layer {a}"}}]}}"#);
        assert_eq!(manifest(400, &media_type), None);
        assert_eq!(manifest(403, &format!("blob unknown: {a}")), None);
        assert_eq!(manifest(404, "<html>404</html>"), None);
        let missing = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"the repository does not exist"}]}"#;
        for purpose in [Purpose::BeginUpload, Purpose::WriteBlob, Purpose::WriteManifest] {
            assert_eq!(reason(purpose, 404, missing.as_bytes()), Some(Reason::UnknownRepository));
        }
        assert_eq!(reason(Purpose::Read, 404, missing.as_bytes()), None);
        assert_eq!(reason(Purpose::WriteBlob, 404, harbor.as_bytes()), None);
    }

    #[test]
    fn a_registry_that_begins_no_upload_accepts_no_pushes_unless_it_denies_this_one() {
        let begin = |body: &str| reason(Purpose::BeginUpload, 405, body.as_bytes());
        for body in
            ["Method not allowed", r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#]
        {
            assert_eq!(begin(body), Some(Reason::NoPushes));
            assert_eq!(reason(Purpose::WriteBlob, 405, body.as_bytes()), None, "a PATCH may be refused alone");
        }
        assert_eq!(begin(r#"{"errors":[{"code":"DENIED","message":"disallowed on this repository"}]}"#), None);
        // Otherwise each image would have a line of its own.
        for (status, expected) in [(200, Some(Reason::WebPage)), (302, Some(Reason::WebPage)), (404, None)] {
            assert_eq!(reason(Purpose::BeginUpload, status, b"<html>Please log in</html>"), expected, "{status}");
        }
    }

    #[test]
    fn a_page_is_stripped_and_shortened() {
        let page = format!("<html><title>502 Bad\nGateway</title>{}</html>", "x".repeat(1000));
        let message = excerpt(page.as_bytes());
        assert!(message.starts_with("(a web page) 502 Bad Gateway xxx"), "{message}");
        assert!(message.chars().count() <= SHOWN + 1);
    }

    #[test]
    fn an_error_of_a_storage_is_reported_without_the_secrets_of_the_url_it_was_asked_by() {
        let url = "http://storage/b?X-Amz-Signature=AMZSIG0123456789&X-Amz-Security-Token=a%2Fb%3DTOKEN1234&n=12345678";
        let secrets = trace::secrets([&reqwest::Url::parse(url).unwrap()]);
        let echo = r#"<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code><Message>no AMZSIG0123456789, a/b=TOKEN1234 or
            a%2Fb%3DTOKEN1234 of 12345678</Message><SignatureProvided>AMZSIG0123456789</SignatureProvided></Error>"#;
        let message = excerpt_without(echo.as_bytes(), &secrets);
        assert_eq!(message, "SignatureDoesNotMatch: no ***, *** or *** of 12345678");
        let page = excerpt_without(b"<html>you sent AMZSIG0123456789</html>", &secrets);
        assert_eq!(page, "(a web page) you sent ***");
    }

    /// A login page often contains the URL that it will return to.
    #[test]
    fn the_query_of_a_url_that_is_quoted_is_masked_and_what_is_no_url_stays() {
        for (message, shown) in [
            (
                "go to https://sso/login?state=S3CRET&n=5#id_token=T0KEN now",
                "go to https://sso/login?state=***&n=5 now",
            ),
            ("back to /v2/a/u/1?_state=S3CRET;x=1", "back to /v2/a/u/1?_state=***;x=***"),
            ("https://user:S3CRET@host/x", "https://***@host/x"),
            ("why? see #5 and/or a?b", "why? see #5 and/or a?b"),
        ] {
            assert_eq!(excerpt(message.as_bytes()), shown);
            assert_eq!(excerpt(format!("<p>{message}</p>").as_bytes()), format!("(a web page) {shown}"));
        }
    }

    #[test]
    fn a_title_that_is_a_heading_too_is_reported_once() {
        let nginx = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1>\
                     </center>\r\n<hr><center>nginx/1.28</center>\r\n</body>\r\n</html>\r\n";
        assert_eq!(excerpt(nginx.as_bytes()), "(a web page) 502 Bad Gateway nginx/1.28");
        assert_eq!(excerpt(b"<html"), "(a web page)");
    }

    #[test]
    fn a_body_cannot_take_over_the_terminal() {
        let message = excerpt("\x1b[2J\x07\u{202e}hi\r\nthere".as_bytes());
        assert!(!message.contains(['\x1b', '\x07', '\u{202e}', '\n', '\r']), "{message:?}");
        assert!(message.contains("hi there"), "{message:?}");
    }
}
