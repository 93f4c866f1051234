//! A server that behaves as Harbor 2.x does, in process, in memory, on a free loopback port.
//!
//! For tests of what a push to Harbor meets and Debian's `docker-registry` does not do: projects and rights, 401 for
//! whatever may not be seen, quotas, immutable tags, policies that forbid pulling, read-only mode, proxy-cache projects, blobs
//! that a garbage collection is deleting, sparse indexes refused, the project and artifact API, and the token service. Facts
//! from Harbor 2.15 (`src/server/registry`, `src/server/middleware`, `src/server/v2.0/handler`, `src/core/service/token`),
//! answers of a real Harbor 2.16, and distribution 2.8. It never sleeps and it keeps a log.

mod access;
mod answer;
mod api;
mod artifacts;
mod blobs;
mod manifests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{Method, Response, header};
use gapferry::oci::{Digest, Manifest};

pub use access::{Account, Right};
use access::{Identity, identify};
use answer::refuse;

/// What the server is like when it starts. `Setup::default()` is a Harbor 2.11 with an `admin` (password `Harbor12345`)
/// and no project.
#[derive(Clone)]
pub struct Setup {
    /// Major and minor; 2.8 brings the referrers API, 2.9 the header `OCI-Subject`.
    pub version: (u32, u32),
    pub accounts: Vec<Account>,
    pub projects: Vec<Project>,
    pub read_only: bool,
    /// Whether everybody may create projects, or admins alone.
    pub everyone_creates: bool,
    /// Older releases answer 403 where newer ones answer 404 for a project that does not exist.
    pub hides_missing: bool,
    /// Without it, `/service/token` answers 404, as behind a proxy that routes only some paths.
    pub token_service: bool,
    /// What becomes of a request for a token for several repositories.
    pub several_scopes: Scopes,
    /// A component that reports itself ill, such as `database`.
    pub unhealthy: Option<&'static str>,
    /// Whether `Location` is absolute.
    pub absolute_locations: bool,
}

/// What a token server does with several scopes. Harbor grants them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    Granted,
    /// The first alone counts, and the token says so.
    First,
    /// The same, and nobody can tell by the token.
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
    /// Caches another registry; nobody can push.
    pub proxy_cache: bool,
    /// Tag patterns, with `*` at the end or alone, that cannot be moved once set.
    pub immutable: Vec<String>,
    /// What cosign has not signed cannot be pulled.
    pub content_trust: bool,
    /// What was not scanned cannot be pulled; nothing is ever scanned here.
    pub wants_scan: bool,
    /// Who may do what.
    pub members: BTreeMap<String, Right>,
    /// Assigned when the server knows it; numbers from 1.
    id: u64,
    blobs: BTreeMap<Digest, u64>,
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

    pub fn public(mut self) -> Project {
        self.public = true;
        self
    }

    pub fn content_trust(mut self) -> Project {
        self.content_trust = true;
        self
    }

    pub fn wants_scan(mut self) -> Project {
        self.wants_scan = true;
        self
    }

    pub fn proxy_cache(mut self) -> Project {
        self.proxy_cache = true;
        self
    }

    fn used(&self) -> u64 {
        self.blobs.values().sum()
    }

    fn is_immutable(&self, tag: &str) -> bool {
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

/// What an administrator does while an import is under way.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    ReadOnly,
    /// This project becomes a proxy cache.
    ProxyCache(&'static str),
    /// Nobody may push to this project any more, and tokens do not outlive the right.
    RightsLost(&'static str),
}

/// One request as it was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    pub method: String,
    /// With the query.
    pub path: String,
    pub status: u16,
    pub authorized: bool,
}

#[derive(Clone)]
struct Stored {
    manifest: Manifest,
    media_type: String,
}

#[derive(Default, Clone)]
struct Repo {
    blobs: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, Stored>,
    tags: BTreeMap<String, Digest>,
}

struct Upload {
    repository: String,
    data: Vec<u8>,
    patched: bool,
}

struct State {
    setup: Setup,
    address: SocketAddr,
    projects: BTreeMap<String, Project>,
    repositories: BTreeMap<String, Repo>,
    blobs: BTreeMap<Digest, Bytes>,
    uploads: BTreeMap<String, Upload>,
    rows: BTreeMap<Digest, Row>,
    /// Happens as soon as there are so many tags.
    pending: Option<(usize, Change)>,
    counter: u64,
    tokens: BTreeMap<String, access::Claims>,
    log: Vec<Logged>,
    violations: Vec<String>,
}

/// The running server; it stops when this is dropped.
pub struct Harbor {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Harbor {
    pub fn start(setup: Setup) -> Harbor {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let projects = setup.projects.iter().cloned().zip(1..).map(|(project, id)| {
            let name = project.name.clone();
            (name, Project { id, ..project })
        });
        let state = Arc::new(Mutex::new(State {
            address,
            projects: projects.collect(),
            setup,
            repositories: BTreeMap::new(),
            blobs: BTreeMap::new(),
            uploads: BTreeMap::new(),
            rows: BTreeMap::new(),
            pending: None,
            counter: 0,
            tokens: BTreeMap::new(),
            log: vec![],
            violations: vec![],
        }));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = state.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = axum::Router::new().fallback(move |request| serve(shared.clone(), request));
                let server = std::future::IntoFuture::into_future(axum::serve(listener, router));
                tokio::select! { _ = server => {}, _ = stopped => {} }
            });
        });
        Harbor { address, state, stop: Some(stop) }
    }

    /// `host:port`.
    pub fn registry(&self) -> String {
        self.address.to_string()
    }

    /// A request to be completed and sent by hand.
    pub fn request(&self, method: &'static str, path: &str) -> super::http::Request {
        super::http::request(method, format!("http://{}{path}", self.address))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    pub fn clear_log(&self) {
        self.state().log.clear();
    }

    /// Blobs whose bytes were accepted.
    pub fn uploads(&self) -> usize {
        let closed =
            |entry: &&Logged| entry.method == "PUT" && entry.path.contains("/blobs/uploads/") && entry.status == 201;
        self.log().iter().filter(closed).count()
    }

    /// Blobs that were mounted from another repository.
    pub fn mounts(&self) -> usize {
        let mounted = |entry: &&Logged| entry.method == "POST" && entry.path.contains("mount=") && entry.status == 201;
        self.log().iter().filter(mounted).count()
    }

    /// Requests that tried to change a repository, whatever became of them.
    pub fn pushes(&self) -> Vec<Logged> {
        let mut log = self.log();
        log.retain(|entry| entry.path.starts_with("/v2/") && !matches!(entry.method.as_str(), "GET" | "HEAD"));
        log
    }

    /// What a client did that real Harbor answers with success and wrong accounting, or that its rules forbid.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    pub fn projects(&self) -> Vec<Project> {
        self.state().projects.values().cloned().collect()
    }

    /// What a tag of `project/repository` means.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.state().repositories.get(repository)?.tags.get(tag).copied()
    }

    pub fn manifest(&self, repository: &str, digest: &Digest) -> Option<Manifest> {
        Some(self.state().repositories.get(repository)?.manifests.get(digest)?.manifest.clone())
    }

    pub fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        self.state().repositories.get(repository).is_some_and(|repository| repository.blobs.contains(digest))
    }

    /// Requests for a token.
    pub fn token_requests(&self) -> usize {
        self.log().iter().filter(|entry| entry.path.starts_with("/service/token")).count()
    }

    /// Uploads that were begun, and neither ended nor cancelled: what they sent stays in the storage for a week.
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// What the database says of a blob; `None`: that it is here.
    pub fn set_row(&self, blob: &Digest, row: Option<Row>) {
        let mut state = self.state();
        state.rows.remove(blob);
        state.rows.extend(row.map(|row| (*blob, row)));
    }

    /// As soon as there are `tags` tags.
    pub fn change_once_tagged(&self, tags: usize, change: Change) {
        self.state().pending = Some((tags, change));
    }

    /// Puts the server into or out of read-only mode.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().setup.read_only = read_only;
    }

    /// Changes a project as its administrator would.
    pub fn change(&self, project: &str, change: impl FnOnce(&mut Project)) {
        change(self.state().projects.get_mut(project).unwrap());
    }
}

impl Drop for Harbor {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }
}

/// One request with everything that decides its answer.
struct Call {
    method: Method,
    path: String,
    query: BTreeMap<String, Vec<String>>,
    headers: axum::http::HeaderMap,
    body: Bytes,
    identity: Identity,
}

impl Call {
    fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name)?.first().map(String::as_str)
    }

    fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }
}

impl State {
    /// Does what is pending, if its time has come.
    fn change(&mut self) {
        let tags = || self.repositories.values().map(|repository| repository.tags.len()).sum::<usize>();
        let Some((_, change)) = self.pending.filter(|(wanted, _)| tags() >= *wanted) else { return };
        self.pending = None;
        match change {
            Change::ReadOnly => self.setup.read_only = true,
            Change::ProxyCache(name) => self.projects.get_mut(name).unwrap().proxy_cache = true,
            Change::RightsLost(name) => {
                let project = self.projects.get_mut(name).unwrap();
                project.members.values_mut().for_each(|right| *right = Right::Pull);
                let granted = self.tokens.values_mut().filter_map(|claims| claims.get_mut(name));
                granted.for_each(|actions| actions.retain(|action| action == "pull"));
            }
        }
    }
}

type Answer = Response<Body>;

async fn serve(state: Arc<Mutex<State>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    // What a client breaks off halfway is answered nobody; the upload keeps the size it had.
    let Ok(body) = axum::body::to_bytes(body, 64 << 20).await else {
        return refuse(400, "BAD_REQUEST", "the body broke off");
    };
    let mut state = state.lock().unwrap();
    let whole = parts.uri.path_and_query().map_or(String::new(), ToString::to_string);
    let call = Call {
        identity: identify(&state, parts.uri.path(), &parts.headers),
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: answer::parse_query(parts.uri.query().unwrap_or("")),
        headers: parts.headers,
        body,
    };
    state.change();
    let mut answer = route(&mut state, &call);
    state.log.push(Logged {
        method: call.method.to_string(),
        path: whole,
        status: answer.status().as_u16(),
        authorized: call.headers.contains_key(header::AUTHORIZATION),
    });
    if call.method == Method::HEAD {
        let length = answer.headers().get(header::CONTENT_LENGTH).cloned();
        *answer.body_mut() = Body::empty();
        if let Some(length) = length {
            answer.headers_mut().insert(header::CONTENT_LENGTH, length);
        }
    }
    answer
}

fn route(state: &mut State, call: &Call) -> Answer {
    if state.setup.read_only && !call.is_safe() {
        let text = "The system is in read only mode. Any modification is prohibited.";
        return refuse(403, "DENIED", text);
    }
    if call.path.starts_with("/v2/") || call.path == "/v2" {
        return registry(state, call);
    }
    api::answer(state, call)
}

/// The distribution protocol, behind the checks Harbor makes first.
fn registry(state: &mut State, call: &Call) -> Answer {
    if matches!(call.path.as_str(), "/v2" | "/v2/") {
        return match call.identity {
            Identity::Anonymous => access::challenge(state, call, "unauthorized", ""),
            _ => answer::json(200, serde_json::json!({})),
        };
    }
    let rest = call.path.trim_start_matches("/v2/");
    let marks = ["/blobs/uploads", "/blobs/", "/manifests/", "/tags/list", "/referrers/"];
    let Some((at, mark)) = marks.iter().find_map(|mark| rest.rfind(mark).map(|at| (at, *mark))) else {
        return refuse(404, "NOT_FOUND", "page not found");
    };
    let (repository, item) = (rest[..at].to_owned(), rest[at + mark.len()..].trim_start_matches('/').to_owned());
    if let Err(refusal) = access::check(state, call, &repository) {
        return refusal;
    }
    match mark {
        "/blobs/uploads" => blobs::upload(state, call, &repository, &item),
        "/blobs/" => blobs::read(state, call, &repository, &item),
        "/manifests/" => manifests::answer(state, call, &repository, &item),
        "/tags/list" => manifests::tags(state, call, &repository),
        _ => manifests::referrers(state, call, &repository, &item),
    }
}
