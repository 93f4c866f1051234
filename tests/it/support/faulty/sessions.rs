//! A registry that keeps the received part of a broken upload and reports its offset, as distribution 3 does
//! (`registry/handlers/blobupload.go`). distribution 2.8, which the other tests use, cancels such an upload.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use gapferry::oci::Digest;

use super::host::{Backend, Host};
use super::{Answer, Seen, Tokens, ranged};

/// Accepts only blobs. See [`Host`] for its controls.
pub struct Sessions {
    host: Host,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    begun: usize,
    uploads: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
}

struct Kept(Arc<Mutex<State>>);

impl Sessions {
    pub fn start() -> Sessions {
        Sessions::new(None)
    }

    /// A registry that requires tokens, which it issues itself.
    pub fn with_tokens() -> Sessions {
        Sessions::new(Some(Tokens::new()))
    }

    fn new(tokens: Option<Tokens>) -> Sessions {
        let state = Arc::new(Mutex::new(State::default()));
        let host = Host::start("127.0.0.1:0", tokens, Box::new(Kept(state.clone()))).expect("a port");
        Sessions { host, state }
    }

    /// The content of a completed blob.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).blobs.get(&digest.to_string()).cloned()
    }

    /// Method and body length of every upload request.
    pub fn asked(&self) -> Vec<(String, usize)> {
        let about = |request: &Seen| request.target.contains("/blobs/");
        self.seen().into_iter().filter(about).map(|request| (request.method, request.body.len())).collect()
    }
}

impl Deref for Sessions {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Backend for Kept {
    fn answer(&self, request: &Seen, _: usize) -> Answer {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        match (request.method.as_str(), path.rsplit_once('/')) {
            ("GET", _) if path == "/v2/" => Answer::new(200),
            ("POST", Some((base, ""))) => state.begin(base),
            ("HEAD", Some((_, digest))) => state.head(digest),
            ("GET", Some((_, name))) => match (state.uploads.get(path), state.blobs.get(name)) {
                (Some(upload), _) => status(204, path, upload.len()),
                (None, Some(blob)) => ranged(request, blob),
                (None, None) => refused(404, "BLOB_UPLOAD_UNKNOWN"),
            },
            ("PATCH", Some(_)) => match state.append(path, query, request) {
                Ok(size) => status(202, path, size),
                Err(refusal) => refusal,
            },
            ("PUT", Some(_)) => match state.append(path, query, request) {
                Ok(_) => state.close(path, query),
                Err(refusal) => refusal,
            },
            _ => refused(405, "UNSUPPORTED"),
        }
    }

    /// The received part is kept.
    fn broken_off(&self, request: &Seen) {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let mut partial = request.clone();
        partial.headers.remove("content-range");
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).append(path, query, &partial);
    }
}

impl State {
    fn begin(&mut self, base: &str) -> Answer {
        self.begun += 1;
        let path = format!("{base}/{}", self.begun);
        self.uploads.insert(path.clone(), Vec::new());
        status(202, &path, 0)
    }

    fn head(&self, digest: &str) -> Answer {
        match self.blobs.get(digest) {
            Some(blob) => Answer::new(200).with("Content-Length", blob.len().to_string()),
            None => Answer::new(404),
        }
    }

    /// Appends the body; returns the upload's new size.
    fn append(&mut self, path: &str, query: &str, request: &Seen) -> Result<usize, Answer> {
        let Some(upload) = self.uploads.get_mut(path) else { return Err(refused(404, "BLOB_UPLOAD_UNKNOWN")) };
        if parameter(query, "_state").parse() != Ok(upload.len()) {
            return Err(refused(416, "RANGE_INVALID"));
        }
        if let Some((first, last)) = request.header("content-range").split_once('-') {
            let (first, last): (usize, usize) = (first.parse().unwrap_or(usize::MAX), last.parse().unwrap_or(0));
            if first > last || first != upload.len() {
                return Err(refused(416, "RANGE_INVALID"));
            }
            if request.body.len() != last - first + 1 {
                return Err(refused(400, "SIZE_INVALID"));
            }
        }
        upload.extend_from_slice(&request.body);
        Ok(upload.len())
    }

    /// Completes the upload; the session ends whatever the result.
    fn close(&mut self, path: &str, query: &str) -> Answer {
        let digest = parameter(query, "digest").replace("%3A", ":");
        let blob = self.uploads.remove(path).unwrap_or_default();
        if Digest::sha256(&blob).to_string() != digest {
            return refused(400, "DIGEST_INVALID");
        }
        self.blobs.insert(digest.clone(), blob);
        Answer::new(201).with("Docker-Content-Digest", digest)
    }
}

fn parameter<'a>(query: &'a str, name: &str) -> &'a str {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map_or("", |(_, value)| value)
}

fn status(status: u16, path: &str, size: usize) -> Answer {
    Answer::new(status)
        .with("Location", format!("{path}?_state={size}"))
        .with("Range", format!("0-{}", size.saturating_sub(1)))
        .with("Docker-Upload-UUID", path.rsplit('/').next().unwrap_or_default())
}

fn refused(status: u16, code: &str) -> Answer {
    Answer::new(status).body(format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#))
}
