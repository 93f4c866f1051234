//! A way in for the fuzz targets, to what is otherwise nobody's business: the texts a registry sends.
//!
//! Compiled for fuzzing only (`--cfg fuzzing`), so that nothing of it is part of the crate.

use std::time::{Duration, SystemTime};

use super::challenge::{Bearer, Challenge};

/// The next page a `Link` header names.
pub fn next_page(header: &str) -> Option<&str> {
    match super::link::next([header].into_iter()) {
        super::link::NextPage::At(target) => Some(target),
        super::link::NextPage::Nowhere | super::link::NextPage::Unreadable(_) => None,
    }
}

/// The challenge to answer of a `WWW-Authenticate` header: realm, then service, scope and error as far as there are any;
/// empty for Basic.
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

/// How much of an upload there is, by its `Range` header.
pub fn upload_range(header: &str) -> Option<u64> {
    super::upload::range_end(header)
}

/// A URL as `--log-http` shows it; `None` when it is no URL.
pub fn shown(url: &str) -> Option<String> {
    url.parse().ok().map(|url| super::trace::shown(&url))
}
