//! Deletes tags, manifests and blobs like distribution: a manifest is deleted even if an index of its repository lists it.
//! What another repository needs is kept for that one.
//!
//! Deleting a tag takes constant time. To find out whether content is needed, all listed manifests are read one by one, and
//! nothing of them is kept.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;

use crate::oci::{Digest, Repository, Tag};

use super::answer::{RequestRefusal, build};
use super::catalog::Catalog;
use super::names::Change;
use super::request::ManifestReference;
use super::writer::{LayoutWriter, WriteTurn};

/// DELETE of a tag (its manifest stays, by digest) or of a manifest with all its tags. `registry` is the one the client means
/// (`?ns=`).
pub async fn manifest(
    catalog: &Arc<Catalog>,
    name: String,
    registry: Option<&str>,
    target: ManifestReference,
) -> Result<Response, RequestRefusal> {
    let registry = registry.map(str::to_owned);
    let work = move |catalog: &Catalog, writer: &LayoutWriter, turn: &mut WriteTurn| {
        let repository = catalog.names().recorded(&name, registry.as_deref());
        let is_known = |repository: &Repository| match &target {
            // Content without a name belongs to every repository.
            ManifestReference::Digest(digest) if catalog.names().lists_in(repository, digest) => true,
            _ => catalog.has_had(repository),
        };
        let repository = repository.filter(is_known);
        let repository = repository.ok_or_else(|| RequestRefusal::unknown_name(&name))?;
        match target {
            ManifestReference::Tag(tag) => untag(catalog, writer, turn, repository, tag),
            // A part of a deleted index has no name; it is read and deleted by its digest.
            ManifestReference::Digest(digest) => unlist(catalog, writer, turn, repository, digest),
        }
    };
    changed(catalog, work).await
}

/// DELETE of a blob that no listed manifest needs.
pub async fn blob(catalog: &Arc<Catalog>, digest: Digest) -> Result<Response, RequestRefusal> {
    let work = move |catalog: &Catalog, writer: &LayoutWriter, _: &mut WriteTurn| {
        if catalog.slice(&digest)?.is_none() {
            return Err(RequestRefusal::unknown_blob(&digest));
        }
        let listed: Vec<Digest> = catalog.names().listed().collect();
        if catalog.is_needed(&digest, listed)? {
            let text = format!("{digest} belongs to an image; delete its manifests first");
            return Err(RequestRefusal::new(403, "DENIED", text));
        }
        Ok(writer.remove(&digest)?)
    };
    changed(catalog, work).await
}

fn untag(
    catalog: &Catalog,
    writer: &LayoutWriter,
    turn: &mut WriteTurn,
    repository: Repository,
    tag: Tag,
) -> Result<(), RequestRefusal> {
    if catalog.names().digest_in(&repository, &tag).is_none() {
        return Err(RequestRefusal::unknown_manifest(&tag));
    }
    Ok(writer.commit(turn, &Change::Untag { repository, tag })?)
}

fn unlist(
    catalog: &Catalog,
    writer: &LayoutWriter,
    turn: &mut WriteTurn,
    repository: Repository,
    digest: Digest,
) -> Result<(), RequestRefusal> {
    let is_listed = catalog.names().lists_in(&repository, &digest);
    // Damaged or lost content can be deleted too, if it is listed.
    let is_there = is_listed || catalog.manifest(&digest)?.is_some();
    if !is_there || catalog.names().is_deleted(&repository, &digest) {
        return Err(RequestRefusal::unknown_manifest(&digest));
    }
    // An index of this repository may list it; it is deleted anyway. Other repositories keep what they have.
    let others: Vec<Digest> = catalog.names().listed_without(&repository, &digest).collect();
    let stays = catalog.is_needed(&digest, others)?;
    if stays {
        catalog.check_room_to_delete()?;
    }
    catalog.note_emptied(&repository);
    writer.commit(turn, &Change::Delete { repository, digest, kept: stays })?;
    if stays { Ok(()) } else { Ok(writer.remove(&digest)?) }
}

/// Makes one change at a time; answers 202 when it is done.
async fn changed(
    catalog: &Arc<Catalog>,
    work: impl FnOnce(&Catalog, &LayoutWriter, &mut WriteTurn) -> Result<(), RequestRefusal> + Send + 'static,
) -> Result<Response, RequestRefusal> {
    let catalog = Arc::clone(catalog);
    let change = move || {
        let writer = catalog.writer().ok_or_else(RequestRefusal::read_only)?;
        work(&catalog, writer, &mut writer.turn())
    };
    tokio::task::spawn_blocking(change).await.map_err(|e| RequestRefusal::new(503, "UNKNOWN", e.to_string()))??;
    build(202, &[], Body::empty())
}
