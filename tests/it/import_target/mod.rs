//! Imports into a registry that lacks content it claims to have: a tag that exists can still be pulled, or the run
//! fails and says why.

mod lacking;
mod proven;
mod refused;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use crate::support::embedded::Embedded;
use crate::support::faulty::{Answer, Fault, Proxy, Seen, Server, Stage, exchange};
use crate::support::images::{self, Image};
use crate::support::registry::{Options, Registry};
use crate::support::{cosign, gapferry, sha256, tempdir};

fn export(source: &Registry, images: &[&Image], directory: &Path) -> PathBuf {
    images.iter().for_each(|image| image.push(source));
    let out = directory.join("bundle.tar");
    let references = images.iter().map(|image| format!("{}/{}", source.host(), image.name()));
    gapferry().arg("export").args(references).arg("-o").arg(&out).assert().success();
    out
}

fn import(bundle: &Path, to: &str, options: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        gapferry().arg("import").arg(bundle).args(["--to", to]).args(options).output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// Whether the request reads or checks the blob `digest`, rather than uploading it.
fn asks_for_blob(request: &Seen, digest: &str) -> bool {
    matches!(&*request.method, "HEAD" | "GET") && request.target.ends_with(&format!("/blobs/{digest}"))
}

/// Whether this request ends an upload of `digest`.
fn uploads(request: &Seen, digest: &str) -> bool {
    request.method == "PUT" && request.target.contains("/blobs/uploads/") && request.target.contains(&digest[7..])
}

fn uploads_of(server: &Server, digest: &str) -> usize {
    server.seen().iter().filter(|request| uploads(request, digest)).count()
}

fn claimed(content: &[u8], request: &Seen) -> Answer {
    let size = content.len();
    match request.header("range") {
        "" => Answer::new(200).body(content),
        _ => Answer::new(206)
            .with("Content-Range", format!("bytes {}-{}/{size}", size - 1, size - 1))
            .body(&content[size - 1..]),
    }
}
