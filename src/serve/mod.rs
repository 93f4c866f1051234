//! The embedded registry: serves an OCI layout, a directory or a tar, with the distribution protocol (distribution-spec 1.1).
//!
//! The demo and quick tests push to it and pull from it, and a site without a registry can pull from it. It depends on layouts
//! and the protocol, not on allowlists, plans or other registries, and offers no authentication.
//!
//! # Names
//! A bundle names its images in full (`docker.io/library/nginx:1.27`). A repository has three spellings:
//!
//! - in full, `docker.io/library/nginx`; the colon before a port may be written as `-`, for clients that do not accept a
//!   colon;
//! - as Docker shortens it: `library/nginx` and `nginx` mean docker.io first;
//! - without its host, `org/app` for `quay.io/org/app`. A tag that several hosts have with different digests is not served
//!   under the short name.
//!
//! A client that names the registry of an image (`?ns=quay.io`, as containerd does for a mirror) gets that registry's tag or
//! 404, and then asks the next mirror.
//!
//! Entries with only a tag (`skopeo copy … oci:DIR:1.27`) are served as `DIR:1.27`. Content requested by digest is served
//! under any name, because a layout does not know repositories and nothing here is restricted.
//!
//! A read-only layout is served as it was when it was opened.
//!
//! # Writing
//! With [`Options::writable`] a directory accepts pushes. A name without host is recorded as by Docker (`docker.io/…`), one
//! with `?ns=` under that registry. The first write *unseals* a bundle: `SHA256SUMS`, `bundle.json` and `manifest.json` are
//! removed, because they would no longer be true, and `verify` reports that it is not a bundle. Blobs are hashed while they
//! are written to `.uploads/`, and named when they are proven. Changes of names are written to a `journal`, so that a push
//! costs the same whatever else the layout contains, and what was answered survives a kill. Only one process writes.
//!
//! # Threats
//! Anyone who can reach the port may read, and write if that is allowed, so the server listens on loopback by default.
//! Browsers are kept out (`guard`). Requests are bounded by [`Limits`]: connections, their idle time and pace, headers,
//! manifests, open uploads. No part of a request becomes part of a path except parsed digests and upload numbers. Blobs are
//! served unchecked; clients verify their digest, as with any registry. No content is kept in memory.

mod answer;
mod catalog;
mod connection;
mod deletion;
mod guard;
mod journal;
mod limits;
mod lists;
mod names;
mod open_uploads;
mod places;
mod publish;
mod pull;
mod quota;
mod request;
mod stored;
#[cfg(test)]
mod tests;
mod uploads;
mod writer;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, State};
use axum::http::{Method, Request};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::net::TcpListener;

use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Events;
use crate::files::Layout;
use crate::oci::Digest;
use answer::RequestRefusal;
use catalog::Catalog;
use guard::Guard;
pub use limits::Limits;
use places::Requests;
use request::{ApiEndpoint, Query};

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port 0 picks a free one: see [`Server::address`].
    pub listen: SocketAddr,
    /// Whether pushes and deletions are accepted; directories only.
    pub writable: bool,
    /// Names without port that it answers to, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Maximum size of a writable directory in bytes.
    pub quota: Option<u64>,
    pub limits: Limits,
}

impl Options {
    /// Read-only, without further names or a quota.
    pub fn at(listen: SocketAddr) -> Options {
        Options { listen, writable: false, hosts: Vec::new(), quota: None, limits: Limits::default() }
    }
}

/// What every request needs.
struct ServerState {
    catalog: Arc<Catalog>,
    guard: Guard,
    limits: Limits,
}

/// A registry that is bound to its port and not yet running.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    state: ServerState,
}

impl Server {
    /// Opens the layout at `path` and binds the port. A missing or empty writable directory becomes an empty layout.
    ///
    /// # Errors
    /// It is not a layout, a writable tar, or a directory that another process writes to; or the port is taken.
    pub async fn bind(path: &Path, options: &Options, events: Events) -> Result<Server> {
        let (path, own) = (path.to_owned(), options.clone());
        Server::with(blocking(move || Catalog::open(&path, &own, events)).await?, options).await
    }

    /// Does the same for an open layout, read-only.
    ///
    /// # Errors
    /// It has no `index.json`, or the port is taken.
    pub async fn of(layout: Layout, options: &Options, events: Events) -> Result<Server> {
        Server::with(blocking(move || Catalog::of(layout, events)).await?, options).await
    }

    async fn with(catalog: Catalog, options: &Options) -> Result<Server> {
        let fail = |e: std::io::Error| Error::new(Kind::Input, format!("listening on {}", options.listen)).because(e);
        let listener = TcpListener::bind(options.listen).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let state =
            ServerState { catalog: Arc::new(catalog), guard: Guard::new(&options.hosts), limits: options.limits };
        Ok(Server { listener, address, state })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The references that can be pulled, as `repository:tag` below the server's address, sorted.
    pub fn references(&self) -> Vec<String> {
        let names = self.state.catalog.names();
        let tagged = |repository: String| {
            let tags = names.tags(&repository, None, "", usize::MAX).unwrap_or_default();
            tags.into_iter().map(move |tag| format!("{repository}:{tag}"))
        };
        names.repositories().into_iter().flat_map(tagged).collect()
    }

    /// Serves until `shutdown` completes; running requests get ten more seconds.
    ///
    /// # Errors
    /// None so far, because a failing connection affects only its client.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let (catalog, limits) = (Arc::clone(&self.state.catalog), self.state.limits);
        let router = axum::Router::new().fallback(handle).with_state(Arc::new(self.state));
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let signal = async move {
            shutdown.await;
            let _ = stopping.send(());
        };
        let listener = connection::Bounded::new(self.listener, limits);
        let server = axum::serve(listener, router.into_make_service_with_connect_info::<Requests>())
            .with_graceful_shutdown(signal);
        let too_long = async move {
            // An error means that the server has ended by itself, and this must not end then.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(limits.grace).await;
        };
        tokio::select! {
            outcome = server => outcome.map_err(|e| Error::new(Kind::Network, "serving").because(e))?,
            () = too_long => {}
            () = tidy(Arc::clone(&catalog), limits) => {}
        }
        blocking(move || {
            catalog.close();
            Ok(())
        })
        .await
    }
}

/// Opens, binds and serves until `shutdown` completes. See [`Server`].
///
/// # Errors
/// As for [`Server::bind`].
pub async fn serve(
    path: &Path,
    options: &Options,
    events: Events,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    Server::bind(path, options, events).await?.run(shutdown).await
}

/// Periodically drops abandoned uploads and the like.
async fn tidy(catalog: Arc<Catalog>, limits: Limits) {
    loop {
        tokio::time::sleep(limits.tick()).await;
        let own = Arc::clone(&catalog);
        // It reports its errors itself.
        let _ = tokio::task::spawn_blocking(move || own.tidy()).await;
    }
}

async fn handle(
    State(state): State<Arc<ServerState>>,
    ConnectInfo(requests): ConnectInfo<Requests>,
    request: Request<Body>,
) -> Response {
    let (in_flight, catalog) = (requests.begin(), &state.catalog);
    let request = request.map(|body| watched(body, requests));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let allowed = state.guard.check(request.uri(), request.headers());
    let answered = match allowed {
        Ok(()) => answer(&state, request).await,
        Err(refusal) => Err(refusal),
    };
    let mut response = answered.unwrap_or_else(|refusal| {
        if let Some(text) = refusal.own_problem() {
            catalog.warn(format!("answering {method} {path}: {text}"));
        }
        refusal.into_response()
    });
    tracing::debug!(%method, path, status = response.status().as_u16(), "request");
    answer::finish(&mut response, method == Method::HEAD);
    keep_in_flight(response, in_flight)
}

/// Records when the client is awaited because it sends no more of the body.
fn watched(body: Body, requests: Requests) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let mut pieces = body.into_data_stream();
    Body::from_stream(futures_util::stream::poll_fn(move |context| {
        let polled = pieces.poll_next_unpin(context);
        requests.note_body(polled.is_pending());
        polled
    }))
}

/// A body that is still to be read from the disk belongs to the request; one in memory is on its way already.
fn keep_in_flight(response: Response, request: places::Request) -> Response {
    if HttpBody::size_hint(response.body()).exact().is_some() {
        return response;
    }
    response.map(|body| {
        Body::from_stream(body.into_data_stream().map(move |piece| {
            let _ = &request;
            piece
        }))
    })
}

async fn answer(state: &ServerState, request: Request<Body>) -> Result<Response, RequestRefusal> {
    let catalog = &state.catalog;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reading && catalog.writer().is_none() {
        return Err(RequestRefusal::read_only());
    }
    // Only these add new content.
    let brings = matches!(*request.method(), Method::PUT | Method::POST);
    let may_be = |text: &str| brings || Digest::known(text) != Ok(None) || catalog.has(text);
    let endpoint = ApiEndpoint::parse_if(request.uri().path(), &may_be)?;
    match endpoint {
        ApiEndpoint::Upload { .. } => {}
        _ if !reading => {}
        ApiEndpoint::Ping => return Ok(answer::json(&serde_json::json!({}))),
        ApiEndpoint::Catalog => return lists::repositories(catalog, &query),
        ApiEndpoint::Tags { name } => return lists::tags(catalog, &name, &query),
        ApiEndpoint::Referrers { name, subject } => return lists::referrers(catalog, name, subject, &query).await,
        ApiEndpoint::Manifest { name, target } => {
            return pull::manifest(catalog, &name, query.registry()?, &target, request.headers()).await;
        }
        ApiEndpoint::Blob { digest, .. } => {
            return pull::blob(catalog, digest, request.method(), request.headers()).await;
        }
        ApiEndpoint::Uploads { .. } => return Err(RequestRefusal::not_allowed(endpoint.methods())),
    }
    let writer = catalog.writer().ok_or_else(RequestRefusal::read_only)?;
    let methods = endpoint.methods();
    match (request.method().as_str(), endpoint) {
        ("POST", ApiEndpoint::Uploads { name }) => uploads::start(catalog, writer, &name, &query, request).await,
        ("GET" | "HEAD", ApiEndpoint::Upload { name, id }) => uploads::status(writer, &name, &id).await,
        ("PATCH", ApiEndpoint::Upload { name, id }) => uploads::append(writer, &name, &id, request).await,
        ("PUT", ApiEndpoint::Upload { name, id }) => {
            uploads::finish(catalog, writer, &name, &id, &query, request).await
        }
        ("DELETE", ApiEndpoint::Upload { name, id }) => uploads::cancel(writer, &name, &id).await,
        ("PUT", ApiEndpoint::Manifest { name, target }) => {
            publish::put(catalog, name, query.registry()?, target, state.limits.manifest, request).await
        }
        ("DELETE", ApiEndpoint::Manifest { name, target }) => {
            deletion::manifest(catalog, name, query.registry()?, target).await
        }
        ("DELETE", ApiEndpoint::Blob { digest, .. }) => deletion::blob(catalog, digest).await,
        _ => Err(RequestRefusal::not_allowed(methods)),
    }
}

/// Runs file work outside of the threads that serve connections.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::new(Kind::Interrupted, "serving a request").because(e)))
}
