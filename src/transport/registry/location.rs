//! Where an answer leads: redirects, and the targets of Location and Link.
//!
//! **Threats.** A server may redirect anywhere. gapferry never leaves HTTP, never goes from TLS to plain HTTP, and
//! never sends credentials from a URL. A request body (an identity token, JSON for an API) is repeated only to the same
//! origin, or over TLS to the same host if that host got it without TLS. A target may be signed: errors show none of
//! its secrets.

use reqwest::header::LOCATION;
use reqwest::{Method, Response, Url};

use super::call::Call;
use super::failure::{Failure, Retry};
use super::reply::Reply;
use super::trace;
use crate::base::error::{Error, Kind};

/// The target of a redirect, if this call may follow it. A streamed body cannot be sent again.
pub(super) fn redirect(call: &Call<'_>, response: &Response, repeatable: bool) -> Result<Option<Url>, Failure> {
    let follows = match response.status().as_u16() {
        301..=303 => matches!(call.method, Method::GET | Method::HEAD),
        307 | 308 => repeatable,
        _ => false,
    };
    let Some(location) = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).filter(|_| follows) else {
        return Ok(None);
    };
    let next = resolve(&call.url, location).map_err(|reason| misled(call.what, format!("redirected, but {reason}")))?;
    if call.body.size() > 0 && next.origin() != call.url.origin() && !is_upgrade(&call.url, &next) {
        let [from, to] = [&call.url, &next].map(|url| url.origin().ascii_serialization());
        let reason = format!("{from} redirects to another server, {to}, which must not get the request body");
        return Err(misled(call.what, reason));
    }
    Ok(Some(next))
}

/// The target of a redirect (307, 308) for content that has to be sent anew, with the failure that sends it there at
/// once. `None` if the answer is no such redirect. Credentials go only to the registry's own origin
/// ([`wire`](super::wire)).
pub(super) fn led_on(reply: &Reply, what: &str) -> Option<Result<(Url, Failure), Failure>> {
    let location = reply.header("location").filter(|_| matches!(reply.status(), 307 | 308))?;
    let next = resolve(reply.url(), location).map_err(|reason| misled(what, format!("redirected, but {reason}")));
    Some(next.map(|next| {
        let [from, to] = [reply.url(), &next].map(|url| url.origin().ascii_serialization());
        let reason = format!(
            "{from} redirects the upload to {to} again and again; a proxy in front of the registry must forward uploads"
        );
        (next, Failure { retry: Retry::Now, ..misled(what, reason) })
    }))
}

/// A redirect that must not or cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misled(String);

/// The failure of a request whose redirect cannot be followed. `reason` says why.
pub(super) fn misled(what: &str, reason: String) -> Failure {
    Failure::never(Error::new(Kind::Network, what).because(Misled(reason)))
}

/// Whether a request failed because of its redirect. A request with another method may be answered, or redirected
/// elsewhere.
pub(super) fn is_misled(failure: &Failure) -> bool {
    std::error::Error::source(&failure.error).is_some_and(|cause| cause.is::<Misled>())
}

/// True if `to` is the same host by TLS, on the port that `to` names or else the port of https.
fn is_upgrade(from: &Url, to: &Url) -> bool {
    (from.scheme(), to.scheme()) == ("http", "https") && from.host_str() == to.host_str()
}

/// True if `to` is the same server, perhaps by TLS from now on.
pub(super) fn is_same_server(from: &Url, to: &Url) -> bool {
    from.origin() == to.origin() || is_upgrade(from, to)
}

/// Resolves a Location or Link target against the requested URL.
///
/// Registries behind a TLS-terminating proxy name themselves with `http://`: the same host keeps https. Another host
/// must not be reached with less protection than this one.
pub(super) fn resolve(base: &Url, target: &str) -> Result<Url, String> {
    let mut url =
        base.join(target.trim()).map_err(|e| format!("to {:?}, which is not a URL ({e})", legible(target)))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("to {}://, which is not HTTP", url.scheme()));
    }
    // Credentials in a URL would be sent as Basic authentication to its host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if base.scheme() == "https" && url.scheme() == "http" {
        if url.host_str() != base.host_str() {
            return Err(format!("from TLS to plain HTTP at {}", trace::shown(&url)));
        }
        let port = url.port().or(base.port());
        let _ = url.set_scheme("https");
        let _ = url.set_port(port);
    }
    Ok(url)
}

/// The printable part of a target that cannot be parsed, and so cannot be masked as a URL: what precedes the query,
/// unless it may name a user.
fn legible(target: &str) -> String {
    const LONGEST: usize = 200;
    let place = target.split(['?', '#']).next().unwrap_or_default();
    let open = if target.contains('@') { "***" } else { place };
    let mut shown: String = open.chars().take(LONGEST).collect();
    if shown != target {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(base: &str, target: &str) -> Result<String, String> {
        resolve(&base.parse().unwrap(), target).map(|url| url.to_string())
    }

    #[test]
    fn a_location_keeps_its_query_and_tls() {
        for (base, target, to) in [
            ("http://h:5000/v2/a/blobs/uploads/", "/v2/a/u/1?_state=x%2By", "http://h:5000/v2/a/u/1?_state=x%2By"),
            ("https://h/v2/", "http://h/v2/u", "https://h/v2/u"),
            ("https://h:8443/v2/", "http://h/v2/u", "https://h:8443/v2/u"),
            ("https://h:8443/v2/", "http://h:8443/v2/u", "https://h:8443/v2/u"),
            ("https://h/v2/", "https://u:p@s3/x", "https://s3/x"),
            ("http://[::1]:5000/v2/", "u?x", "http://[::1]:5000/v2/u?x"),
        ] {
            assert_eq!(resolved(base, target).as_deref(), Ok(to));
        }
    }

    #[test]
    fn a_location_cannot_leave_http_or_tls() {
        assert!(resolved("https://h/v2/", "http://other/x?token=1").is_err_and(|e| !e.contains("token=1")));
        assert!(resolved("https://h/v2/", "file:///etc/passwd").is_err());
        assert!(resolved("https://h/v2/", "http://[").is_err());
    }

    #[test]
    fn a_malformed_location_is_reported_without_its_secrets() {
        for (target, reported) in [
            ("https://s3:99999/x?X-Amz-Signature=abc", "https://s3:99999/x…"),
            ("https://s3:99999/x?X-Amz-Signature=a abc", "https://s3:99999/x…"),
            ("https://s3:99999/x#abc", "https://s3:99999/x…"),
            ("https://u:abc@s3:99999/x", "***…"),
            ("https://u:p?abc@s3:99999/x", "***…"),
            ("https://s3:99999/x", "https://s3:99999/x\""),
        ] {
            let error = resolved("https://h/v2/", target).unwrap_err();
            assert!(error.contains(reported) && !error.contains("abc"), "{error}");
        }
        let long = format!("https://s3:99999/{}", "é".repeat(100_000));
        assert!(resolved("https://h/v2/", &long).unwrap_err().chars().count() < 300);
    }
}
