//! The configuration of a server: its accounts, its projects with their settings, and scheduled changes.

use std::collections::BTreeMap;

use gapferry::oci::Digest;

use super::{Account, Right};

/// The state of the server when it starts. `Setup::default()` is a Harbor 2.11 with an `admin` (password `Harbor12345`)
/// and no project.
#[derive(Clone)]
pub struct Setup {
    /// Major and minor; 2.8 brings the referrers API, 2.9 the header `OCI-Subject`.
    pub version: (u32, u32),
    pub accounts: Vec<Account>,
    pub projects: Vec<Project>,
    pub read_only: bool,
    /// Whether everyone may create projects, or only admins.
    pub everyone_creates: bool,
    /// Older releases answer 403 where newer ones answer 404 for a project that does not exist.
    pub hides_missing: bool,
    /// Without it, `/service/token` answers 404, as behind a proxy that routes only some paths.
    pub token_service: bool,
    /// The handling of a token request for several repositories.
    pub several_scopes: Scopes,
    /// An unhealthy component, such as `database`.
    pub unhealthy: Option<&'static str>,
    /// How often Harbor's own API answers 503 before it works.
    pub busy_api: usize,
    /// Whether `Location` is absolute.
    pub absolute_locations: bool,
}

/// How a token server handles several scopes. Harbor grants them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    Granted,
    /// Grants only the first, and the token says so.
    First,
    /// Grants only the first, and the token does not show it.
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

/// A project and its settings.
#[derive(Clone)]
pub struct Project {
    pub name: String,
    pub public: bool,
    /// Bytes; `None` is unlimited.
    pub quota: Option<u64>,
    /// A proxy cache of another registry; nobody can push.
    pub proxy_cache: bool,
    /// Patterns of tags that cannot be moved once set, with `*` alone or at the end.
    pub immutable: Vec<String>,
    /// Images without a cosign signature cannot be pulled.
    pub content_trust: bool,
    /// Unscanned images cannot be pulled; nothing is ever scanned here.
    pub wants_scan: bool,
    /// The members and their rights.
    pub members: BTreeMap<String, Right>,
    /// Assigned by the server, counting from 1.
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

/// The database row of a blob whose file is in the storage, unless it is simply present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A garbage collection is deleting it.
    Deleting,
    /// There is no row: the file was put there by hand.
    Absent,
}

/// Whether the database answers the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Running,
    /// Cached content is still served.
    Away,
    /// Nothing is served.
    AwayForLong,
}

/// A change by an administrator during an import.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    ReadOnly,
    /// Until this many requests were refused for it.
    ReadOnlyFor(usize),
    /// The database stops answering.
    DatabaseStopped,
    /// This project becomes a proxy cache.
    ProxyCache(&'static str),
    /// Nobody may push to this project any more, and existing tokens lose the right.
    RightsLost(&'static str),
}
