//! Serves manifests and blobs.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;

use crate::content::Slice;
use crate::oci::Digest;

use super::answer::{RequestRefusal, build};
use super::blocking;
use super::catalog::Catalog;
use super::request::ManifestReference;

/// GET or HEAD of a manifest: its exact bytes with its own media type.
///
/// `registry` is the one that the client asks a mirror for (`?ns=`): only that registry's tags are served. A digest means the
/// same everywhere.
pub async fn manifest(
    catalog: &Arc<Catalog>,
    name: &str,
    registry: Option<&str>,
    target: &ManifestReference,
    asked: &HeaderMap,
) -> Result<Response, RequestRefusal> {
    let digest = find(catalog, name, registry, target)?;
    let own = Arc::clone(catalog);
    let manifest = blocking(move || own.manifest(&digest)).await?;
    let manifest = manifest.ok_or_else(|| RequestRefusal::unknown_manifest(&format!("{name}@{digest}")))?;
    let etag = format!("\"{digest}\"");
    if is_known(asked, &digest) {
        return build(304, &[("etag", &etag)], Body::empty());
    }
    let (media_type, size, digest) =
        (manifest.media_type().to_owned(), manifest.size().to_string(), digest.to_string());
    let headers = [
        ("content-type", media_type.as_str()),
        ("content-length", &size),
        ("docker-content-digest", &digest),
        ("etag", &etag),
    ];
    build(200, &headers, manifest.into_body())
}

fn find(
    catalog: &Catalog,
    name: &str,
    registry: Option<&str>,
    target: &ManifestReference,
) -> Result<Digest, RequestRefusal> {
    let names = catalog.names();
    match target {
        ManifestReference::Digest(digest) => {
            let repository = names.recorded(name, registry);
            if repository.is_some_and(|repository| names.is_deleted(&repository, digest)) {
                return Err(RequestRefusal::unknown_manifest(&format!("{name}@{digest}")));
            }
            Ok(*digest)
        }
        ManifestReference::Tag(tag) => {
            let unknown = || RequestRefusal::unknown_manifest(&format!("{name}:{tag}"));
            names.digest(name, registry, tag).ok_or_else(unknown)
        }
    }
}

/// Whether the client says that it has this content (`If-None-Match`, RFC 9110 13.1.2). As in distribution, a digest without
/// quotes counts too.
fn is_known(headers: &HeaderMap, digest: &Digest) -> bool {
    let digest = digest.to_string();
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|value| value.split(',')).any(|tag| tag.trim().trim_start_matches("W/").trim_matches('"') == digest)
}

/// GET or HEAD of a blob, whole or one range of it.
pub async fn blob(
    catalog: &Arc<Catalog>,
    digest: Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, RequestRefusal> {
    let own = Arc::clone(catalog);
    let slice = blocking(move || own.slice(&digest)).await?.ok_or_else(|| RequestRefusal::unknown_blob(&digest))?;
    let (size, etag) = (slice.size(), format!("\"{digest}\""));
    if is_known(headers, &digest) {
        return build(304, &[("docker-content-digest", &digest.to_string()), ("etag", &etag)], Body::empty());
    }
    // Only a GET has ranges.
    let wanted = if method == Method::GET { wanted(headers, size, &etag) } else { Wanted::Whole };
    let (status, from, until) = match wanted {
        Wanted::Whole => (200, 0, size),
        Wanted::Part { from, until } => (206, from, until),
        Wanted::Nothing => {
            let refusal = RequestRefusal::new(416, "RANGE_INVALID", format!("{digest} has {size} bytes"));
            return Err(refusal.with("content-range", format!("bytes */{size}")));
        }
    };
    let (length, digest) = ((until - from).to_string(), digest.to_string());
    let part = format!("bytes {from}-{}/{size}", until.saturating_sub(1));
    let mut fields = vec![
        ("content-type", "application/octet-stream"),
        ("content-length", length.as_str()),
        ("docker-content-digest", digest.as_str()),
        ("accept-ranges", "bytes"),
        ("etag", etag.as_str()),
    ];
    if status == 206 {
        fields.push(("content-range", &part));
    }
    build(status, &fields, body(slice, from, until))
}

fn body(slice: Slice, from: u64, until: u64) -> Body {
    if from == until { Body::empty() } else { Body::from_stream(slice.until(until).stream(from).stream) }
}

/// The requested part of a blob.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// The bytes from `from` up to, but not including, `until`.
    Part {
        from: u64,
        until: u64,
    },
    /// A range that starts after the end.
    Nothing,
}

/// A single range of bytes (RFC 9110 14.2); several ranges or another unit are ignored, as allowed there.
fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let field = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if field(header::IF_RANGE).is_some_and(|condition| condition != etag) {
        return Wanted::Whole;
    }
    let range = field(header::RANGE).and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|text| text.trim().split_once('-')) else { return Wanted::Whole };
    let (first, last) = (first.trim(), last.trim());
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => Wanted::Whole,
        (Ok(first), _) if first >= size && (last.is_empty() || last.parse::<u64>().is_ok()) => Wanted::Nothing,
        (Ok(first), Ok(last)) => Wanted::Part { from: first, until: size.min(last.saturating_add(1)) },
        (Ok(first), Err(_)) if last.is_empty() => Wanted::Part { from: first, until: size },
        (Err(_), Ok(0)) if first.is_empty() => Wanted::Nothing,
        (Err(_), Ok(_)) if first.is_empty() && size == 0 => Wanted::Nothing,
        (Err(_), Ok(count)) if first.is_empty() => Wanted::Part { from: size.saturating_sub(count), until: size },
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_download_gets_exactly_the_bytes_it_lacks() {
        let ask = |range: &str, size| {
            let headers = [(header::RANGE, range.parse().unwrap())].into_iter().collect();
            wanted(&headers, size, "\"x\"")
        };
        let part = |from, until| Wanted::Part { from, until };
        for (range, size, expected) in [
            ("bytes=4-", 10, part(4, 10)),
            ("bytes=0-3", 10, part(0, 4)),
            ("bytes=0-99", 10, part(0, 10)),
            ("bytes=9-9", 10, part(9, 10)),
            ("bytes=-3", 10, part(7, 10)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=10-", 10, Wanted::Nothing),
            ("bytes=10-12", 10, Wanted::Nothing),
            ("bytes=0-", 0, Wanted::Nothing),
            ("bytes=-0", 10, Wanted::Nothing),
            ("bytes=-5", 0, Wanted::Nothing),
            ("bytes=5-2", 10, Wanted::Whole),
            ("bytes=0-1,4-5", 10, Wanted::Whole),
            ("bytes=x-", 10, Wanted::Whole),
            ("bytes=-", 10, Wanted::Whole),
            ("lines=1-2", 10, Wanted::Whole),
            ("bytes=0-18446744073709551615", 10, part(0, 10)),
            ("bytes=0-99999999999999999999", 10, Wanted::Whole),
        ] {
            assert_eq!(ask(range, size), expected, "{range} of {size}");
        }
    }

    #[test]
    fn a_range_of_other_content_is_not_mixed_in() {
        let headers: HeaderMap =
            [(header::RANGE, "bytes=4-".parse().unwrap()), (header::IF_RANGE, "\"old\"".parse().unwrap())]
                .into_iter()
                .collect();
        assert_eq!(wanted(&headers, 10, "\"new\""), Wanted::Whole);
        assert_eq!(wanted(&headers, 10, "\"old\""), Wanted::Part { from: 4, until: 10 });
    }
}
