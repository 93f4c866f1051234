//! Manifests as other tools write them, and images that are unavailable: what can be carried is carried byte for byte,
//! and the rest is named.

mod keep_going;
mod odd;
mod platforms;
mod repair;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::faulty::{Answer, Seen, Server, ranged};
use crate::support::{gapferry, sha256};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

type Content = Arc<Mutex<BTreeMap<String, (String, Vec<u8>)>>>;

/// A registry that serves whatever was put there, including content that today's registries refuse.
pub struct Source {
    content: Content,
    /// Missing content is refused with a denial.
    is_refusing: Arc<AtomicBool>,
    server: Server,
}

impl Source {
    pub async fn start() -> Source {
        let content = Content::default();
        let is_refusing = Arc::new(AtomicBool::new(false));
        let (shown, refuses) = (content.clone(), is_refusing.clone());
        let server = Server::registry(move |request, _| match answer(&shown.lock().unwrap(), request) {
            absent if absent.status == 404 && refuses.load(Ordering::Relaxed) => Answer::new(403),
            answer => answer,
        });
        Source { content, is_refusing, server: server.await }
    }

    /// Keeps only these digests; everything else is gone, or denied.
    pub fn keep_only(&self, digests: &[String], refuse: bool) {
        self.content.lock().unwrap().retain(|path, _| digests.iter().any(|digest| path.ends_with(digest)));
        self.is_refusing.store(refuse, Ordering::Relaxed);
    }

    /// `HOST/NAME`
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.server.address)
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Value {
        self.put(format!("/v2/{repository}/blobs/{}", sha256(bytes)), "application/octet-stream", bytes);
        json!({"digest": sha256(bytes), "size": bytes.len()})
    }

    /// Stores a manifest by digest, and by `tag` unless that is empty; returns its descriptor.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: &Value) -> Value {
        let bytes = manifest.to_string().into_bytes();
        for reference in [sha256(&bytes).as_str(), tag].iter().filter(|reference| !reference.is_empty()) {
            self.put(format!("/v2/{repository}/manifests/{reference}"), media_type, &bytes);
        }
        json!({"mediaType": media_type, "digest": sha256(&bytes), "size": bytes.len()})
    }

    /// An image for `architecture` with its own layer.
    pub fn put_image(&self, repository: &str, tag: &str, architecture: &str) -> Value {
        let config = json!({"os": "linux", "architecture": architecture, "x": [repository, tag]}).to_string();
        let config = typed(self.put_blob(repository, config.as_bytes()), OCI_CONFIG);
        let layer = format!("layer of {repository}:{tag} for {architecture}");
        let layer = typed(self.put_blob(repository, layer.as_bytes()), OCI_LAYER);
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
        self.put_manifest(repository, tag, OCI_MANIFEST, &manifest)
    }

    pub fn remove(&self, digest: &str) {
        self.content.lock().unwrap().retain(|path, _| !path.ends_with(digest));
    }

    fn put(&self, path: String, media_type: &str, bytes: &[u8]) {
        self.content.lock().unwrap().insert(path, (media_type.to_owned(), bytes.to_owned()));
    }
}

fn answer(content: &BTreeMap<String, (String, Vec<u8>)>, request: &Seen) -> Answer {
    match content.get(&request.target) {
        Some((media_type, bytes)) => ranged(request, bytes).with("Content-Type", media_type),
        None => Answer::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
    }
}

/// Returns `descriptor` with this media type.
pub fn typed(descriptor: Value, media_type: &str) -> Value {
    with(descriptor, json!({"mediaType": media_type}))
}

/// Returns `object` with these fields, which override its own.
pub fn with(mut object: Value, fields: Value) -> Value {
    for (key, value) in fields.as_object().expect("an object") {
        object[key] = value.clone();
    }
    object
}

#[track_caller]
pub fn ends_with(code: i32, arguments: &[&str]) -> Output {
    let output = gapferry().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    let escaped = |text: String| text.contains("\\u000a");
    assert!(!escaped(stdout(&output)) && !escaped(stderr(&output)), "a list in one line: {}", stderr(&output));
    output
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The lock of a bundle.
#[track_caller]
pub fn lock_of(bundle: &str) -> Value {
    let json = std::fs::read(format!("{bundle}/bundle.json")).unwrap();
    serde_json::from_slice::<Value>(&json).unwrap()["lock"].clone()
}
