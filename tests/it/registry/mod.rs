//! The registry client against Debian's `docker-registry`, real TLS listeners, and a scripted server for behaviour that
//! a real one does not show on demand.

mod auth;
mod certs;
mod faults;
mod load;
pub mod memory_source;
mod mirrors;
mod pull_and_push;
mod sessions;
mod stored;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use gapferry::base::progress::{Events, Recorder};
use gapferry::transport::registry::{Config, Registries};

/// A configuration without waits between tries.
fn config() -> Config {
    Config { first_delay: Duration::from_millis(1), retries: 4, ..Config::default() }
}

fn client(config: Config) -> Registries {
    watched(config).0
}

fn watched(config: Config) -> (Registries, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let events: Events = recorder.clone();
    (Registries::new(config, events).unwrap(), recorder)
}
