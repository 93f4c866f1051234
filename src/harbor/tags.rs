//! Deleting a tag: Harbor does not do so through the distribution protocol.

use crate::content::{Api, ApiRequest};
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, Reference};

use super::{Client, message};

/// Takes the tag away from the artifact `digest`, which stays, under its other tags or without any (Harbor API 2.0,
/// `DELETE /projects/{project}/repositories/{repository}/artifacts/{reference}/tags/{tag}`). `false`: it has no such name.
///
/// # Errors
/// Harbor refuses: no right, or an immutable tag.
pub async fn delete_tag(api: &dyn Api, tag: &Reference, digest: &Digest) -> Result<bool> {
    let named = tag.repository.path().split_once('/').zip(tag.tag.as_ref());
    let Some(((project, repository), name)) = named else { return Ok(false) };
    // A slash in a repository's name is escaped twice, as Harbor wants it.
    let repository = repository.replace('/', "%252F");
    let path = format!("/api/v2.0/projects/{project}/repositories/{repository}/artifacts/{digest}/tags/{name}");
    let headers = vec![("X-Is-Resource-Name", "true".to_owned())];
    let client = Client { api, registry: tag.repository.registry() };
    let answer = client.call(ApiRequest { method: "DELETE", path, headers, json: None }).await?;
    match answer.status {
        200 | 204 | 404 => Ok(true),
        status => {
            let said = message(&answer.body).unwrap_or_default();
            let kind = if status == 401 { Kind::Unauthorized } else { Kind::Refused };
            Err(Error::new(kind, format!("deleting {tag}: Harbor answers {status}: {said}")))
        }
    }
}
