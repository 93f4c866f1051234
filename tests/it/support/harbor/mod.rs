//! A server that behaves like Harbor 2.x, in this process, in memory, on a free loopback port.
//!
//! For tests of Harbor behaviour that Debian's `docker-registry` lacks: projects and rights, 401 for anything
//! invisible, quotas, immutable tags, policies that forbid pulling, read-only mode, proxy-cache projects, blobs under
//! garbage collection, refusal of sparse indexes, the project and artifact API, and the token service. The facts come
//! from Harbor 2.15 (`src/server/registry`, `src/server/middleware`, `src/server/v2.0/handler`,
//! `src/core/service/token`), answers of a real Harbor 2.16, and distribution 2.8. It never sleeps, and it keeps a log.

mod access;
mod answer;
mod api;
mod artifacts;
mod blobs;
mod manifests;
mod observed;
mod setup;

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
pub use setup::{Change, Database, Project, Row, Scopes, Setup};

/// One answered request.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub status: u16,
    pub authorized: bool,
    /// Whether the request had a password.
    pub basic: bool,
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
    /// A change to make once there are this many tags.
    pending: Option<(usize, Change)>,
    /// Read-only mode ends after this many refusals; `None`: only on request.
    refusals_left: Option<usize>,
    database: Database,
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
            refusals_left: None,
            database: Database::Running,
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

    /// A request to complete and send by hand.
    pub fn request(&self, method: &'static str, path: &str) -> super::http::Request {
        super::http::request(method, format!("http://{}{path}", self.address))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Sets a blob's database row; `None`: the blob is present.
    pub fn set_row(&self, blob: &Digest, row: Option<Row>) {
        let mut state = self.state();
        state.rows.remove(blob);
        state.rows.extend(row.map(|row| (*blob, row)));
    }

    /// Makes the change once there are `tags` tags.
    pub fn change_once_tagged(&self, tags: usize, change: Change) {
        self.state().pending = Some((tags, change));
    }

    /// Makes Harbor's own API answer 503 this many times.
    pub fn set_busy_api(&self, times: usize) {
        self.state.lock().unwrap().setup.busy_api = times;
    }

    /// Puts the server into or out of read-only mode.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().setup.read_only = read_only;
    }

    /// Puts the server into read-only mode until it has refused `times` requests.
    pub fn set_read_only_for(&self, times: usize) {
        let mut state = self.state();
        (state.setup.read_only, state.refusals_left) = (true, Some(times));
    }

    /// Sets the state of the database.
    pub fn set_database(&self, database: Database) {
        self.state().database = database;
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

/// One request with everything that determines its answer.
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
    /// Counts a refusal for read-only mode, which may end it.
    fn say_read_only(&mut self) {
        if let Some(left) = &mut self.refusals_left {
            *left = left.saturating_sub(1);
            self.setup.read_only = *left > 0;
        }
    }

    /// Makes the pending change when its time has come.
    fn change(&mut self) {
        let tags = || self.repositories.values().map(|repository| repository.tags.len()).sum::<usize>();
        let Some((_, change)) = self.pending.filter(|(wanted, _)| tags() >= *wanted) else { return };
        self.pending = None;
        match change {
            Change::ReadOnly => self.setup.read_only = true,
            Change::ReadOnlyFor(refusals) => {
                (self.setup.read_only, self.refusals_left) = (true, Some(refusals));
            }
            Change::DatabaseStopped => self.database = Database::Away,
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
    // An incomplete request gets no answer; the upload keeps its size.
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
        basic: call.header(header::AUTHORIZATION).starts_with("Basic "),
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
        state.say_read_only();
        let text = "The system is in read only mode. Any modification is prohibited.";
        return refuse(403, "DENIED", text);
    }
    if state.database != Database::Running && api::needs_database(state.database, call) {
        return access::without_database(state, call);
    }
    if call.path.starts_with("/v2/") || call.path == "/v2" {
        return registry(state, call);
    }
    api::answer(state, call)
}

/// The distribution protocol, after the checks Harbor makes first.
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
