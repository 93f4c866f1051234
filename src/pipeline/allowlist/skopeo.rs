//! The file of `skopeo sync --src yaml` (skopeo `cmd/skopeo/sync.go`, `docs/skopeo-sync.1.md`).
//!
//! ```yaml
//! registry.example.com:
//!   images: {redis: ["1.0", "sha256:…"], busybox: []}   # nothing or an empty list: all tags
//!   images-by-tag-regex: {nginx: ^1\.13\.[12]-alpine$}  # Go RE2, anywhere in the tag
//!   images-by-semver: {alpine: ">= 3.17"}
//!   credentials: {username: john, password: secret}
//!   tls-verify: true
//!   cert-dir: /etc/containers/certs.d/registry.example.com
//! ```
//! skopeo ignores unknown keys, logs and skips entries that it cannot use, and still exits with 0. All of these are
//! errors here: an image that is silently left behind would be missed only on the other side of the gap.

use super::yaml::{Key, Value, YamlNode};
use super::{Found, Pattern, Position, RegistrySettings, Rule, Select, semver};
use crate::credentials::{Credentials, Secret};
use crate::oci::{Digest, Repository, Tag};

const KNOWN: &str = "images, images-by-tag-regex, images-by-semver, credentials, tls-verify, cert-dir";

pub(super) fn parse(root: &YamlNode, found: &mut Found) {
    let Value::Mapping(registries) = &root.value else { return };
    for (key, value) in registries {
        parse_registry(key, value, found);
    }
}

fn parse_registry(key: &Key, value: &YamlNode, found: &mut Found) {
    let registry = Registry { prefix: prefix(&key.text) };
    let host = match registry.repository("x") {
        Ok(repository) => repository.registry().to_owned(),
        Err(reason) => return found.problem(&key.at, format!("{:?} is not a registry: {reason}", key.text)),
    };
    let entries = match &value.value {
        Value::Mapping(entries) => entries.as_slice(),
        Value::Null => &[],
        _ => {
            let text = format!("{} takes a mapping with {KNOWN}, found {}", key.text, value.kind());
            return found.problem(&value.at, text);
        }
    };
    let before = (found.rules.len(), found.problems.len());
    let mut settings = RegistrySettings::default();
    for (section, value) in entries {
        match section.text.as_str() {
            "images" => each_repository(&registry, section, value, found, parse_references),
            "images-by-tag-regex" => each_repository(&registry, section, value, found, parse_pattern),
            "images-by-semver" => each_repository(&registry, section, value, found, parse_range),
            "credentials" => settings.credentials = parse_credentials(value, found),
            "tls-verify" => settings.tls_verify = parse_bool(value, found),
            "cert-dir" => settings.cert_dir = text_of(section, value, found).map(Into::into),
            other => found.problem(&section.at, format!("unknown key {other:?}; known keys: {KNOWN}")),
        }
    }
    if (found.rules.len(), found.problems.len()) == before {
        found.notice(&key.at, format!("there are no images for {}", key.text));
    }
    if settings != RegistrySettings::default() {
        found.registries.push((key.at.clone(), host, settings));
    }
}

/// The prefix of the repositories of one registry.
struct Registry {
    prefix: String,
}

/// skopeo parses `key/repository` as Docker does, so a key that is not a host is a path on Docker Hub.
fn prefix(key: &str) -> String {
    let is_host = key == "localhost" || key.starts_with("localhost/") || key.contains(['.', ':']);
    if is_host { key.to_owned() } else { format!("docker.io/{key}") }
}

impl Registry {
    fn repository(&self, name: &str) -> Result<Repository, String> {
        format!("{}/{name}", self.prefix).parse().map_err(|e: crate::oci::ReferenceError| e.reason)
    }
}

type ParseRepository = fn(&Repository, &Key, &YamlNode, &mut Found);

fn each_repository(registry: &Registry, section: &Key, value: &YamlNode, found: &mut Found, read: ParseRepository) {
    let entries = match &value.value {
        Value::Mapping(entries) => entries,
        Value::Null => return,
        _ => {
            let text = format!("{} takes a mapping of repositories, found {}", section.text, value.kind());
            return found.problem(&value.at, text);
        }
    };
    for (key, value) in entries {
        match registry.repository(&key.text) {
            Ok(repository) => read(&repository, key, value, found),
            Err(reason) => found.problem(&key.at, format!("{:?} is not a repository: {reason}", key.text)),
        }
    }
}

/// `images`: tags and digests of one repository. None means all tags.
fn parse_references(repository: &Repository, key: &Key, value: &YamlNode, found: &mut Found) {
    let items = match &value.value {
        Value::Sequence(items) => items.as_slice(),
        Value::Null => &[],
        _ => {
            let text = format!("{} takes a sequence of tags and digests, found {}", key.text, value.kind());
            return found.problem(&value.at, text);
        }
    };
    if items.is_empty() {
        push(found, &key.at, &key.text, Select::AllTags(repository.clone()));
    }
    for item in items {
        let Value::Text(text) = &item.value else {
            let text = format!("{}: expected a tag or a digest, found {}", key.text, item.kind());
            found.problem(&item.at, text);
            continue;
        };
        match (text.parse::<Digest>(), text.parse::<Tag>()) {
            (Ok(digest), _) => {
                push(found, &item.at, &format!("{}@{text}", key.text), Select::One(repository.with_digest(digest)));
            }
            (_, Ok(tag)) => {
                push(found, &item.at, &format!("{}:{text}", key.text), Select::One(repository.with_tag(tag)))
            }
            (Err(digest), _) if text.contains(':') => found.problem(&item.at, format!("{}: {digest}", key.text)),
            (_, Err(tag)) => {
                let text = format!("{}: {text:?} is neither a digest nor a tag: {}", key.text, tag.reason);
                found.problem(&item.at, text);
            }
        }
    }
}

/// `images-by-tag-regex`.
fn parse_pattern(repository: &Repository, key: &Key, value: &YamlNode, found: &mut Found) {
    let Some(text) = text_of(key, value, found) else { return };
    match Pattern::new(text) {
        Ok(pattern) => {
            push(found, &key.at, &key.text, Select::TagsMatching { repository: repository.clone(), pattern });
        }
        Err(e) => found.problem(&value.at, format!("{}: {e}", key.text)),
    }
}

/// `images-by-semver`.
fn parse_range(repository: &Repository, key: &Key, value: &YamlNode, found: &mut Found) {
    let Some(text) = text_of(key, value, found) else { return };
    match text.parse::<semver::VersionRange>() {
        Ok(range) => push(found, &key.at, &key.text, Select::TagsInRange { repository: repository.clone(), range }),
        Err(e) => found.problem(&value.at, format!("{}: {e}", key.text)),
    }
}

fn push(found: &mut Found, at: &Position, written: &str, select: Select) {
    let written = written.to_owned();
    found.rules.push(Rule { at: at.clone(), written, select, platforms: Vec::new(), rename: None });
}

fn text_of<'a>(key: &Key, value: &'a YamlNode, found: &mut Found) -> Option<&'a str> {
    match &value.value {
        Value::Text(text) if !text.is_empty() => Some(text),
        Value::Text(_) => {
            found.problem(&value.at, format!("{} is empty", key.text));
            None
        }
        _ => {
            found.problem(&value.at, format!("{} takes a single value, found {}", key.text, value.kind()));
            None
        }
    }
}

fn parse_bool(value: &YamlNode, found: &mut Found) -> Option<bool> {
    if let Value::Text(text) = &value.value {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => return Some(true),
            "false" | "no" | "off" | "n" => return Some(false),
            _ => {}
        }
    }
    found.problem(&value.at, "tls-verify takes true or false");
    None
}

fn parse_credentials(value: &YamlNode, found: &mut Found) -> Option<Credentials> {
    const KNOWN: &str = "username, password, identitytoken";
    let entries = match &value.value {
        Value::Mapping(entries) => entries,
        Value::Null => return None,
        _ => {
            found.problem(&value.at, format!("credentials takes a mapping with {KNOWN}, found {}", value.kind()));
            return None;
        }
    };
    let before = found.problems.len();
    let (mut username, mut password, mut token) = (None, None, None);
    for (key, value) in entries {
        let place = match key.text.as_str() {
            "username" => &mut username,
            "password" => &mut password,
            "identitytoken" => &mut token,
            other => {
                found.problem(&key.at, format!("unknown key {other:?}; known keys: {KNOWN}"));
                continue;
            }
        };
        *place = match &value.value {
            Value::Null => None,
            Value::Text(text) if text.is_empty() => None,
            _ => text_of(key, value, found),
        };
    }
    if found.problems.len() > before {
        return None;
    }
    match (username, password, token) {
        (username, password, Some(token)) => Some(Credentials {
            username: username.unwrap_or_default().to_owned(),
            password: Secret::new(password.unwrap_or_default()),
            identity_token: Some(Secret::new(token)),
        }),
        (Some(username), Some(password), None) => Some(Credentials::basic(username, password)),
        (None, None, None) => None,
        _ => {
            found.problem(&value.at, "credentials need both username and password, or identitytoken");
            None
        }
    }
}
