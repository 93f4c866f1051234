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
use super::catalog::Catalog;
use super::names::Change;
use super::request::Target;
use super::writer::{Turn, Writer};

/// DELETE of a tag (its manifest stays, by digest) or of a manifest with all its tags. `registry` is the one that the client means
/// (`?ns=`).
pub async fn manifest(
    catalog: &Arc<Catalog>,
    name: String,
    registry: Option<&str>,
    target: Target,
) -> Result<Response, Refusal> {
    let registry = registry.map(str::to_owned);
    let work = move |catalog: &Catalog, writer: &Writer, turn: &mut Turn| {
        let repository = catalog.names().recorded(&name, registry.as_deref());
        let is_known = |repository: &Repository| match &target {
            // What has no name belongs to every repository.
            Target::Digest(digest) if catalog.names().lists_in(repository, digest) => true,
            _ => catalog.has_had(repository),
        };
        let repository = repository.filter(is_known);
        let repository = repository.ok_or_else(|| Refusal::unknown_name(&name))?;
        match target {
            Target::Tag(tag) => untag(catalog, writer, turn, repository, tag),
            // What was part of an index that is gone has no name any more; it is read by its digest, and deleted by it.
            Target::Digest(digest) => unlist(catalog, writer, turn, repository, digest),
        }
    };
    changed(catalog, work).await
}

/// DELETE of a blob that no listed manifest needs.
pub async fn blob(catalog: &Arc<Catalog>, digest: Digest) -> Result<Response, Refusal> {
    let work = move |catalog: &Catalog, writer: &Writer, _: &mut Turn| {
        if catalog.slice(&digest)?.is_none() {
            return Err(Refusal::unknown_blob(&digest));
        }
        let listed: Vec<Digest> = catalog.names().listed().collect();
        if catalog.is_needed(&digest, listed)? {
            let text = format!("{digest} belongs to an image; delete its manifests first");
            return Err(Refusal::new(403, "DENIED", text));
        }
        Ok(writer.remove(&digest)?)
    };
    changed(catalog, work).await
}

fn untag(catalog: &Catalog, writer: &Writer, turn: &mut Turn, repository: Repository, tag: Tag) -> Result<(), Refusal> {
    if catalog.names().digest_in(&repository, &tag).is_none() {
        return Err(Refusal::unknown_manifest(&tag));
    }
    Ok(writer.commit(turn, &Change::Untag { repository, tag })?)
}

fn unlist(
    catalog: &Catalog,
    writer: &Writer,
    turn: &mut Turn,
    repository: Repository,
    digest: Digest,
) -> Result<(), Refusal> {
    let is_listed = catalog.names().lists_in(&repository, &digest);
    // What is damaged or lost can be deleted too, where it is listed.
    let is_there = is_listed || catalog.manifest(&digest)?.is_some();
    if !is_there || catalog.names().is_deleted(&repository, &digest) {
        return Err(Refusal::unknown_manifest(&digest));
    }
    // An index of this repository may name it: it was asked to go all the same. Another repository keeps what it has.
    let others: Vec<Digest> = catalog.names().listed_without(&repository, &digest).collect();
    let stays = catalog.is_needed(&digest, others)?;
    if stays {
        catalog.check_room_to_delete()?;
    }
    catalog.note_emptied(&repository);
    writer.commit(turn, &Change::Delete { repository, digest, kept: stays })?;
    if stays { Ok(()) } else { Ok(writer.remove(&digest)?) }
}

/// One change at a time; 202 when it is done.
async fn changed(
    catalog: &Arc<Catalog>,
    work: impl FnOnce(&Catalog, &Writer, &mut Turn) -> Result<(), Refusal> + Send + 'static,
) -> Result<Response, Refusal> {
    let catalog = Arc::clone(catalog);
    let change = move || {
        let writer = catalog.writer().ok_or_else(Refusal::read_only)?;
        work(&catalog, writer, &mut writer.turn())
    };
    tokio::task::spawn_blocking(change).await.map_err(|e| Refusal::new(503, "UNKNOWN", e.to_string()))??;
    build(202, &[], Body::empty())
}
