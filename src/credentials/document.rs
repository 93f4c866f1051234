//! Changes entries of a credentials file. Everything else in it stays, and it is replaced atomically.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Map, Serializer, Value};

use super::file::{AuthFile, bytes_of};
use crate::base::error::{Error, Result};
use crate::base::fsops::{Dir, LockedDir, Replacement, parent};

/// Fields of an entry that contain a secret or part of one; other fields are not ours.
const SECRETS: [&str; 5] = ["auth", "username", "password", "identitytoken", "registrytoken"];

/// See the module documentation.
pub(super) struct CredentialDocument {
    /// As named, for errors.
    path: PathBuf,
    /// The path with links resolved.
    real: PathBuf,
    content: Map<String, Value>,
    file: AuthFile,
    /// Held until the change is written.
    _turn: Option<LockedDir>,
}

impl CredentialDocument {
    /// Reads the file. If it does not exist, its directory is created, accessible only to its owner.
    ///
    /// # Errors
    /// The file is malformed or cannot be read.
    pub fn open(path: &Path) -> Result<CredentialDocument> {
        let real = real_path(path);
        let directory = parent(&real);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|e| Error::disk("making the directory", directory, e))?;
        // Serializes read, change and replace. Not every file system can lock; then there is no lock.
        let turn = Dir::open(directory).ok().map(LockedDir::wait_for);
        let bytes = bytes_of(&real)?.unwrap_or_default();
        let (file, content) = CredentialDocument::parse(path, &bytes)?;
        Ok(CredentialDocument { path: path.to_owned(), real, content, file, _turn: turn })
    }

    /// Parses a file, and keeps everything in it. An empty file counts as missing.
    ///
    /// # Errors
    /// The file is malformed.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<(AuthFile, Map<String, Value>)> {
        let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
        let file = AuthFile::parse(path, bytes)?;
        let malformed =
            |_| Error::input(format!("reading credentials from {}: it is not a JSON object", path.display()));
        Ok((file, serde_json::from_slice(bytes).map_err(malformed)?))
    }

    pub fn file(&self) -> &AuthFile {
        &self.file
    }

    /// The keys of `auths` that match, as written.
    pub fn keys(&self, meant: impl Fn(&str) -> bool) -> Vec<String> {
        self.file.entries().map(|(key, _)| key).filter(|key| meant(key)).map(str::to_owned).collect()
    }

    /// Sets `auth` in the entries with these keys, removes their other secrets, and creates missing entries.
    ///
    /// # Errors
    /// The file cannot be replaced; it is unchanged.
    pub fn set(&mut self, keys: &[String], auth: Option<&str>) -> Result<()> {
        self.change(|auths| {
            for key in keys {
                let mut entry = auths.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
                SECRETS.iter().for_each(|field| drop(entry.shift_remove(*field)));
                entry.extend(auth.map(|auth| ("auth".to_owned(), Value::from(auth))));
                auths.insert(key.clone(), Value::Object(entry));
            }
        })
    }

    /// Removes the entries with these keys.
    ///
    /// # Errors
    /// As for [`set`](CredentialDocument::set).
    pub fn remove(&mut self, keys: &[String]) -> Result<()> {
        self.change(|auths| keys.iter().for_each(|key| drop(auths.shift_remove(key))))
    }

    /// Changes `auths` and writes the file if that makes a difference.
    fn change(&mut self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<()> {
        let before = self.content.get("auths").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut auths = before.clone();
        change(&mut auths);
        if auths == before {
            return Ok(());
        }
        self.content.insert("auths".to_owned(), Value::Object(auths));
        self.write()
    }

    /// Makes the file accessible only to its owner, who stays the same.
    fn write(&self) -> Result<()> {
        let fail = |e: io::Error| Error::disk("writing", &self.path, e);
        let mut text = Vec::new();
        let json =
            self.content.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t")));
        json.map_err(|e| fail(e.into()))?;
        text.push(b'\n');
        let mut new = Replacement::of(&self.real)?;
        new.file().write_all(&text).map_err(fail)?;
        if let Ok(former) = std::fs::metadata(&self.real) {
            // Only root can change owners, and only root writes other users' files.
            let _ = fchown(new.file(), Some(former.uid()), Some(former.gid()));
        }
        new.commit()
    }
}

/// Follows a link so that it stays a link, even if it is dangling.
fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| match std::fs::read_link(path) {
        Ok(target) => parent(path).join(target),
        Err(_) => path.to_owned(),
    })
}
