//! Deleting tags, manifests and blobs, as distribution does: a manifest goes even if an index of its repository names it. What
//! another repository needs stays, for that one.
//!
//! A tag goes in constant time. To see whether content is needed, all listed manifests are read, one after the other: nothing of
//! them is kept.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;

use crate::oci::{Digest, Repository, Tag};

use super::answer::{Refusal, build};
use super::names::Change;
use super::request::Target;
use super::shelf::Shelf;
use super::writer::{Turn, Writer};

/// DELETE of a tag (its manifest stays, by digest) or of a manifest with all its tags. `registry` is the one that the client means
/// (`?ns=`).
pub async fn manifest(
    shelf: &Arc<Shelf>,
    name: String,
    registry: Option<&str>,
    target: Target,
) -> Result<Response, Refusal> {
    let registry = registry.map(str::to_owned);
    let work = move |shelf: &Shelf, writer: &Writer, turn: &mut Turn| {
        let repository = shelf.names().recorded(&name, registry.as_deref());
        let is_known = |repository: &Repository| match &target {
            // What has no name belongs to every repository.
            Target::Digest(digest) if shelf.names().lists_in(repository, digest) => true,
            _ => shelf.has_had(repository),
        };
        let repository = repository.filter(is_known);
        let repository = repository.ok_or_else(|| Refusal::unknown_name(&name))?;
        match target {
            Target::Tag(tag) => untag(shelf, writer, turn, repository, tag),
            // What was part of an index that is gone has no name any more; it is read by its digest, and deleted by it.
            Target::Digest(digest) => unlist(shelf, writer, turn, repository, digest),
        }
    };
    changed(shelf, work).await
}

/// DELETE of a blob that no listed manifest needs.
pub async fn blob(shelf: &Arc<Shelf>, digest: Digest) -> Result<Response, Refusal> {
    let work = move |shelf: &Shelf, writer: &Writer, _: &mut Turn| {
        if shelf.slice(&digest)?.is_none() {
            return Err(Refusal::unknown_blob(&digest));
        }
        let listed: Vec<Digest> = shelf.names().listed().collect();
        if shelf.is_needed(&digest, listed)? {
            let text = format!("{digest} belongs to an image; delete its manifests first");
            return Err(Refusal::new(403, "DENIED", text));
        }
        Ok(writer.remove(&digest)?)
    };
    changed(shelf, work).await
}

fn untag(shelf: &Shelf, writer: &Writer, turn: &mut Turn, repository: Repository, tag: Tag) -> Result<(), Refusal> {
    if shelf.names().digest_in(&repository, &tag).is_none() {
        return Err(Refusal::unknown_manifest(&tag));
    }
    Ok(writer.commit(turn, &Change::Untag { repository, tag })?)
}

fn unlist(
    shelf: &Shelf,
    writer: &Writer,
    turn: &mut Turn,
    repository: Repository,
    digest: Digest,
) -> Result<(), Refusal> {
    let is_listed = shelf.names().lists_in(&repository, &digest);
    // What is damaged or lost can be deleted too, where it is listed.
    let is_there = is_listed || shelf.manifest(&digest)?.is_some();
    if !is_there || shelf.names().is_deleted(&repository, &digest) {
        return Err(Refusal::unknown_manifest(&digest));
    }
    // An index of this repository may name it: it was asked to go all the same. Another repository keeps what it has.
    let others: Vec<Digest> = shelf.names().listed_without(&repository, &digest).collect();
    let stays = shelf.is_needed(&digest, others)?;
    if stays {
        shelf.check_room_to_delete()?;
    }
    shelf.note_emptied(&repository);
    writer.commit(turn, &Change::Delete { repository, digest, kept: stays })?;
    if stays { Ok(()) } else { Ok(writer.remove(&digest)?) }
}

/// One change at a time; 202 when it is done.
async fn changed(
    shelf: &Arc<Shelf>,
    work: impl FnOnce(&Shelf, &Writer, &mut Turn) -> Result<(), Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let shelf = Arc::clone(shelf);
    let change = move || {
        let writer = shelf.writer().ok_or_else(Refusal::read_only)?;
        work(&shelf, writer, &mut writer.turn())
    };
    tokio::task::spawn_blocking(change).await.map_err(|e| Refusal::new(503, "UNKNOWN", e.to_string()))??;
    build(202, &[], Body::empty())
}
