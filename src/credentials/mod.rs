//! Finds and stores credentials, and keeps them secret.
//!
//! A [`Store`] answers which credentials apply to a registry and repository, from the command line, the environment, the files
//! of docker, podman and skopeo, and their credential helpers. A [`CredentialFile`] is one of those files, for logging in and
//! out. A password or token is a [`Secret`], which prints as `***`; only code that builds an `Authorization` header or writes
//! a credentials file exposes it. The module does not depend on HTTP: it neither asks a registry nor judges whether
//! credentials are right.
//!
//! The environment is passed in. Files are read once, in [`Store::load`].

mod document;
mod file;
mod helper;
mod kept;
mod places;
mod running;
mod secret;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use helper::HelperAnswers;
pub use kept::CredentialFile;
pub use running::{end_helpers, helpers_gone, report_helpers_to};
pub use secret::Secret;
pub use variables::{Variables, variable_name};

use serde::{Serialize, Serializer};

use crate::base::error::{Error, Result};
use file::AuthFile;

/// The key for Docker Hub in docker's files.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The variable with credentials for every registry of a command.
pub const AMBIENT: &str = "GAPFERRY_CREDS";

/// What a registry or its token server receives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Empty if only an identity token is known.
    pub username: String,
    pub password: Secret,
    /// An OAuth2 refresh token, exchanged at the token server (distribution `docs/spec/auth/oauth.md`).
    pub identity_token: Option<Secret>,
}

impl Credentials {
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials { username: username.into(), password: Secret::new(password), identity_token: None }
    }

    pub fn identity(token: impl Into<String>) -> Credentials {
        Credentials { identity_token: Some(Secret::new(token)), ..Credentials::default() }
    }

    /// Parses `user:password` as for `--creds`; the password may contain colons.
    ///
    /// # Errors
    /// There is no colon or no user name; the error does not repeat the text.
    pub fn parse(text: &str) -> Result<Credentials> {
        match text.split_once(':') {
            Some((username, password)) if !username.is_empty() => Ok(Credentials::basic(username, password)),
            _ => Err(Error::input("reading credentials: expected user:password")),
        }
    }

    /// Whether a file or a helper returns the same user name and password that it received.
    ///
    /// # Errors
    /// It does not: a user name with a colon would be read as a shorter one, and empty values count as missing.
    pub fn check_keepable(&self) -> Result<()> {
        let reason = match &self.username {
            user if user.is_empty() => "the user name is empty",
            user if user.contains(|c: char| c == ':' || c.is_control()) => {
                "a user name must not contain a colon or a \
                 line end"
            }
            _ if self.password.is_empty() => "the password is empty",
            _ if self.password.expose().ends_with('\0') => "the password ends with NUL",
            _ => return Ok(()),
        };
        Err(Error::input(format!("keeping credentials: {reason}")))
    }

    /// Whether there is a user name for Basic authentication.
    pub fn has_basic(&self) -> bool {
        !self.username.is_empty() && !self.password.is_empty()
    }
}

/// Where credentials come from or are stored; it does not contain them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum CredentialOrigin {
    /// The command line or the allowlist.
    #[serde(rename = "command-line")]
    Given,
    /// An environment variable.
    Variable { name: String },
    /// The entry with this key in a credentials file.
    File {
        #[serde(serialize_with = "shown")]
        path: PathBuf,
        key: String,
    },
    /// A credential helper that the file at `path` names; it knows the registry as `server`.
    Helper {
        program: String,
        server: String,
        #[serde(serialize_with = "shown")]
        path: PathBuf,
    },
}

/// A path that is not UTF-8 is still shown.
fn shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl fmt::Display for CredentialOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialOrigin::Given => f.write_str("the command line"),
            CredentialOrigin::Variable { name } => write!(f, "the variable {name}"),
            CredentialOrigin::File { path, key } => write!(f, "{}, entry {key}", path.display()),
            CredentialOrigin::Helper { program, server, path } => {
                write!(f, "{program} for {server}, which {} names", path.display())
            }
        }
    }
}

/// Credentials and their origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCredentials {
    pub credentials: Credentials,
    pub origin: CredentialOrigin,
}

/// All credentials of this run. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Store {
    explicit: BTreeMap<String, Credentials>,
    variables: Variables,
    ambient: BTreeMap<String, Credentials>,
    files: Vec<AuthFile>,
    /// Shared by all clones, because a helper may ask its user.
    answers: HelperAnswers,
}

impl Store {
    /// A store without credentials: every registry is asked anonymously.
    pub fn anonymous() -> Store {
        Store::default()
    }

    /// Reads the credentials files that apply, in the order of containers/image `pkg/docker/config`:
    ///
    /// only one file if it is named: `authfile`, otherwise `REGISTRY_AUTH_FILE`, otherwise `DOCKER_CONFIG/config.json`. If
    /// none is named: `$XDG_RUNTIME_DIR/containers/auth.json` (without that variable on Linux:
    /// `/run/containers/UID/auth.json`), `$XDG_CONFIG_HOME/containers/auth.json` (default `~/.config`) and
    /// `~/.docker/config.json`. The first file that knows a registry decides.
    ///
    /// # Errors
    /// A file is not valid or cannot be read, or the file named by `authfile` does not exist. Every error names the file.
    pub fn load(authfile: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Store> {
        let places = places::named(authfile, env).map_or_else(|| places::to_read(env), |path| vec![path]);
        let files: Result<Vec<_>> = places.iter().map(|path| AuthFile::read(path)).collect();
        let files: Vec<AuthFile> = files?.into_iter().flatten().collect();
        // A variable may be set before the first login; an option is meant.
        if let Some(path) = authfile.filter(|_| files.is_empty()) {
            return Err(Error::input(format!("reading credentials from {}: there is no such file", path.display())));
        }
        Ok(Store { files, answers: HelperAnswers::of_helpers_on(env("PATH")), ..Store::default() })
    }

    /// Sets credentials for one registry (`host[:port]`), which take precedence over all others.
    pub fn set(&mut self, registry: &str, credentials: Credentials) {
        self.explicit.insert(canonical(registry).to_owned(), credentials);
    }

    /// The store without credentials that were given for every registry of a command; the others are known by the registry's
    /// own name.
    pub fn looked_up(&self) -> Store {
        let (variables, files, answers) = (self.variables.clone(), self.files.clone(), self.answers.clone());
        Store { variables, files, answers, ..Store::default() }
    }

    /// Sets credentials from variables for single registries, which take precedence over [`set_ambient`](Store::set_ambient)
    /// and files.
    pub fn set_variables(&mut self, variables: Variables) {
        self.variables = variables;
    }

    /// Sets the credentials of the variable [`AMBIENT`] for one registry; they take precedence over files.
    pub fn set_ambient(&mut self, registry: &str, credentials: Credentials) {
        self.ambient.insert(canonical(registry).to_owned(), credentials);
    }

    /// The credentials for `path` (may be empty) at `registry`. This can run a credential helper and block. A store and its
    /// clones ask each helper only once about a server, and remember the result, including failures.
    ///
    /// # Errors
    /// A matching entry or variable cannot be read, or a helper fails. “Not found” is `None`.
    pub fn find(&self, registry: &str, path: &str) -> Result<Option<Credentials>> {
        Ok(self.locate(registry, path)?.map(|found| found.credentials))
    }

    /// [`find`](Store::find) with the origin.
    ///
    /// # Errors
    /// As for [`find`](Store::find).
    pub fn locate(&self, registry: &str, path: &str) -> Result<Option<FoundCredentials>> {
        let registry = canonical(registry);
        if let Some(credentials) = self.explicit.get(registry).cloned() {
            return Ok(Some(FoundCredentials { credentials, origin: CredentialOrigin::Given }));
        }
        if let Some(found) = self.variables.find(registry)? {
            return Ok(Some(found));
        }
        if let Some(credentials) = self.ambient.get(registry).cloned() {
            return Ok(Some(FoundCredentials {
                credentials,
                origin: CredentialOrigin::Variable { name: AMBIENT.to_owned() },
            }));
        }
        for file in &self.files {
            if let Some(found) = file.find(registry, path, &self.answers)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The canonical name of Docker Hub for all its names; other registries keep theirs.
pub fn canonical(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}
