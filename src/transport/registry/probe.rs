//! Whether a registry is up, asked apart from what it answers to everything else: `GET /v2/` (distribution-spec, "Determining
//! Support").
//!
//! A gateway may answer that path itself as long as nobody says who is asking; so does Harbor's core, which stands before the
//! registry. The probe therefore shows what other requests would show.

use std::sync::Arc;
use std::time::Instant;

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use tokio::sync::OnceCell;

use super::auth::{Auth, Scopes};
use super::retry::is_gateway;
use super::wire::{Call, Payload, Wire};

/// One for each registry.
pub(super) struct Probe {
    wire: Arc<Wire>,
    auth: Arc<Auth>,
    base: Arc<OnceCell<Url>>,
    /// Held while one asks for all that wait.
    turn: tokio::sync::Mutex<()>,
}

impl Probe {
    pub fn new(wire: &Arc<Wire>, auth: &Arc<Auth>, base: &Arc<OnceCell<Url>>) -> Probe {
        Probe { wire: wire.clone(), auth: auth.clone(), base: base.clone(), turn: tokio::sync::Mutex::default() }
    }

    /// Has the outage note whether the registry is up, unless that was found out after `failure`.
    pub async fn ask(&self, failure: Instant) {
        let _turn = self.turn.lock().await;
        let outage = &self.wire.outage;
        if !outage.is_unprobed_since(failure) {
            return;
        }
        let at = Instant::now();
        tokio::select! {
            is_up = self.is_up() => outage.note_probe(at, is_up),
            _ = outage.over() => {}
        }
    }

    /// One try. Any answer but a server's error is one of the registry.
    async fn is_up(&self) -> bool {
        let Some(url) = self.base.get().and_then(|base| base.join("/v2/").ok()) else { return false };
        let Ok(shown) = self.auth.header(&self.wire, &Scopes::enter("")).await else { return false };
        let authorization = shown.map(|value| (value, url.clone()));
        let (method, headers, body) = (Method::GET, HeaderMap::new(), Payload::none());
        let call = Call { method, url, headers, body, authorization, what: "asking whether the registry is up" };
        self.wire.status(call).await.is_ok_and(|status| status < 500 && !is_gateway(status))
    }
}
