//! Manifests that are pushed. A manifest is accepted only if everything it points to exists, so that everything with a name
//! can be pulled.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, header};
use axum::response::Response;

use crate::oci::{Digest, MAX_MANIFEST_SIZE, Manifest, ManifestError, Repository, Role};

use super::answer::{RequestRefusal, build};
use super::catalog::Catalog;
use super::names::Change;
use super::request::ManifestReference;

/// PUT of a manifest under a tag or its digest, with at most `most` bytes. `registry` is the one the client means (`?ns=`);
/// the manifest is recorded under it.
pub async fn put(
    catalog: &Arc<Catalog>,
    name: String,
    registry: Option<&str>,
    target: ManifestReference,
    most: u64,
    request: Request<Body>,
) -> Result<Response, RequestRefusal> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.map(str::to_owned);
    let limit = most.min(MAX_MANIFEST_SIZE);
    let too_large = |e| {
        let text = format!("the manifest broke off or has more than {limit} bytes: {e}");
        RequestRefusal::new(413, "SIZE_INVALID", text)
    };
    let bytes = axum::body::to_bytes(request.into_body(), usize::try_from(limit).unwrap_or(usize::MAX))
        .await
        .map_err(too_large)?;
    let expected = match &target {
        ManifestReference::Digest(digest) => Some(*digest),
        ManifestReference::Tag(_) => None,
    };
    let manifest = Manifest::parse(bytes, media_type.as_deref(), expected.as_ref()).map_err(|e| refused(&e))?;
    let repository = catalog.names().recorded(&name, registry).ok_or_else(|| RequestRefusal::unknown_name(&name))?;
    let (own, parsed) = (Arc::clone(catalog), manifest.clone());
    let change = move || record(&own, repository, target, &parsed);
    tokio::task::spawn_blocking(change).await.map_err(|e| RequestRefusal::new(503, "UNKNOWN", e.to_string()))??;
    let digest = manifest.digest().to_string();
    let place = format!("/v2/{name}/manifests/{digest}");
    let subject = manifest.subject().map(|subject| subject.digest.to_string());
    let mut headers = vec![("location", place.as_str()), ("docker-content-digest", digest.as_str())];
    headers.extend(subject.as_deref().map(|subject| ("oci-subject", subject)));
    build(201, &headers, Body::empty())
}

/// Stores the manifest and lists it.
fn record(
    catalog: &Catalog,
    repository: Repository,
    target: ManifestReference,
    manifest: &Manifest,
) -> Result<(), RequestRefusal> {
    let writer = catalog.writer().ok_or_else(RequestRefusal::read_only)?;
    let mut turn = writer.turn();
    let children = check_children(catalog, manifest)?;
    if catalog.slice(&manifest.digest())?.is_none() {
        writer.store(&manifest.digest(), &manifest.bytes().map_err(crate::base::Error::from)?)?;
    }
    // Children of an index are not listed themselves.
    let unlisted = catalog.names().listed_untagged(&repository, children);
    let subject = manifest.subject().map(|subject| subject.digest);
    let (listed, digest) = (manifest.descriptor(), manifest.digest());
    let change = match target {
        ManifestReference::Tag(tag) => Change::Tag { repository, tag, manifest: listed, unlisted },
        ManifestReference::Digest(_) => Change::List { repository, manifest: listed, subject, unlisted },
    };
    writer.commit(&mut turn, &change)?;
    subject.inspect(|subject| catalog.referrers.note(digest, *subject));
    Ok(())
}

/// Checks that everything the manifest points to exists, blobs with the stated size. Returns the manifests among it, of which
/// only the digest matters, as everywhere.
fn check_children(catalog: &Catalog, manifest: &Manifest) -> Result<Vec<Digest>, RequestRefusal> {
    let mut manifests = Vec::new();
    for child in manifest.children() {
        let wanted = child.descriptor;
        match catalog.slice(&wanted.digest)? {
            Some(slice) if slice.size() != wanted.size && child.role != Role::Manifest => {
                let text = format!("{} has {} bytes here, not {}", wanted.digest, slice.size(), wanted.size);
                return Err(RequestRefusal::new(400, "MANIFEST_INVALID", text));
            }
            None if child.role != Role::ForeignLayer => {
                let text = format!("{} does not exist; push it first", wanted.digest);
                return Err(RequestRefusal::new(400, "MANIFEST_BLOB_UNKNOWN", text));
            }
            _ => {}
        }
        if child.role == Role::Manifest {
            manifests.push(wanted.digest);
        }
    }
    Ok(manifests)
}

fn refused(error: &ManifestError) -> RequestRefusal {
    match error {
        ManifestError::TooLarge(_) | ManifestError::TooManyChildren(_) | ManifestError::TooLong { .. } => {
            RequestRefusal::new(413, "SIZE_INVALID", error.to_string())
        }
        // Over parallel requests.
        ManifestError::TooManyInAll => {
            let text = "too many manifests with too many layers arrive at once; send it again";
            RequestRefusal::new(429, "TOOMANYREQUESTS", text).with("retry-after", "1")
        }
        ManifestError::Digest { .. } => RequestRefusal::new(400, "DIGEST_INVALID", error.to_string()),
        ManifestError::Malformed { .. }
        | ManifestError::Schema1
        | ManifestError::MediaType(_)
        | ManifestError::Ambiguous(_)
        | ManifestError::MediaTypeConflict { .. } => RequestRefusal::new(400, "MANIFEST_INVALID", error.to_string()),
    }
}
