//! An `auth.json` (containers) or `config.json` (docker), which have the same format.
//!
//! The file belongs to the user and is trusted. Still, nothing in it can cause a panic, and a broken entry is an error only
//! for its registry.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::helper::{self, HelperAnswers};
use super::{CredentialOrigin, Credentials, FoundCredentials, HUB_KEY, Secret, canonical};
use crate::base::bounded::read_all;
use crate::base::error::{Error, Result};

/// Maximum size in bytes: enough for some thousand entries with the longest tokens.
const MAX_SIZE: u64 = 16 * 1024 * 1024;

#[derive(Clone, Debug)]
pub(super) struct AuthFile {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default, deserialize_with = "or_null")]
    auths: BTreeMap<String, Entry>,
    #[serde(default, deserialize_with = "or_null")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// Go programs write an empty map as `null` and accept it.
fn or_null<'de, D, T>(value: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(value).map(Option::unwrap_or_default)
}

#[derive(Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry(***)")
    }
}

impl AuthFile {
    /// Returns `None` if the file does not exist.
    pub(super) fn read(path: &Path) -> Result<Option<AuthFile>> {
        bytes_of(path)?.map(|bytes| AuthFile::parse(path, &bytes)).transpose()
    }

    /// Parses `bytes`, the content of `path`, which is only used in errors and origins.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<AuthFile> {
        let attempt = || format!("reading credentials from {}", path.display());
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::input(format!("{}: it is not a JSON object", attempt())));
        }
        // serde's message may quote a value, which may be a secret.
        let place =
            |e: serde_json::Error| format!("not a credentials file, at line {} column {}", e.line(), e.column());
        let content = serde_json::from_slice(bytes).map_err(|e| Error::input(attempt()).because(place(e)))?;
        Ok(AuthFile { path: path.to_owned(), content })
    }

    /// Looks in `credHelpers`, then `auths`, then `credsStore`; in each, the longest namespace first.
    pub(super) fn find(&self, registry: &str, path: &str, answers: &HelperAnswers) -> Result<Option<FoundCredentials>> {
        let keys = candidates(registry, path);
        if let Some((server, name)) = keys.iter().find_map(|key| self.helper(key)) {
            return self.ask(name, server, answers);
        }
        for key in &keys {
            if let Some(found) = self.entry(key)? {
                return Ok(Some(found));
            }
        }
        self.creds_store().map_or(Ok(None), |name| self.ask(name, server_of(registry), answers))
    }

    /// The name of the helper for everything that `credHelpers` and `auths` do not list.
    pub(super) fn creds_store(&self) -> Option<&str> {
        self.content.creds_store.as_deref().filter(|name| !name.is_empty())
    }

    /// All `credHelpers` entries: the key as written, and the name of the helper.
    pub(super) fn helpers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.content.cred_helpers.iter().map(|(written, name)| (written.as_str(), name.as_str()))
    }

    /// The keys of `auths` as written, and whether the entry contains a secret.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, bool)> {
        // An entry that cannot be read contains something.
        let holds = |entry: &Entry| !matches!(entry.credentials(), Ok(None));
        self.content.auths.iter().map(move |(written, entry)| (written.as_str(), holds(entry)))
    }

    /// The `credHelpers` entry for this key, with the key as written.
    pub(super) fn helper(&self, key: &str) -> Option<(&str, &str)> {
        let (exact, same): (Vec<_>, Vec<_>) =
            self.helpers().filter(|(written, _)| means(written, key)).partition(|(written, _)| *written == key);
        exact.into_iter().chain(same).next()
    }

    fn ask(&self, name: &str, server: &str, answers: &HelperAnswers) -> Result<Option<FoundCredentials>> {
        let path = || self.path.clone();
        let answer =
            answers.get(name, server).map_err(|e| e.while_doing(format!("as {} requires", path().display())))?;
        let origin =
            || CredentialOrigin::Helper { program: helper::program(name), server: server.to_owned(), path: path() };
        Ok(answer.map(|credentials| FoundCredentials { credentials, origin: origin() }))
    }

    /// The entry with exactly this key, or one that docker wrote as a URL of the same host.
    fn entry(&self, key: &str) -> Result<Option<FoundCredentials>> {
        let same = |written: &&String| written.as_str() != key && means(written, key);
        let written = self.content.auths.keys().filter(same);
        for written in self.content.auths.get_key_value(key).map(|(k, _)| k).into_iter().chain(written) {
            let found = self.content.auths.get(written).map(|entry| entry.credentials());
            let attempt = || format!("reading credentials from {}: entry {written:?}", self.path.display());
            match found.transpose().map_err(|reason| Error::input(format!("{}: {reason}", attempt())))?.flatten() {
                None => {}
                Some(credentials) => {
                    let origin = CredentialOrigin::File { path: self.path.clone(), key: written.clone() };
                    return Ok(Some(FoundCredentials { credentials, origin }));
                }
            }
        }
        Ok(None)
    }
}

/// The content of the file, or `None` if it does not exist.
///
/// # Errors
/// It cannot be read, or is too large.
pub(super) fn bytes_of(path: &Path) -> Result<Option<Vec<u8>>> {
    let fail = |e| Error::disk("reading credentials from", path, e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(fail(e)),
    };
    let too_large =
        || Error::input(format!("reading credentials from {}: it has more than {MAX_SIZE} bytes", path.display()));
    read_all(file, MAX_SIZE).map_err(fail)?.ok_or_else(too_large).map(Some)
}

/// The name of a registry in a `credsStore`.
pub(super) fn server_of(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

/// Whether a key in a file, which docker may have written as a URL, means `key`.
pub(super) fn means(written: &str, key: &str) -> bool {
    canonical(host_of_url(written)) == key
}

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        let token = self.identitytoken.as_ref().filter(|token| !token.is_empty()).map(Secret::new);
        let pair = match self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            Some(auth) => Some(decode(auth)?),
            None => self.username.clone().filter(|name| !name.is_empty()).zip(self.password.clone()),
        };
        if pair.is_none() && token.is_none() {
            return Ok(None);
        }
        let (username, password) = pair.unwrap_or_default();
        Ok(Some(Credentials { username, password: Secret::new(password), identity_token: token }))
    }
}

/// Decodes base64 of `user:password`, with or without padding; docker strips NULs at the end of the password.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, lenient).decode(auth.trim()).map_err(|_| "its `auth` is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "its `auth` is not UTF-8")?;
    let (username, password) = text.split_once(':').ok_or("its `auth` is not user:password")?;
    Ok((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// `host/a/b`, `host/a`, `host`.
pub(super) fn candidates(registry: &str, path: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = path;
    while !path.is_empty() {
        keys.push(format!("{registry}/{path}"));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    keys.push(registry.to_owned());
    keys
}

/// The host of a key that is a URL (`https://host/v1/`). A namespaced key without a scheme is not a URL and stays whole.
fn host_of_url(key: &str) -> &str {
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => rest.split('/').next().unwrap_or(rest),
        None => key,
    }
}
