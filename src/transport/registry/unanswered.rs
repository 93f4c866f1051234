//! Why a request got no answer, or part of one: finds the cause at the bottom of an HTTP library's error.

use std::time::Duration;

use super::facts::NoAnswer;
use super::failure::{Failure, Retry};
use super::proxy::{Proxy, by_way_of};
use super::resolver::NotResolved;
use super::tls;
use super::tls_words;
use crate::base::error::{Error, Kind};

/// There was no answer within `limit`. `aside` is added to the message.
pub(super) fn silence(what: &str, limit: Duration, aside: &str, proxy: Option<&Proxy>) -> Failure {
    let text = format!("{what}: no answer for {} s{aside}{}", limit.as_secs_f32(), by_way_of(proxy));
    Failure::no_answer_in(limit, Error::new(Kind::Network, text))
}

/// A connection could not be made, or broke. reqwest's own texts repeat the URL with the secrets in its query, and
/// several layers that say nothing. The message has the cause at the bottom.
pub(super) fn broken(what: &str, error: reqwest::Error, proxy: Option<&Proxy>) -> Failure {
    let error = error.without_url();
    let tls = tls::fault(&error);
    let reason = tls.and_then(tls_words::words).unwrap_or_else(|| bottom(&error));
    let cause = NoAnswer {
        reason: format!("{reason}{}", by_way_of(proxy)),
        tls: tls.map(tls_words::fault),
        spoke_tls: tls.is_some_and(tls::spoke_tls),
        // A proxy resolves names itself: here it is the proxy's own name that has no address.
        is_unresolved: proxy.is_none() && is_unresolved(&error),
    };
    let permanent = error.is_builder() || tls.is_some();
    let error = Error::new(Kind::Network, what).because(cause);
    if permanent { Failure::never(error) } else { Failure::soon(error) }
}

/// The same, before any answer.
pub(super) fn unanswered(what: &str, error: reqwest::Error, proxy: Option<&Proxy>) -> Failure {
    let failure = broken(what, error, proxy);
    if failure.retry == Retry::Soon { Failure::no_answer(failure.error) } else { failure }
}

/// Whether the connection failed although the server speaks TLS.
pub(super) fn spoke_tls(failure: &Failure) -> bool {
    failure.error.find::<NoAnswer>().is_some_and(|no_answer| no_answer.spoke_tls)
}

/// Whether there was no answer because the host name could not be resolved.
pub(super) fn has_no_address(failure: &Failure) -> bool {
    failure.error.find::<NoAnswer>().is_some_and(|no_answer| no_answer.is_unresolved)
}

fn is_unresolved(error: &reqwest::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if error.is::<NotResolved>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn bottom(error: &(dyn std::error::Error + 'static)) -> String {
    const LAYERS: [&str; 5] =
        ["error sending request", "client error", "request or response body error", "error decoding", "error reading"];
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.to_string().as_str() {
            "tunnel error: unsuccessful" => "the proxy refuses to connect there".to_owned(),
            "tunnel error: proxy authorization required" => "the proxy requires valid credentials".to_owned(),
            text => text.to_owned(),
        };
        let repeated = parts.last().is_some_and(|last| last.contains(&text));
        if !repeated && !LAYERS.iter().any(|layer| text.starts_with(layer)) {
            parts.push(text);
        }
        next = error.source();
    }
    if parts.is_empty() { "the connection failed".to_owned() } else { parts.join(": ") }
}
