//! Servers that a registry needs and does not run itself: the one that issues its tokens, and those that store its
//! blobs. Each has its own outage, so that the requests that need it wait and fail together while the registry still
//! answers the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Method, Url};

use super::call::Call;
use super::config::RequestLimits;
use super::outage::Outage;
use crate::base::progress::Events;

/// The role of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerRole {
    Tokens,
    /// It delivers blobs.
    Blobs,
    /// It accepts blobs.
    Uploads,
}

/// See the module documentation. Each registry has one.
pub(super) struct Peers {
    registry: String,
    limits: RequestLimits,
    events: Events,
    /// By origin.
    known: Mutex<HashMap<String, Arc<Outage>>>,
}

impl ServerRole {
    /// The role of the servers that a request for a blob may be redirected to. Other servers, such as one for
    /// referrers, are not required: an image does not depend on their answers.
    pub fn behind(call: &Call<'_>) -> Option<ServerRole> {
        let is_change = matches!(call.method, Method::POST | Method::PATCH | Method::PUT);
        match call.url.path().contains("/blobs/") {
            true if is_change => Some(ServerRole::Uploads),
            true => Some(ServerRole::Blobs),
            false => matches!(call.method, Method::PATCH | Method::PUT).then_some(ServerRole::Uploads),
        }
    }
}

impl Peers {
    pub fn new(registry: &str, limits: &RequestLimits, events: &Events) -> Peers {
        let known = Mutex::default();
        Peers { registry: registry.to_owned(), limits: limits.clone(), events: events.clone(), known }
    }

    /// Returns the outage of the server at `url` in this role.
    pub fn outage(&self, url: &Url, role: ServerRole) -> Arc<Outage> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = known.entry(url.origin().ascii_serialization()).or_insert_with(|| {
            let (host, registry) = (address(url), &self.registry);
            let place = match role {
                ServerRole::Tokens => format!("{host} (token server of {registry})"),
                ServerRole::Blobs => format!("{host} (blob storage of {registry})"),
                ServerRole::Uploads => format!("{host} (for uploads to {registry})"),
            };
            Arc::new(Outage::new(&place, &self.limits, &self.events))
        });
        outage.clone()
    }
}

/// `host[:port]`.
fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
