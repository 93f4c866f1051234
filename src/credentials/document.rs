//! A file of credentials while its entries are changed: everything else in it stays as it is, and it is replaced at once.

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

/// Fields of an entry that hold a secret or a part of one; others are not ours.
const SECRETS: [&str; 5] = ["auth", "username", "password", "identitytoken", "registrytoken"];

/// See the module documentation.
pub(super) struct CredentialDocument {
    /// As it was named, for errors.
    path: PathBuf,
    /// Where the bytes are, links followed.
    real: PathBuf,
    content: Map<String, Value>,
    file: AuthFile,
    /// Held until the change is written.
    _turn: Option<LockedDir>,
}

impl CredentialDocument {
    /// Reads the file, which need not exist yet: its directory is made, for its owner alone.
    ///
    /// # Errors
    /// It is malformed, or cannot be read.
    pub fn open(path: &Path) -> Result<CredentialDocument> {
        let real = real_path(path);
        let directory = parent(&real);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|e| Error::disk("making the directory", directory, e))?;
        // Whoever reads, changes and replaces has its turn. Not every file system can lock, and then there is none.
        let turn = Dir::open(directory).ok().map(LockedDir::wait_for);
        let bytes = bytes_of(&real)?.unwrap_or_default();
        let (file, content) = CredentialDocument::parse(path, &bytes)?;
        Ok(CredentialDocument { path: path.to_owned(), real, content, file, _turn: turn })
    }

    /// What the bytes of a file mean, and all that is in it. An empty file is as good as none.
    ///
    /// # Errors
    /// It is malformed.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<(AuthFile, Map<String, Value>)> {
        let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
        let file = AuthFile::parse(path, bytes)?;
        let malformed = |_| Error::input(format!("reading credentials from {}: it is no JSON object", path.display()));
        Ok((file, serde_json::from_slice(bytes).map_err(malformed)?))
    }

    pub fn file(&self) -> &AuthFile {
        &self.file
    }

    /// The keys of `auths`, as they are written, that are meant.
    pub fn keys(&self, meant: impl Fn(&str) -> bool) -> Vec<String> {
        self.file.entries().map(|(key, _)| key).filter(|key| meant(key)).map(str::to_owned).collect()
    }

    /// Gives the entries with these keys this `auth` and no other secret; those that are missing are made.
    ///
    /// # Errors
    /// The file cannot be replaced; it is as it was.
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

    /// # Errors
    /// As of [`set`](CredentialDocument::set).
    pub fn remove(&mut self, keys: &[String]) -> Result<()> {
        self.change(|auths| keys.iter().for_each(|key| drop(auths.shift_remove(key))))
    }

    /// Changes `auths` and writes the file, if that made a difference.
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

    /// For its owner alone, whatever it was before; who that is stays.
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
            // Only root can give files away, and only root has somebody else's file to write.
            let _ = fchown(new.file(), Some(former.uid()), Some(former.gid()));
        }
        new.commit()
    }
}

/// A link is followed, so that it stays one; so is one that leads to what does not exist yet.
fn real_path(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| match std::fs::read_link(path) {
        Ok(target) => parent(path).join(target),
        Err(_) => path.to_owned(),
    })
}
