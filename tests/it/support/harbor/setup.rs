//! What a server is like: its accounts, its projects and what is set on them, and what may happen to it.

use std::collections::BTreeMap;

use gapferry::oci::Digest;

use super::{Account, Right};

/// What the server is like when it starts. `Setup::default()` is a Harbor 2.11 with an `admin` (password `Harbor12345`)
/// and no project.
#[derive(Clone)]
pub struct Setup {
    /// Major and minor; 2.8 brings the referrers API, 2.9 the header `OCI-Subject`.
    pub version: (u32, u32),
    pub accounts: Vec<Account>,
    pub projects: Vec<Project>,
    pub read_only: bool,
    /// Whether everyone may create projects, or only administrators.
    pub everyone_creates: bool,
    /// Older releases answer 403 where newer ones answer 404 for a project that does not exist.
    pub hides_missing: bool,
    /// Without it, `/service/token` answers 404, as behind a proxy that routes only some paths.
    pub token_service: bool,
    /// How a request for a token for several repositories is answered.
    pub several_scopes: Scopes,
    /// A component that reports itself ill, such as `database`.
    pub unhealthy: Option<&'static str>,
    /// How often the API answers 503 before it works.
    pub busy_api: usize,
    /// Whether `Location` is absolute.
    pub absolute_locations: bool,
}

/// What a token server does with several scopes. Harbor grants them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    Granted,
    /// Only the first counts, and the token says so.
    First,
    /// Only the first counts, and the token does not show it.
    FirstOpaque,
    Refused,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            version: (2, 11),
            accounts: vec![Account::admin("admin", "Harbor12345")],
            projects: vec![],
            read_only: false,
            everyone_creates: true,
            hides_missing: false,
            token_service: true,
            several_scopes: Scopes::Granted,
            unhealthy: None,
            busy_api: 0,
            absolute_locations: false,
        }
    }
}

impl Setup {
    pub fn with(mut self, project: Project) -> Setup {
        self.projects.push(project);
        self
    }

    pub fn account(mut self, account: Account) -> Setup {
        self.accounts.push(account);
        self
    }
}

/// A project and what is set on it.
#[derive(Clone)]
pub struct Project {
    pub name: String,
    pub public: bool,
    /// Bytes; `None` is unlimited.
    pub quota: Option<u64>,
    /// Caches another registry; pushes are not possible.
    pub proxy_cache: bool,
    /// Tag patterns, with `*` at the end or alone, that cannot be moved once set.
    pub immutable: Vec<String>,
    /// What cosign has not signed cannot be pulled.
    pub content_trust: bool,
    /// What was not scanned cannot be pulled; nothing is ever scanned here.
    pub wants_scan: bool,
    /// The rights of each account.
    pub members: BTreeMap<String, Right>,
    /// Assigned when the server knows it; numbers from 1.
    pub(super) id: u64,
    pub(super) blobs: BTreeMap<Digest, u64>,
}

impl Project {
    pub fn new(name: &str) -> Project {
        Project {
            name: name.to_owned(),
            public: false,
            quota: None,
            proxy_cache: false,
            immutable: vec![],
            content_trust: false,
            wants_scan: false,
            members: BTreeMap::new(),
            id: 0,
            blobs: BTreeMap::new(),
        }
    }

    pub fn member(mut self, account: &str, right: Right) -> Project {
        self.members.insert(account.to_owned(), right);
        self
    }

    pub fn quota(mut self, bytes: u64) -> Project {
        self.quota = Some(bytes);
        self
    }

    pub fn immutable(mut self, pattern: &str) -> Project {
        self.immutable.push(pattern.to_owned());
        self
    }

    pub fn content_trust(mut self) -> Project {
        self.content_trust = true;
        self
    }

    pub fn proxy_cache(mut self) -> Project {
        self.proxy_cache = true;
        self
    }

    pub(super) fn used(&self) -> u64 {
        self.blobs.values().sum()
    }

    pub(super) fn is_immutable(&self, tag: &str) -> bool {
        self.immutable.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => tag.starts_with(prefix),
            None => tag == pattern,
        })
    }
}

/// What the database says of a blob whose file is in the storage, where that is not simply "here".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A garbage collection has taken hold of it.
    Deleting,
    /// There is none: the file was put there by hand.
    Absent,
}

/// Whether the database answers the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Running,
    /// What the server keeps in its caches is still answered.
    Away,
    /// Nothing is.
    AwayForLong,
}

/// What an administrator does while an import is under way.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    ReadOnly,
    /// Until so many requests were refused for it.
    ReadOnlyFor(usize),
    /// Its database no longer answers it.
    DatabaseStopped,
    /// This project becomes a proxy cache.
    ProxyCache(&'static str),
    /// Nobody may push to this project any more, and tokens do not outlive the right.
    RightsLost(&'static str),
}
