//! What a Harbor reports about its own health. Without its database it answers 401 to valid credentials, issues empty tokens,
//! and answers some paths from a cache; `GET /api/v2.0/health` distinguishes that from a refusal (Harbor 2.x
//! `src/controller/health`). It is answered to everyone, always with status 200; the body contains the health.
//!
//! Threats: the response is foreign text, bounded in length and time, and shown only through [`excerpt`]. It can make a run
//! wait for the retry budget and end it, like any 503, and no more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::answer::excerpt;

/// Components without which nothing can be pushed or pulled; the deeper ones first, because the others fail with them.
const NEEDED: [&str; 4] = ["database", "redis", "registry", "core"];
/// How long a response is valid: requests that fail together ask once.
const BELIEVED: Duration = Duration::from_secs(2);
/// Its path below the registry's root.
pub(super) const PATH: &str = "/api/v2.0/health";
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes to read.
pub(super) const READ: usize = 64 * 1024;

/// There is one for each registry.
#[derive(Default)]
pub(super) struct Health {
    is_harbor: AtomicBool,
    /// Held while one request asks on behalf of all that wait.
    last: tokio::sync::Mutex<Option<(Instant, Option<String>)>>,
}

impl Health {
    /// The registry's challenge is Harbor's.
    pub fn note_harbor(&self) {
        self.is_harbor.store(true, Ordering::Relaxed);
    }

    /// Which needed component is down, as a sentence; `None` if all are up, this is not a Harbor, or it does not say.
    ///
    /// `asking` returns the beginning of the response at [`PATH`], within `stall`; it is used only if nothing recent is known.
    pub async fn illness(&self, asking: impl Future<Output = Option<Vec<u8>>>, stall: Duration) -> Option<String> {
        if !self.is_harbor.load(Ordering::Relaxed) {
            return None;
        }
        let mut last = self.last.lock().await;
        if let Some((at, illness)) = &*last
            && at.elapsed() < BELIEVED
        {
            return illness.clone();
        }
        let body = tokio::time::timeout(PATIENCE.min(stall), asking).await.ok().flatten();
        let illness = body.and_then(|body| illness(&body));
        *last = Some((Instant::now(), illness.clone()));
        illness
    }
}

fn illness(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        components: Vec<Component>,
    }
    #[derive(Deserialize)]
    struct Component {
        name: String,
        status: String,
        #[serde(default)]
        error: String,
    }
    let Answer { components } = serde_json::from_slice(body).ok()?;
    let is_ill = |name: &&str| components.iter().find(|one| one.name == *name && one.status == "unhealthy");
    let ill = NEEDED.iter().find_map(is_ill)?;
    let why = match excerpt(ill.error.as_bytes()) {
        why if why.is_empty() => "it is unhealthy".to_owned(),
        why => why,
    };
    Some(format!("Harbor's {} is down, its health check says: {why}", ill.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator who sees "unauthorized" looks for the mistake in the credentials.
    #[test]
    fn the_component_that_is_down_is_named_and_those_that_no_transfer_needs_are_not() {
        let answer = |ill: &[&str]| {
            let component = |name: &&str| match ill.contains(name) {
                true => serde_json::json!({"name": name, "status": "unhealthy", "error": "connection refused"}),
                false => serde_json::json!({"name": name, "status": "healthy"}),
            };
            let all = ["core", "database", "jobservice", "portal", "redis", "registry", "registryctl", "trivy"];
            let components: Vec<_> = all.iter().map(component).collect();
            illness(serde_json::json!({"status": "unhealthy", "components": components}).to_string().as_bytes())
        };
        let says = "Harbor's database is down, its health check says: connection refused";
        assert_eq!(answer(&["core", "registry", "database"]).as_deref(), Some(says));
        assert!(answer(&["registry"]).is_some_and(|reported| reported.starts_with("Harbor's registry is down")));
        assert_eq!(answer(&[]), None);
        assert_eq!(answer(&["jobservice", "portal", "trivy"]), None);
        for other in ["", "[]", "null", "{}", r#"{"components":null}"#, r#"{"components":[{}]}"#, "<html>"] {
            assert_eq!(illness(other.as_bytes()), None, "{other}");
        }
    }
}
