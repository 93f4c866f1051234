//! Credentials: where they come from, where they are kept, and how they stay secret.
//!
//! A [`Store`] answers one question, “what is known for this registry and repository?”, from what was said on the
//! command line and in the environment, from the files that docker, podman and skopeo write, and from their credential
//! helpers. A [`CredentialFile`] is one of those files, to log in and out. A password or token is a [`Secret`], which prints as
//! `***`; only code that builds an `Authorization` header or writes a file of credentials exposes it. The room knows nothing of
//! HTTP: it neither asks a registry nor judges whether credentials are right.
//!
//! The environment is passed in; files are read once, in [`Store::load`].

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

/// The key under which docker files keep the credentials of Docker Hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The variable whose credentials count for every registry of a command.
pub const AMBIENT: &str = "GAPFERRY_CREDS";

/// What a registry or its token server is shown.
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

    /// `user:password` as `--creds` takes it; the password may hold colons.
    ///
    /// # Errors
    /// Without a colon or a user name; the error does not repeat the text.
    pub fn parse(text: &str) -> Result<Credentials> {
        match text.split_once(':') {
            Some((username, password)) if !username.is_empty() => Ok(Credentials::basic(username, password)),
            _ => Err(Error::input("reading credentials: expected user:password")),
        }
    }

    /// Whether a file or a helper gives the same user name and password back that it was given.
    ///
    /// # Errors
    /// It does not: a user name with a colon would be read as a shorter one, and what is empty is as good as not there.
    pub fn check_keepable(&self) -> Result<()> {
        let reason = match &self.username {
            user if user.is_empty() => "the user name is empty",
            user if user.contains(|c: char| c == ':' || c.is_control()) => "a user name has no colon and no line end",
            _ if self.password.is_empty() => "the password is empty",
            _ if self.password.expose().ends_with('\0') => "the password ends with NUL",
            _ => return Ok(()),
        };
        Err(Error::input(format!("keeping credentials: {reason}")))
    }

    /// Whether there is a user name to send as Basic authentication.
    pub fn has_basic(&self) -> bool {
        !self.username.is_empty() && !self.password.is_empty()
    }
}

/// Where credentials were found or are kept; says nothing of what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum CredentialOrigin {
    /// The command line or the allowlist.
    #[serde(rename = "command-line")]
    Given,
    /// A variable of the environment.
    Variable { name: String },
    /// The entry with this key in a file of credentials.
    File {
        #[serde(serialize_with = "shown")]
        path: PathBuf,
        key: String,
    },
    /// A credential helper, named by the file at `path`, which knows the registry as `server`.
    Helper {
        program: String,
        server: String,
        #[serde(serialize_with = "shown")]
        path: PathBuf,
    },
}

/// A path that is no text is no reason to show nothing.
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

/// Credentials, and where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCredentials {
    pub credentials: Credentials,
    pub origin: CredentialOrigin,
}

/// Everything known about credentials in this run. Cheap to clone for a handful of files.
#[derive(Clone, Debug, Default)]
pub struct Store {
    explicit: BTreeMap<String, Credentials>,
    variables: Variables,
    ambient: BTreeMap<String, Credentials>,
    files: Vec<AuthFile>,
    /// Shared by all clones: a helper may ask its user.
    answers: HelperAnswers,
}

impl Store {
    /// Nothing known: every registry is asked anonymously.
    pub fn anonymous() -> Store {
        Store::default()
    }

    /// Reads the credential files that apply, in the order of containers/image `pkg/docker/config`:
    ///
    /// one file alone if it was named: `authfile`, else `REGISTRY_AUTH_FILE`, else `DOCKER_CONFIG/config.json`; otherwise
    /// `$XDG_RUNTIME_DIR/containers/auth.json` (without that variable on Linux: `/run/containers/UID/auth.json`),
    /// `$XDG_CONFIG_HOME/containers/auth.json` (`~/.config` by default) and `~/.docker/config.json`, the first that knows
    /// a registry deciding.
    ///
    /// # Errors
    /// A file that is no JSON of that kind or cannot be read; no file where `authfile` names one. Every error names the file.
    pub fn load(authfile: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Store> {
        let places = places::named(authfile, env).map_or_else(|| places::to_read(env), |path| vec![path]);
        let files: Result<Vec<_>> = places.iter().map(|path| AuthFile::read(path)).collect();
        let files: Vec<AuthFile> = files?.into_iter().flatten().collect();
        // A variable may be set before the first login; an option is meant.
        if let Some(path) = authfile.filter(|_| files.is_empty()) {
            return Err(Error::input(format!("reading credentials from {}: no such file", path.display())));
        }
        Ok(Store { files, answers: HelperAnswers::of_helpers_on(env("PATH")), ..Store::default() })
    }

    /// Credentials given for one registry (`host[:port]`), stronger than all else.
    pub fn set(&mut self, registry: &str, credentials: Credentials) {
        self.explicit.insert(canonical(registry).to_owned(), credentials);
    }

    /// The same without credentials that were given for whatever registries a command names: what is left is known of a
    /// registry by its own name.
    pub fn looked_up(&self) -> Store {
        let (variables, files, answers) = (self.variables.clone(), self.files.clone(), self.answers.clone());
        Store { variables, files, answers, ..Store::default() }
    }

    /// Credentials in variables for one registry each, stronger than those of [`set_ambient`](Store::set_ambient) and files.
    pub fn set_variables(&mut self, variables: Variables) {
        self.variables = variables;
    }

    /// For one registry what the variable [`AMBIENT`] holds for all, stronger than files.
    pub fn set_ambient(&mut self, registry: &str, credentials: Credentials) {
        self.ambient.insert(canonical(registry).to_owned(), credentials);
    }

    /// What is known for `path` (may be empty) at `registry`. May run a credential helper, so it can block; this store and its
    /// clones ask each helper once about one server, and remember what came of it, a failure too.
    ///
    /// # Errors
    /// An entry or variable that matches but cannot be read, or a helper that fails; never “not found”, which is `None`.
    pub fn find(&self, registry: &str, path: &str) -> Result<Option<Credentials>> {
        Ok(self.locate(registry, path)?.map(|found| found.credentials))
    }

    /// [`find`](Store::find), and where it was.
    ///
    /// # Errors
    /// As there.
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

/// One name for Docker Hub, whatever it is called; every other registry is what it is called.
pub fn canonical(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}
