//! Serves a bundle or layout as a registry.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::environment::Environment;
use super::outcome::{JsonReport, REPORT_VERSION};
use super::trust::Trust;
use super::units::as_fingerprint;
use crate::base::blocking::blocking;
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::bundle::volumes::{Opened, VolumesMissing};
use crate::bundle::{BUNDLE_JSON, BundleJson, MAX_BUNDLE_JSON};
use crate::files::Layout;
use crate::serve::{Options, Server};
use crate::signing::PublicKey;
use crate::verify::{self, Depth};

/// What to serve, and where.
pub struct ServeRequest {
    pub content: ServedContent,
    /// The address. Port 0 selects a free port.
    pub listen: SocketAddr,
    /// Additional host names, without port, for which requests are answered, besides addresses and `localhost`.
    pub hosts: Vec<String>,
}

pub enum ServedContent {
    /// A bundle or OCI layout, as a directory or a tar, or all volumes of a bundle; and the signatures that it must have.
    ReadOnly { paths: Vec<PathBuf>, trust: Trust },
    /// A directory that accepts pushes and deletions.
    Writable {
        directory: PathBuf,
        /// Size limit of the contents in bytes.
        quota: Option<u64>,
    },
}

/// A registry that accepts connections once it runs.
pub struct Serving {
    pub report: ServeReport,
    server: Server,
}

/// What is served.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServeReport {
    pub version: u32,
    /// `true`: the server accepts connections.
    pub ok: bool,
    /// `ADDRESS:PORT`, with the port that was picked.
    pub address: SocketAddr,
    /// Whether pushes and deletions are accepted.
    pub writable: bool,
    /// `REPOSITORY:TAG` of every tag.
    pub references: Vec<String>,
    /// The fingerprint of the key whose signature was verified.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_fingerprint")]
    pub signed_by: Option<PublicKey>,
}

impl JsonReport for ServeReport {}

/// Opens the content and listens.
///
/// # Errors
/// The content cannot be read or is refused, or the address is in use.
pub async fn serve(request: ServeRequest, environment: &Environment) -> Result<Serving> {
    let ServeRequest { content, listen, hosts } = request;
    let (options, events) = (Options { hosts, ..Options::at(listen) }, environment.events.clone());
    let (server, signed_by, writable) = match content {
        ServedContent::ReadOnly { paths, trust } => {
            let environment = environment.clone();
            // Opening can take long, and the caller must be able to stop waiting.
            let admitted = blocking("opening the bundle", move || admit(&paths, &trust, &environment));
            let (layout, signed_by) = admitted.await?;
            (Server::of(layout, &options, events).await?, signed_by, false)
        }
        ServedContent::Writable { directory, quota } => {
            let options = Options { writable: true, quota, ..options };
            (Server::bind(&directory, &options, events).await?, None, true)
        }
    };
    let (address, references) = (server.address(), server.references());
    let report = ServeReport { version: REPORT_VERSION, ok: true, address, writable, references, signed_by };
    Ok(Serving { report, server })
}

impl Serving {
    /// Serves until `shutdown` completes. Requests in progress then have ten seconds to end.
    ///
    /// # Errors
    /// Connections can no longer be accepted.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        self.server.run(shutdown).await
    }
}

/// Opens the content. If a signature is required, the bundle must be signed, and its names and manifests must match.
fn admit(paths: &[PathBuf], trust: &Trust, environment: &Environment) -> Result<(Layout, Option<PublicKey>)> {
    let (opened, events) = (Opened::open(paths)?, &environment.events);
    let path = opened.layout().path();
    if let Some(set) = opened.volumes().filter(|set| !set.missing().is_empty()) {
        let fact = VolumesMissing { missing: set.missing(), of: set.set.of };
        return Err(Error::damaged(format!("{} cannot be served: {fact}", path.display())).with_fact(fact));
    }
    let mut signed_by = None;
    if let Some(signed) = trust.check(opened.layout(), environment)? {
        let report = verify::check_proven(&opened, Depth::Structure, Some(&signed), events)?;
        if !report.is_clean() {
            return Err(verify::refuse(path, &report));
        }
        events.report(Event::Status(format!("signed by {}", signed.by)));
        signed_by = Some(signed.by);
    }
    warn_of_increment(opened.layout(), environment);
    Ok((opened.into_layout(), signed_by))
}

/// Warns about an increment: images that are not complete in it are not offered.
fn warn_of_increment(layout: &Layout, environment: &Environment) {
    let read = layout.read(BUNDLE_JSON, MAX_BUNDLE_JSON).ok().flatten();
    if read.and_then(|bytes| BundleJson::parse(&bytes, BUNDLE_JSON).ok()).is_some_and(|json| json.is_increment()) {
        let text = "is an increment: images that need content of its target are not offered";
        environment.events.report(Event::Warning(format!("{} {text}", layout.path().display())));
    }
}
