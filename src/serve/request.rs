//! Parses and validates the path and query of a request, once.
//!
//! # Threats
//! Names, tags, digests and upload numbers come from anyone. They are validated here into types; nothing else of a request is
//! used to find a file.

use crate::oci::{Digest, DigestError, Repository, Tag};

use super::answer::RequestRefusal;

/// What a path names. `name` is any valid spelling of a repository.
#[derive(Debug, PartialEq, Eq)]
pub enum ApiEndpoint {
    Ping,
    Catalog,
    Tags {
        name: String,
    },
    /// The subject is a valid digest that was not parsed, because such content need not exist.
    Referrers {
        name: String,
        subject: String,
    },
    Manifest {
        name: String,
        target: ManifestReference,
    },
    Blob {
        digest: Digest,
    },
    Uploads {
        name: String,
    },
    Upload {
        name: String,
        id: String,
    },
}

/// A manifest by tag or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestReference {
    Tag(Tag),
    Digest(Digest),
}

impl std::fmt::Display for ManifestReference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ManifestReference::Tag(tag) => tag.fmt(f),
            ManifestReference::Digest(digest) => digest.fmt(f),
        }
    }
}

impl ApiEndpoint {
    #[cfg(test)]
    fn parse(path: &str) -> Result<ApiEndpoint, RequestRefusal> {
        ApiEndpoint::parse_if(path, &|_| true)
    }

    /// `may_be` says whether content with a digest can exist. If not, its digest is not parsed: see [`Digest::known`].
    pub fn parse_if(path: &str, may_be: &dyn Fn(&str) -> bool) -> Result<ApiEndpoint, RequestRefusal> {
        let unknown = || RequestRefusal::new(404, "NAME_UNKNOWN", "no such path; everything is below /v2/");
        let decoded = percent_decode(path).ok_or_else(unknown)?;
        let rest = match decoded.strip_prefix("/v2").ok_or_else(unknown)? {
            "" | "/" => return Ok(ApiEndpoint::Ping),
            "/_catalog" => return Ok(ApiEndpoint::Catalog),
            rest => rest.strip_prefix('/').ok_or_else(unknown)?,
        };
        let (front, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        // Longest first: `…/blobs/uploads/` also looks like a `…/blobs/`.
        for (words, make) in SHAPES {
            let Some(name) = front.strip_suffix(words) else { continue };
            let name = repository(name)?;
            match words {
                "/blobs" if !may_be(last) => return Err(RequestRefusal::unknown_blob(&last)),
                "/manifests" if !may_be(last) => return Err(RequestRefusal::unknown_manifest(&last)),
                _ => return make(name, last),
            }
        }
        Err(unknown())
    }
}

impl ApiEndpoint {
    /// The methods for a writable layout, in the form of `Allow` (RFC 9110 10.2.1).
    pub fn methods(&self) -> &'static str {
        match self {
            ApiEndpoint::Manifest { .. } => "DELETE, GET, HEAD, PUT",
            ApiEndpoint::Blob { .. } => "DELETE, GET, HEAD",
            ApiEndpoint::Uploads { .. } => "POST",
            ApiEndpoint::Upload { .. } => "DELETE, GET, HEAD, PATCH, PUT",
            _ => "GET, HEAD",
        }
    }
}

type Make = fn(String, &str) -> Result<ApiEndpoint, RequestRefusal>;

/// What is between the repository and the last component, and the endpoint it means.
const SHAPES: [(&str, Make); 5] = [
    ("/blobs/uploads", |name, last| {
        Ok(match last {
            "" => ApiEndpoint::Uploads { name },
            id => ApiEndpoint::Upload { name, id: id.to_owned() },
        })
    }),
    ("/blobs", |name, last| match last {
        "uploads" => Ok(ApiEndpoint::Uploads { name }),
        digest => Ok(ApiEndpoint::Blob { digest: parse_digest(digest)? }),
    }),
    ("/manifests", |name, last| Ok(ApiEndpoint::Manifest { name, target: target(last)? })),
    ("/referrers", |name, last| Ok(ApiEndpoint::Referrers { name, subject: checked(last)?.to_owned() })),
    ("/tags", |name, last| match last {
        "list" => Ok(ApiEndpoint::Tags { name }),
        _ => Err(RequestRefusal::new(404, "NAME_UNKNOWN", "no such path; tags are at /tags/list")),
    }),
];

fn repository(name: &str) -> Result<String, RequestRefusal> {
    match name.parse::<Repository>() {
        Ok(_) => Ok(name.to_owned()),
        Err(e) => Err(RequestRefusal::new(400, "NAME_INVALID", e.to_string())),
    }
}

/// A digest in a path or query.
fn parse_digest(text: &str) -> Result<Digest, RequestRefusal> {
    text.parse().map_err(refused)
}

/// Only validates it without parsing. See [`Digest::known`].
fn checked(text: &str) -> Result<&str, RequestRefusal> {
    Digest::known(text).map(|_| text).map_err(refused)
}

fn refused(error: DigestError) -> RequestRefusal {
    if error.is_too_many() {
        let text = "too many different sha512 digests were requested since the server was started; start it again";
        return RequestRefusal::new(429, "TOOMANYREQUESTS", text);
    }
    RequestRefusal::new(400, "DIGEST_INVALID", error.to_string())
}

fn target(text: &str) -> Result<ManifestReference, RequestRefusal> {
    if text.contains(':') {
        return parse_digest(text).map(ManifestReference::Digest);
    }
    let tag = text.parse::<Tag>().map_err(|e| RequestRefusal::new(400, "TAG_INVALID", e.to_string()))?;
    Ok(ManifestReference::Tag(tag))
}

/// The decoded parameters of the query; the first of each name counts.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Query {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((percent_decode(name)?, percent_decode(&value.replace('+', " "))?))
        };
        Query(text.split('&').filter(|part| !part.is_empty()).filter_map(pair).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The registry that a mirror is asked for (`ns`, as sent by containerd), if any.
    ///
    /// # Errors
    /// It is not a registry.
    pub fn registry(&self) -> Result<Option<&str>, RequestRefusal> {
        let Some(registry) = self.get("ns") else { return Ok(None) };
        match Repository::new(registry, "x") {
            Ok(_) => Ok(Some(registry)),
            Err(e) => Err(RequestRefusal::new(400, "NAME_INVALID", format!("ns must be a registry: {e}"))),
        }
    }

    /// The digest given as `name`, if any; validated but not parsed. See [`Digest::known`].
    pub fn digest_text(&self, name: &str) -> Result<Option<&str>, RequestRefusal> {
        self.get(name).map(checked).transpose()
    }

    /// The digest given as `name`, if any.
    pub fn digest(&self, name: &str) -> Result<Option<Digest>, RequestRefusal> {
        self.get(name).map(parse_digest).transpose()
    }
}

/// Returns `None` if the result is not UTF-8 or has a control character, or if a `%` lacks two digits.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (high, low) = (digit(tail.first()?)?, digit(tail.get(1)?)?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
        rest = &tail[2..];
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Percent-encodes what would end a query value.
pub fn percent_encode(text: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~' | b'/');
    text.bytes().map(|c| if plain(c) { char::from(c).to_string() } else { format!("%{c:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_any_depth_are_reported_from_what_follows() {
        let digest = Digest::sha256(b"");
        let name = "a/b/manifests".to_owned();
        let parse = |path: &str| ApiEndpoint::parse(path).unwrap();
        assert_eq!(parse("/v2/"), ApiEndpoint::Ping);
        assert_eq!(parse("/v2"), ApiEndpoint::Ping);
        assert_eq!(parse("/v2/a/tags/list"), ApiEndpoint::Tags { name: "a".into() });
        let target = ManifestReference::Tag("1.0".parse().unwrap());
        assert_eq!(parse("/v2/a/b/manifests/manifests/1.0"), ApiEndpoint::Manifest { name, target });
        let encoded = format!("/v2/a/blobs/{}", digest.to_string().replace(':', "%3A"));
        assert_eq!(parse(&encoded), ApiEndpoint::Blob { digest });
        assert_eq!(parse("/v2/a/b/blobs/uploads/"), ApiEndpoint::Uploads { name: "a/b".into() });
        assert_eq!(parse("/v2/a/blobs/uploads/7f"), ApiEndpoint::Upload { name: "a".into(), id: "7f".into() });
    }

    #[test]
    fn a_sha512_digest_that_nothing_here_has_leaves_nothing_behind() {
        let nothing = |kind: &str, n: u32| {
            let text = format!("sha512:{n:0128x}");
            let is_known = |text: &str| Digest::known(text) != Ok(None);
            let endpoint = ApiEndpoint::parse_if(&format!("/v2/a/{kind}/{text}"), &is_known);
            assert_eq!(endpoint.is_ok(), kind == "referrers");
            assert!(!is_known(&text), "{kind}");
            text
        };
        let text = nothing("blobs", 1_000_001);
        nothing("manifests", 1_000_002);
        nothing("referrers", 1_000_003);
        assert_eq!(text.parse().map(Some), Digest::known(&text));
        for other in ["1.0", "sha512:zz", "sha256:zz"] {
            assert!(Digest::known(other).is_err(), "{other}");
        }
    }

    #[test]
    fn names_that_could_leave_the_layout_never_get_further() {
        for path in [
            "/v2/../etc/manifests/x",
            "/v2/a/%2e%2e/blobs/uploads/",
            "/v2/a/blobs/sha256:..",
            "/v2/a/blobs/md5:00",
            "/v2/a/manifests/%2e%2e",
            "/v2/a/manifests/x%00",
            "/v2//manifests/x",
            "/v2/A/tags/list",
            "/v3/",
            "/v2/a/manifests/%zz",
            "/v2x/",
            "/",
        ] {
            assert!(ApiEndpoint::parse(path).is_err(), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_and_query_is_answered_not_a_panic(path in "/v2/[a-z%/.:A-F0-9_-]{0,60}|\\PC{0,60}", query in "\\PC{0,60}") {
            let _ = ApiEndpoint::parse(&path);
            let _ = Query::parse(&query).get("n");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("n=5&last=a%2Fb&digest=sha256:zz&x");
        assert_eq!((query.get("n"), query.get("last"), query.get("y")), (Some("5"), Some("a/b"), None));
        assert!(query.digest("digest").is_err());
        assert_eq!(percent_encode("a/b:c&d"), "a/b%3Ac%26d");
    }
}
