//! Deleting tags, manifests and blobs. What another image still needs stays.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;

use crate::oci::{Digest, Repository, Tag};

use super::answer::{Refusal, build};
use super::request::Target;
use super::shelf::Shelf;

/// DELETE of a tag (its manifest stays, by digest) or of a manifest with all its tags.
pub async fn manifest(shelf: &Arc<Shelf>, name: String, target: Target) -> Result<Response, Refusal> {
    let work = move |shelf: &Shelf| {
        let names = shelf.names();
        let known = names.tags(&name).is_some();
        let repository = names.recorded(&name).filter(|_| known).ok_or_else(|| Refusal::unknown_name(&name))?;
        match &target {
            Target::Tag(tag) => untag(shelf, &repository, tag),
            Target::Digest(digest) => unlist(shelf, &repository, digest),
        }
    };
    changed(shelf, work).await
}

/// DELETE of a blob that no listed manifest needs.
pub async fn blob(shelf: &Arc<Shelf>, digest: Digest) -> Result<Response, Refusal> {
    let work = move |shelf: &Shelf| {
        let writer = shelf.writer().ok_or_else(Refusal::read_only)?;
        if shelf.slice(&digest)?.is_none() {
            return Err(Refusal::unknown_blob(&digest));
        }
        if shelf.reachable(&shelf.names())?.contains(&digest) {
            let text = format!("{digest} belongs to an image; delete its manifests first");
            return Err(Refusal::new(403, "DENIED", text));
        }
        Ok(writer.remove(&digest)?)
    };
    changed(shelf, work).await
}

fn untag(shelf: &Shelf, repository: &Repository, tag: &Tag) -> Result<(), Refusal> {
    let writer = shelf.writer().ok_or_else(Refusal::read_only)?;
    let mut names = (*shelf.names()).clone();
    if !names.remove_tag(repository, tag) {
        return Err(Refusal::unknown_manifest(tag));
    }
    Ok(writer.publish(shelf, names)?)
}

fn unlist(shelf: &Shelf, repository: &Repository, digest: &Digest) -> Result<(), Refusal> {
    let writer = shelf.writer().ok_or_else(Refusal::read_only)?;
    if shelf.manifest(digest)?.is_none() {
        return Err(Refusal::unknown_manifest(digest));
    }
    let mut names = (*shelf.names()).clone();
    let listed = names.remove_digest(repository, digest);
    let needed = shelf.reachable(&names)?.contains(digest);
    if needed && !listed {
        let text = format!("{digest} belongs to an index or to another repository; delete that first");
        return Err(Refusal::new(403, "DENIED", text));
    }
    writer.publish(shelf, names)?;
    if !needed {
        writer.remove(digest)?;
    }
    Ok(())
}

/// One change at a time; 202 when it is done.
async fn changed(
    shelf: &Arc<Shelf>,
    work: impl FnOnce(&Shelf) -> Result<(), Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let shelf = Arc::clone(shelf);
    let change = move || {
        let writer = shelf.writer().ok_or_else(Refusal::read_only)?;
        let _turn = writer.turn();
        writer.unseal()?;
        work(&shelf)
    };
    tokio::task::spawn_blocking(change).await.map_err(|e| Refusal::new(503, "UNKNOWN", e.to_string()))??;
    build(202, &[], Body::empty())
}
