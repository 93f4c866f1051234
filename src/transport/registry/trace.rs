//! What logs and errors may show of requests: URLs without their secrets, and every exchange for `--log-http`.
//!
//! **Threats.** Logs are sent to colleagues and vendors. Storage URLs are signed in many ways, upload URLs carry state,
//! and tokens are in headers. Query values are masked unless they are known to be harmless, and only the headers listed
//! here are shown.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::Url;
use reqwest::header::HeaderMap;

use crate::base::error::Error;
use crate::base::progress::{Event, Events, Exchange, Headers, Moment};

/// Query keys of the distribution protocol whose values are not secret. Every other value is masked.
const OPEN: [&str; 8] = ["digest", "mount", "from", "n", "last", "scope", "service", "artifactType"];

/// Headers that are shown in the log.
const SHOWN: [&str; 22] = [
    "accept",
    "authorization",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "docker-content-digest",
    "link",
    "location",
    "oci-chunk-min-length",
    "oci-filters-applied",
    "oci-subject",
    "range",
    "ratelimit-limit",
    "ratelimit-remaining",
    "retry-after",
    "server",
    "set-cookie",
    "www-authenticate",
    "x-request-id",
    "x-served-by",
];

/// Returns the URL with its query values masked.
pub(super) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_fragment(None);
    masked(shown.as_str())
}

/// Masks users, passwords and query values of the URLs in a text, and removes their fragments, which can carry tokens
/// too.
fn masked(text: &str) -> String {
    masked_where(text, |_| true)
}

/// Does the same to text from outside. Other text with a question mark or a `#` stays as it is.
pub(super) fn quoted(text: &str) -> String {
    masked_where(text, |piece| {
        let (place, query) = piece.split_once(['?', '#']).unwrap_or((piece, ""));
        place.contains("//") || place.contains('/') && query.contains('=')
    })
}

fn masked_where(text: &str, is_url: impl Fn(&str) -> bool) -> String {
    let ends_url = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>');
    text.split_inclusive(ends_url)
        .map(|piece| {
            let end = piece.rfind(ends_url).unwrap_or(piece.len());
            let (piece, mark) = piece.split_at(end);
            if !is_url(piece) {
                return format!("{piece}{mark}");
            }
            let piece = piece.split('#').next().unwrap_or_default();
            let (place, query) = match piece.split_once('?') {
                Some((place, query)) => (place, format!("?{}", masked_query(query))),
                None => (piece, String::new()),
            };
            without_user(place) + &query + mark
        })
        .collect()
}

fn without_user(place: &str) -> String {
    if let Some((scheme, rest)) = place.split_once("//")
        && let Some((_, host)) = rest.split('/').next().and_then(|authority| authority.rsplit_once('@'))
    {
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        return format!("{scheme}//***@{host}{path}");
    }
    place.to_owned()
}

/// `;` separates too: some servers treat it so.
fn masked_query(query: &str) -> String {
    let masked = query.split_inclusive(['&', ';']).map(|piece| {
        let (pair, mark) = piece.split_at(piece.trim_end_matches(['&', ';']).len());
        match pair.split_once('=') {
            Some((key, _)) if OPEN.contains(&key) => piece.to_owned(),
            Some((key, _)) => format!("{key}=***{mark}"),
            None => format!("***{mark}"),
        }
    });
    masked.collect()
}

/// Shorter query values are words and numbers.
const SHORTEST_SECRET: usize = 8;

/// Returns the query values that must not be repeated, such as the signature of a storage URL: the values that are
/// masked, encoded and decoded.
pub(super) fn secrets<'u>(urls: impl IntoIterator<Item = &'u Url>) -> Vec<String> {
    urls.into_iter().flat_map(secrets_of).collect()
}

fn secrets_of(url: &Url) -> Vec<String> {
    let pairs = url.query().unwrap_or_default().split(['&', ';']);
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or(("", pair)));
    let raw = pairs.filter(|(key, _)| !OPEN.contains(key)).map(|(_, value)| value);
    // Parse it as the value of a form with an empty name.
    let mut alone = url.clone();
    let mut meant = |raw: &str| {
        alone.set_query(Some(&format!("={raw}")));
        alone.query_pairs().next().map(|(_, value)| value.into_owned())
    };
    let both = raw.flat_map(|raw| [Some(raw.to_owned()), meant(raw)]).flatten();
    both.filter(|value| value.len() >= SHORTEST_SECRET).collect()
}

/// Returns the headers that are shown, with their secrets masked.
fn selected(headers: &HeaderMap) -> Headers {
    let known = headers.iter().filter(|(name, _)| SHOWN.contains(&name.as_str()));
    let value = |name: &str, value: &reqwest::header::HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match name {
            "authorization" => format!("{} ***", text.split(' ').next().filter(|_| text.contains(' ')).unwrap_or("")),
            "cookie" | "set-cookie" => "***".to_owned(),
            _ => masked(&text),
        }
    };
    known.map(|(name, v)| (name.to_string(), value(name.as_str(), v))).collect()
}

/// Logs every exchange of a run, if that is requested.
pub(super) struct Log {
    events: Option<Events>,
    count: AtomicU64,
    /// Number of failures of each attempt under way that has failed.
    failed: Mutex<HashMap<String, u32>>,
}

impl Log {
    pub fn new(wanted: bool, events: &Events) -> Arc<Log> {
        let events = wanted.then(|| events.clone());
        Arc::new(Log { events, count: AtomicU64::new(0), failed: Mutex::default() })
    }

    /// Records how often the attempt has failed; 0 when it is over.
    pub fn note_failures(&self, what: &str, failed: u32) {
        if self.events.is_none() {
            return;
        }
        let mut known = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed {
            0 => drop(known.remove(what)),
            failed => drop(known.insert(what.to_owned(), failed)),
        }
    }

    /// Logs a request that is sent, with `bytes` of body.
    pub fn asked(&self, what: &str, method: &str, url: &Url, headers: &HeaderMap, bytes: u64) -> Talk {
        let Some(events) = self.events.clone() else { return Talk(None) };
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).get(what).copied();
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let talk = Talk(Some(LoggedExchange { events, number, began: Instant::now(), read: 0, whole: false }));
        talk.report(Moment::Asked {
            method: method.to_owned(),
            url: shown(url),
            attempt: failed.unwrap_or_default().saturating_add(1),
            bytes,
            headers: selected(headers),
        });
        talk
    }
}

/// One exchange under way. When dropped, it logs how much of the answer's body was read.
pub(super) struct Talk(Option<LoggedExchange>);

struct LoggedExchange {
    events: Events,
    number: u64,
    began: Instant,
    read: u64,
    whole: bool,
}

impl Talk {
    pub fn answered(&self, status: u16, headers: &HeaderMap) {
        if let Some(logged) = &self.0 {
            let (after, headers) = (logged.began.elapsed(), selected(headers));
            self.report(Moment::Answered { status, after, headers });
        }
    }

    pub fn failed(&self, error: &Error) {
        if let Some(logged) = &self.0 {
            self.report(Moment::Failed { why: masked(&error.chain()), after: logged.began.elapsed() });
        }
    }

    /// Records that more of the body was read; `None` at its end.
    pub fn read(&mut self, bytes: Option<usize>) {
        if let Some(logged) = &mut self.0 {
            logged.read += bytes.unwrap_or_default() as u64;
            logged.whole = bytes.is_none();
        }
    }

    fn report(&self, moment: Moment) {
        if let Some(LoggedExchange { events, number, .. }) = &self.0 {
            events.report(Event::Http(Box::new(Exchange { number: *number, moment })));
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(LoggedExchange { read, whole, began, .. }) = self.0
            && read > 0
        {
            self.report(Moment::Read { bytes: read, whole, after: began.elapsed() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::progress::Recorder;

    #[test]
    fn a_signed_url_does_not_show_its_signature() {
        let url = "https://s3/x?X-Amz-Signature=abc&digest=sha256:00&token=def&ghi#jkl".parse().unwrap();
        assert_eq!(shown(&url), "https://s3/x?X-Amz-Signature=***&digest=sha256:00&token=***&***");
        let url = "https://ghp_token:x-oauth@git:8443/a@b?n=1".parse().unwrap();
        assert_eq!(shown(&url), "https://***@git:8443/a@b?n=1");
        let url = "https://s3/x?n=1;sig=abc;digest=sha256:00;last&token=def;ghi".parse().unwrap();
        assert_eq!(shown(&url), "https://s3/x?n=1;sig=***;digest=sha256:00;***&token=***;***");
    }

    /// A storage may repeat a secret in an error in either form.
    #[test]
    fn a_secret_of_a_url_is_known_as_it_stands_and_as_it_is_meant() {
        let url: Url = "https://s3/x?n=1&abc%2Fdefgh&sig=r%2Bs3cret;key=a%20b%20c%20d%20e&t=short".parse().unwrap();
        assert_eq!(
            secrets_of(&url),
            ["abc%2Fdefgh", "abc/defgh", "r%2Bs3cret", "r+s3cret", "a%20b%20c%20d%20e", "a b c d e"]
        );
    }

    #[test]
    fn a_url_inside_a_header_does_not_show_its_secrets_either() {
        assert_eq!(masked(r#"</v2/a/tags/list?n=2&last=b&sig=c>; rel="next""#), {
            r#"</v2/a/tags/list?n=2&last=b&sig=***>; rel="next""#
        });
        assert_eq!(masked(r#"Bearer realm="https://u:p@h/t?key=k",scope="s:a:pull""#), {
            r#"Bearer realm="https://***@h/t?key=***",scope="s:a:pull""#
        });
    }

    #[test]
    fn a_token_in_the_fragment_of_a_url_is_not_shown() {
        for (text, reported) in [
            ("https://h/x#access_token=s3cret", "https://h/x"),
            ("https://h/x?sig=s3cret#a=s3cret?b=s3cret", "https://h/x?sig=***"),
            (r#"</v2/x?n=1#s3cret>; rel="next""#, r#"</v2/x?n=1>; rel="next""#),
        ] {
            assert_eq!(masked(text), reported);
        }
    }

    #[test]
    fn of_headers_only_the_harmless_part_is_reported() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer s3cret"),
            ("set-cookie", "sid=s3cret"),
            ("x-unknown", "s3cret"),
            ("location", "/upload?_state=s3cret"),
            ("content-length", "12"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let reported = selected(&headers);
        assert!(!format!("{reported:?}").contains("s3cret"), "{reported:?}");
        assert!(reported.contains(&("authorization".into(), "Bearer ***".into())), "{reported:?}");
        assert!(reported.contains(&("content-length".into(), "12".into())), "{reported:?}");
        headers.insert("authorization", "s3cret".parse().unwrap());
        assert!(!format!("{:?}", selected(&headers)).contains("s3cret"));
    }

    #[test]
    fn an_exchange_is_reported_from_request_to_last_byte_and_only_if_wanted() {
        let recorder = Arc::new(Recorder::default());
        let events: Events = recorder.clone();
        let url = "http://h/v2/".parse().unwrap();
        let talk = |wanted| {
            let log = Log::new(wanted, &events);
            log.note_failures("asking", 2);
            let mut talk = log.asked("asking", "GET", &url, &HeaderMap::new(), 0);
            talk.answered(200, &HeaderMap::new());
            talk.read(Some(10));
            talk.read(None);
        };
        talk(false);
        assert_eq!(recorder.events(), []);
        talk(true);
        let reported: Vec<String> = recorder
            .events()
            .into_iter()
            .map(|event| match event {
                Event::Http(exchange) => exchange.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(reported[0], "http 1 > GET http://h/v2/ (try 3)");
        assert!(reported[1].starts_with("http 1 < 200 after "), "{reported:?}");
        assert!(reported[2].starts_with("http 1 = 10 bytes after ") && reported.len() == 3, "{reported:?}");
    }
}
