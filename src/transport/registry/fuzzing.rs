//! Access for the fuzz targets to the parsers of texts that a registry sends.
//!
//! It is compiled only for fuzzing (`--cfg fuzzing`), so it is not part of the crate.

use std::time::{Duration, SystemTime};

use super::challenge::{Bearer, Challenge};

/// The next page in a `Link` header.
pub fn next_page(header: &str) -> Option<&str> {
    match super::link::next([header].into_iter()) {
        super::link::NextPage::At(target) => Some(target),
        super::link::NextPage::Nowhere | super::link::NextPage::Unreadable(_) => None,
    }
}

/// The challenge to answer in a `WWW-Authenticate` header: realm, then service, scope and error if present; empty for Basic.
pub fn challenge(header: &str) -> Option<Vec<String>> {
    let asked = reqwest::Url::parse("https://registry.invalid/v2/").ok()?;
    Some(match Challenge::choose([header].into_iter(), &asked)? {
        Challenge::Basic => Vec::new(),
        Challenge::Bearer(Bearer { realm, service, scope, error, .. }) => {
            [Some(realm), service, scope, error].into_iter().flatten().collect()
        }
    })
}

/// How long a `Retry-After` header asks to wait.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    super::retry_after::retry_after(header, now)
}

/// What is shown of a refusal's body.
pub fn excerpt(body: &[u8]) -> String {
    super::answer::excerpt(body)
}

/// How long `ratelimit-limit` and `ratelimit-remaining` hold back a pull.
pub fn pause(limit: &str, remaining: &str) -> Option<Duration> {
    super::limit::pause(limit, remaining)
}

/// Start, end and total of a `Content-Range` header.
pub fn content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    super::content_range::ContentRange::parse(header).map(|range| (range.start, range.end, range.total))
}

/// The size of an upload according to its `Range` header.
pub fn upload_range(header: &str) -> Option<u64> {
    super::upload::range_end(header)
}

/// A URL as `--log-http` shows it; `None` if it is not a URL.
pub fn shown(url: &str) -> Option<String> {
    url.parse().ok().map(|url| super::trace::shown(&url))
}
