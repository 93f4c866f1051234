//! Image references: `host[:port]/path[:tag][@digest]` (distribution `reference/reference.go`), with Docker's short names
//! expanded.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Digest, NO_PASSWORD_HERE, without_password};

/// The registry of Docker's short names.
const DOCKER_HUB: &str = "docker.io";

/// Why a text is not a reference (or a repository, or a tag).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference {text:?}: {reason}")]
pub struct ReferenceError {
    /// The offending text, shortened to 300 characters.
    pub text: String,
    pub reason: String,
}

fn error(text: &str, reason: impl Into<String>) -> ReferenceError {
    let (text, reason) = match without_password(text) {
        Some(masked) => (masked, NO_PASSWORD_HERE.to_owned()),
        None => (text.to_owned(), reason.into()),
    };
    ReferenceError { text: text.chars().take(300).collect(), reason }
}

/// For a reason: quoted, with control characters escaped, shortened to 300 characters.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(300).collect::<String>())
}

/// A repository in a registry. `registry` is `host[:port]` (an IPv6 literal in brackets), `path` one or more components.
///
/// Cloning is cheap: plans and inventories name the repository of every blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    registry: String,
    path: String,
}

impl Repository {
    /// Builds a repository from separate parts, and validates both.
    pub fn new(registry: &str, path: &str) -> Result<Repository, ReferenceError> {
        let whole = || format!("{registry}/{path}");
        check_registry(registry).map_err(|reason| error(&whole(), reason))?;
        check_path(path).map_err(|reason| error(&whole(), reason))?;
        Ok(Repository::of(registry.to_owned(), path.to_owned()))
    }

    fn of(registry: String, path: String) -> Repository {
        Repository(Arc::new(Parts { registry, path }))
    }

    /// `host[:port]`, as the user wrote it (`docker.io` for Docker Hub).
    pub fn registry(&self) -> &str {
        &self.0.registry
    }

    /// The path below `/v2/`, such as `library/nginx`.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The first component of the path and the rest: in Harbor, the project and the repository in it. `None` if there is only
    /// one component.
    pub fn in_project(&self) -> Option<(&str, &str)> {
        self.path().split_once('/')
    }

    /// The first component of the path, or all of it if there is only one.
    pub fn project(&self) -> &str {
        self.in_project().map_or(self.path(), |(project, _)| project)
    }

    pub fn with_tag(&self, tag: Tag) -> Reference {
        Reference { repository: self.clone(), tag: Some(tag), digest: None }
    }

    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { repository: self.clone(), tag: None, digest: Some(digest) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry(), self.path())
    }
}

impl FromStr for Repository {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Repository, ReferenceError> {
        let reference: Reference = text.parse()?;
        if reference.tag.is_some() || reference.digest.is_some() {
            return Err(error(text, "expected a repository, without tag and digest"));
        }
        Ok(reference.repository)
    }
}

/// The suffixes of cosign's tags (cosign `pkg/oci/remote`).
pub const COSIGN_SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// A tag: at most 128 of `[A-Za-z0-9_.-]`, not starting with `.` or `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The fallback tag that lists the referrers of `subject` in a registry without a referrers API (distribution-spec 1.1,
    /// "Referrers Tag Schema").
    pub fn referrers(subject: &Digest) -> Tag {
        Tag::beside(subject, "")
    }

    /// The tag under which cosign stores a companion of an image; `suffix` is one of [`COSIGN_SUFFIXES`].
    pub fn cosign(subject: &Digest, suffix: &str) -> Tag {
        Tag::beside(subject, &format!(".{suffix}"))
    }

    /// The image that a tag of cosign belongs to.
    pub fn cosign_subject(&self) -> Option<Digest> {
        let (subject, suffix) = self.0.split_once('.').filter(|(_, suffix)| COSIGN_SUFFIXES.contains(suffix))?;
        subject.replacen('-', ":", 1).parse().ok().filter(|subject| *self == Tag::cosign(subject, suffix))
    }

    /// The manifest whose referrers this fallback tag lists (distribution-spec 1.1, "Referrers Tag Schema").
    pub fn referrers_subject(&self) -> Option<Digest> {
        self.0.replacen('-', ":", 1).parse().ok().filter(|subject| *self == Tag::referrers(subject))
    }

    /// The manifest that this tag of cosign, or fallback tag, is named after. A tag cannot contain a whole sha512 digest, so
    /// only sha256 tags name their subject.
    pub fn companion_subject(&self) -> Option<Digest> {
        self.cosign_subject().or_else(|| self.referrers_subject())
    }

    /// Whether cosign keeps a list under it: `.sig` or `.att` of any subject, with one layer per signature. A `.sbom` tag has
    /// one SBOM, and the last one wins.
    pub fn is_signature_list(&self) -> bool {
        let named = self.0.split_once('.').filter(|(_, suffix)| ["sig", "att"].contains(suffix));
        named.is_some_and(|(subject, _)| is_subject(subject))
    }

    /// Whether it is the fallback tag of any subject's referrers.
    pub fn is_referrers_list(&self) -> bool {
        is_subject(&self.0)
    }

    /// Whether several sides add to the list under it, so that none may replace it.
    pub fn is_list(&self) -> bool {
        self.is_signature_list() || self.is_referrers_list()
    }

    /// `algorithm-hex`, with each part cut to what fits into a tag, as the distribution-spec requires.
    fn beside(subject: &Digest, suffix: &str) -> Tag {
        let hex: String = subject.hex().chars().take(64).collect();
        Tag(format!("{}-{hex}{suffix}", subject.algorithm().name()))
    }
}

/// Whether it is `algorithm-hex` as [`Tag::beside`] writes it. A tag has only a part of a sha512 digest.
fn is_subject(text: &str) -> bool {
    let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    let named = text.split_once('-').filter(|(algorithm, _)| ["sha256", "sha512"].contains(algorithm));
    named.is_some_and(|(_, hex)| hex.len() == 64 && hex.bytes().all(is_hex))
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Tag, ReferenceError> {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let valid = text.len() <= 128
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|c| word(c) || matches!(c, b'.' | b'-'));
        if !valid {
            let reason = "a tag has at most 128 letters, digits, `_`, `.`, `-`, and does not start with `.` or `-`";
            return Err(error(text, reason));
        }
        Ok(Tag(text.to_owned()))
    }
}

/// A normalized reference: with a tag, a digest, both, or neither (the whole repository).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    pub repository: Repository,
    pub tag: Option<Tag>,
    pub digest: Option<Digest>,
}

impl Reference {
    /// Whether the user's `text` was a short name, so that the expanded name is worth showing.
    pub fn was_normalized_from(&self, text: &str) -> bool {
        self.to_string() != text
    }

    /// What to request from a registry: the digest if there is one, otherwise the tag.
    pub fn target(&self) -> Option<String> {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Some(digest.to_string()),
            (None, Some(tag)) => Some(tag.to_string()),
            (None, None) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Parses like Docker: a first component without `.` or `:`, other than `localhost`, is part of a path on docker.io, and a
    /// single component there is below `library/`.
    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(error(text, "it is empty"));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            // "https" may be shown unchanged; other text might be anything.
            let plain = scheme.len() <= 20 && scheme.bytes().all(|c| c.is_ascii_alphanumeric());
            let scheme = if plain { scheme } else { "" };
            return Err(error(text, format!("write it without {scheme}://, as host/repository:tag")));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|e: super::DigestError| error(text, e.to_string()))?))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it, a port.
        let tail = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[tail..].find(':') {
            Some(colon) => (&rest[..tail + colon], Some(&rest[tail + colon + 1..])),
            None => (rest, None),
        };
        let tag = tag.map(|tag| tag.parse::<Tag>().map_err(|e| error(text, e.reason))).transpose()?;
        let (registry, path) = split_name(name);
        check_registry(&registry).map_err(|reason| error(text, reason))?;
        check_path(&path).map_err(|reason| error(text, reason))?;
        Ok(Reference { repository: Repository::of(registry, path), tag, digest })
    }
}

fn split_name(name: &str) -> (String, String) {
    let is_host = |first: &str| {
        first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_host(first) => (first, path),
        _ => (DOCKER_HUB, name),
    };
    let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
    if registry == DOCKER_HUB && !path.contains('/') {
        return (registry.to_owned(), format!("library/{path}"));
    }
    (registry.to_owned(), path.to_owned())
}

fn check_registry(registry: &str) -> Result<(), String> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return Err("the IPv6 address has no closing bracket".into());
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("{} is not an IPv6 address", quoted(address)));
            }
            (None, port.strip_prefix(':').or((!port.is_empty()).then_some("")))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.is_some_and(|host| host.len() > 253 || !host.split('.').all(label)) {
        return Err(format!("{} is not a registry host", quoted(registry)));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with('+')) {
        return Err(format!("{} has an invalid port", quoted(registry)));
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), String> {
    if path.len() > 255 {
        return Err("the repository name is longer than 255 characters".into());
    }
    match path.split('/').find(|component| !is_component(component)) {
        None => Ok(()),
        Some("") => Err("an empty path component".into()),
        Some(component) if component.chars().any(|c| c.is_ascii_uppercase()) => {
            Err(format!("repository names are lower case, {component:?} is not"))
        }
        Some(component) => Err(format!("{component:?} is not a repository path component")),
    }
}

/// `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let after = rest.trim_start_matches(alphanumeric);
        if after.len() == rest.len() {
            return false;
        }
        let separator_end = after.find(alphanumeric).unwrap_or(after.len());
        let separator = &after[..separator_end];
        match separator {
            "" => return after.is_empty(),
            "." | "_" | "__" => {}
            dashes if dashes.bytes().all(|c| c == b'-') => {}
            _ => return false,
        }
        rest = &after[separator_end..];
    }
}

macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Reference, Repository, Tag);

#[cfg(test)]
mod tests;
