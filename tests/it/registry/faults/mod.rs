//! Faults, injected by the scripted server or on the way to a real registry.

mod answers;
mod bodies;
mod failing;
mod gateways;
mod hints;
mod lists;
mod matrix;
mod outage;
mod redirects;
mod retries;
mod tokens;
mod uploads;
mod wrong_bytes;

use gapferry::content::{Need, Source};
use gapferry::credentials::{Credentials, Store};
use gapferry::oci::{Repository, media_type};
use gapferry::transport::registry::{Config, Registries};

use crate::registry::config;
use crate::registry::memory_source::{repository, tag};
use crate::support::faulty::{Answer, Server};

fn repo(server: &Server) -> Repository {
    repository(&server.address, "a/b")
}

fn with_credentials(server: &Server) -> Config {
    let mut credentials = Store::anonymous();
    credentials.set(&server.address, Credentials::basic("me", "hunter2"));
    Config { credentials, ..config() }
}

const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

/// Whether a registry that fails every manifest is given up, instead of each manifest being tried to the end.
async fn is_given_up(registries: &Registries, server: &Server) -> bool {
    for nth in 0..200 {
        let error = registries.manifest(&tag(&repo(server), &format!("v{nth}")), Need::Required).await.unwrap_err();
        if error.stopped().is_some() {
            return true;
        }
    }
    false
}

fn manifest() -> Answer {
    Answer::new(200).with("Content-Type", media_type::OCI_INDEX).body(INDEX)
}
