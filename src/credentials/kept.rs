//! A credentials file that is changed by `login` and `logout`.
//!
//! Only the entries in question change; every other entry and unknown field stays, in its order. The file is replaced
//! atomically and readable only by its owner, and two gapferry processes do not overwrite each other's changes. If the file
//! names a credential helper for a registry, the secret goes to the helper and not into the file.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::document::CredentialDocument;
use super::file::{AuthFile, bytes_of, candidates, means, server_of};
use super::{CredentialOrigin, Credentials, HUB_KEY, canonical, helper, places};
use crate::base::error::{Error, Result};

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    path: PathBuf,
    /// Where its helpers are looked for.
    programs: Option<String>,
}

impl CredentialFile {
    /// The file that skopeo and podman would write: the named one (`authfile`, `REGISTRY_AUTH_FILE`), otherwise
    /// `DOCKER_CONFIG/config.json`, otherwise the first one that is read. It need not exist.
    ///
    /// # Errors
    /// `XDG_RUNTIME_DIR` decides and is not a directory.
    pub fn to_write(authfile: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<CredentialFile> {
        Ok(CredentialFile { path: places::to_write(authfile, env)?, programs: env("PATH") })
    }

    /// All files that apply in this environment, in order of precedence. Some may not exist.
    pub fn all(authfile: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Vec<CredentialFile> {
        let paths = places::named(authfile, env).map_or_else(|| places::to_read(env), |path| vec![path]);
        paths.into_iter().map(|path| CredentialFile { path, programs: env("PATH") }).collect()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks, without changing anything, whether [`log_in`](CredentialFile::log_in) could store credentials for `path` (empty
    /// for all) at `registry`. Call it before asking a person for a password.
    ///
    /// # Errors
    /// As for [`log_in`](CredentialFile::log_in).
    pub fn check(&self, registry: &str, path: &str) -> Result<()> {
        let file = match bytes_of(&self.path)? {
            Some(bytes) => CredentialDocument::parse(&self.path, &bytes)?.0,
            None => return Ok(()),
        };
        match responsible(&file, canonical(registry), path)? {
            Some((_, name)) => helper::check_name(&name).map_err(|e| self.asked_for(e)),
            None => Ok(()),
        }
    }

    /// Stores user name and password for `path` (empty for all) at `registry`, and returns where. Entries that mean the same
    /// under another name get them too, so that every reader finds the right ones.
    ///
    /// # Errors
    /// The credentials cannot be stored; the file is malformed or cannot be read or replaced; or a helper fails or does not
    /// support namespaces. The file is unchanged then.
    pub fn log_in(&self, registry: &str, path: &str, credentials: &Credentials) -> Result<CredentialOrigin> {
        credentials.check_keepable()?;
        let (username, password) = (&credentials.username, &credentials.password);
        let registry = canonical(registry);
        let key = key_of(registry, path);
        let mut document = CredentialDocument::open(&self.path)?;
        let same: Vec<String> = document.keys(|written| means(written, &key));
        if let Some((server, name)) = responsible(document.file(), registry, path)? {
            helper::store(&name, self.programs(), &server, username, password).map_err(|e| self.asked_for(e))?;
            // An old secret would take precedence over a credsStore, and should not be left behind.
            document.set(&same, None)?;
            return Ok(self.origin(server, &name));
        }
        let keys = if same.is_empty() { vec![self.new_key(key)] } else { same };
        document.set(&keys, Some(&STANDARD.encode(format!("{username}:{}", password.expose()))))?;
        let key = keys.into_iter().next().unwrap_or_default();
        Ok(CredentialOrigin::File { path: self.path.clone(), key })
    }

    /// Removes what is stored for `path` (empty for all) at `registry`, also from helpers and, with `below`, for every
    /// namespace below it. Returns what was removed, possibly nothing.
    ///
    /// # Errors
    /// As for [`log_in`](CredentialFile::log_in). If a helper fails, the entries of the file are already removed.
    pub fn log_out(&self, registry: &str, path: &str, below: bool) -> Result<Vec<CredentialOrigin>> {
        let registry = canonical(registry);
        let key = key_of(registry, path);
        let inner = format!("{key}/");
        let meant = |written: &str| means(written, &key) || (below && canonical_prefix(written).starts_with(&inner));
        self.forget(&meant, |file| {
            let store = file.creds_store().filter(|_| path.is_empty() && file.helper(registry).is_none());
            Ok(store.map(|_| server_of(registry).to_owned()).into_iter().collect())
        })
    }

    /// Removes everything that is stored, also from helpers, and returns what was removed.
    ///
    /// # Errors
    /// As for [`log_out`](CredentialFile::log_out).
    pub fn log_out_of_all(&self) -> Result<Vec<CredentialOrigin>> {
        self.forget(&|_| true, |file| {
            file.creds_store().map_or(Ok(Vec::new()), |name| helper::list(name, self.programs()))
        })
    }

    fn forget(
        &self,
        meant: &dyn Fn(&str) -> bool,
        in_store: impl FnOnce(&AuthFile) -> Result<Vec<String>>,
    ) -> Result<Vec<CredentialOrigin>> {
        if bytes_of(&self.path)?.is_none() {
            return Ok(Vec::new());
        }
        let mut document = CredentialDocument::open(&self.path)?;
        let file = document.file().clone();
        document.remove(&document.keys(meant))?;
        let secrets = file.entries().filter(|(key, holds)| *holds && meant(key));
        let entry = |(key, _): (&str, bool)| CredentialOrigin::File { path: self.path.clone(), key: key.to_owned() };
        let mut forgotten: Vec<CredentialOrigin> = secrets.map(entry).collect();
        let stored = in_store(&file).map_err(|e| self.asked_for(e))?;
        let stored = file.creds_store().into_iter().flat_map(|name| stored.iter().map(move |key| (key.as_str(), name)));
        for (server, name) in file.helpers().filter(|(key, _)| meant(key)).chain(stored) {
            if helper::erase(name, server, self.programs()).map_err(|e| self.asked_for(e))? {
                forgotten.push(self.origin(server.to_owned(), name));
            }
        }
        Ok(forgotten)
    }

    fn programs(&self) -> Option<&str> {
        self.programs.as_deref()
    }

    fn asked_for(&self, error: Error) -> Error {
        error.while_doing(format!("as {} requires", self.path.display()))
    }

    fn origin(&self, server: String, name: &str) -> CredentialOrigin {
        CredentialOrigin::Helper { program: helper::program(name), server, path: self.path.clone() }
    }

    /// The key as the owner of the file would write it: docker has its own key for Docker Hub, and skopeo removes only
    /// `docker.io`.
    fn new_key(&self, key: String) -> String {
        let docker = self.path.file_name().is_some_and(|name| name == "config.json");
        if docker && key == "docker.io" { HUB_KEY.to_owned() } else { key }
    }
}

fn key_of(registry: &str, path: &str) -> String {
    if path.is_empty() { registry.to_owned() } else { format!("{registry}/{path}") }
}

/// A namespaced key with the canonical name of Docker Hub.
fn canonical_prefix(written: &str) -> String {
    match written.split_once('/') {
        Some((host, rest)) => format!("{}/{rest}", canonical(host)),
        None => written.to_owned(),
    }
}

/// The helper that the file names for this registry, as (server, name).
fn responsible(file: &AuthFile, registry: &str, path: &str) -> Result<Option<(String, String)>> {
    let key = key_of(registry, path);
    let of_line = candidates(registry, path).iter().find_map(|key| file.helper(key));
    let of_store = || file.creds_store().map(|name| (server_of(registry), name));
    let Some((server, name)) = of_line.or_else(of_store) else { return Ok(None) };
    if !path.is_empty() && !means(server, &key) {
        let program = helper::program(name);
        let text = format!(
            "keeping credentials for {key}: {program} keeps those of {registry}, and does not support \
                     namespaces"
        );
        return Err(Error::input(text));
    }
    Ok(Some((server.to_owned(), name.to_owned())))
}
