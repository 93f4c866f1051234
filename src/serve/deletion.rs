//! Deleting tags, manifests and blobs, as distribution does: a manifest goes even if an index of its repository names it. What
//! another repository needs stays, for that one.

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
        let repository = names.recorded(&name).ok_or_else(|| Refusal::unknown_name(&name))?;
        match &target {
            Target::Tag(_) if names.tags(&name, None).is_none() => Err(Refusal::unknown_name(&name)),
            Target::Tag(tag) => untag(shelf, &repository, tag),
            // What was part of an index that is gone has no name any more; it is read by its digest, and deleted by it.
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
    if shelf.manifest(digest)?.is_none() || shelf.is_deleted(&repository.to_string(), digest) {
        return Err(Refusal::unknown_manifest(digest));
    }
    let mut names = (*shelf.names()).clone();
    if names.remove_digest(repository, digest) {
        writer.publish(shelf, names)?;
    }
    // An index of this repository may name it: it was asked to go all the same. Another repository keeps what it has.
    if shelf.reachable(&shelf.names().without(repository))?.contains(digest) {
        shelf.note_deleted(repository, digest);
        return Ok(());
    }
    Ok(writer.remove(digest)?)
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
        work(&shelf)
    };
    tokio::task::spawn_blocking(change).await.map_err(|e| Refusal::new(503, "UNKNOWN", e.to_string()))??;
    build(202, &[], Body::empty())
}
