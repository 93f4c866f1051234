//! Tags through Harbor's own API, for cases in which the distribution protocol does not delete them or a policy forbids
//! reading them.

use serde::Deserialize;

use crate::base::error::{Error, Kind, Result};
use crate::content::{Account, Api, ApiRequest};
use crate::oci::{Digest, Reference, Repository};

use super::{Client, json, message};

/// Returns the digest of the tag if this account may read artifacts, even if a policy of the project forbids pulling
/// (Harbor API 2.0, `GET /projects/{project}/repositories/{repository}/artifacts/{reference}`). `None` if Harbor does
/// not say.
///
/// # Errors
/// Harbor did not answer.
pub async fn tag_digest(api: &dyn Api, tag: &Reference) -> Result<Option<Digest>> {
    Ok(artifact(api, tag).await?.map(|artifact| artifact.digest))
}

/// What Harbor's API says about a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub digest: Digest,
    /// Empty if Harbor does not say.
    pub media_type: String,
    /// For an index, the manifests that it names.
    pub children: Vec<Digest>,
}

/// Does the same for a tag or digest, with its children.
///
/// # Errors
/// Harbor did not answer.
pub async fn artifact(api: &dyn Api, reference: &Reference) -> Result<Option<Artifact>> {
    #[derive(Deserialize)]
    struct Answer {
        digest: Digest,
        #[serde(default)]
        manifest_media_type: String,
        references: Option<Vec<Child>>,
    }
    #[derive(Deserialize)]
    struct Child {
        child_digest: Digest,
    }
    let name = match (&reference.tag, reference.digest) {
        (_, Some(digest)) => digest.to_string(),
        (Some(tag), None) => tag.to_string(),
        (None, None) => return Ok(None),
    };
    let Some(path) = artifact_path(reference, Some(&name)) else { return Ok(None) };
    let headers = vec![("X-Is-Resource-Name", "true".to_owned())];
    let client = Client { api, account: Account::of(&reference.repository) };
    let answer = client.call(ApiRequest { method: "GET", path, headers, json: None }).await?;
    Ok(json::<Answer>(&answer).map(|Answer { digest, manifest_media_type, references }| {
        let children = references.unwrap_or_default().into_iter().map(|child| child.child_digest).collect();
        Artifact { digest, media_type: manifest_media_type, children }
    }))
}

/// `None` if the repository belongs to no project.
fn artifact_path(tag: &Reference, artifact: Option<&str>) -> Option<String> {
    let (project, repository) = tag.repository.in_project()?;
    // Harbor requires a slash in a repository's name to be escaped twice.
    let repository = repository.replace('/', "%252F");
    Some(format!("/api/v2.0/projects/{project}/repositories/{repository}/artifacts/{}", artifact?))
}

/// Removes the tag from the artifact `digest`, which stays, with its other tags or without any (Harbor API 2.0, `DELETE
/// /projects/{project}/repositories/{repository}/artifacts/{reference}/tags/{tag}`). `false` if the repository belongs
/// to no project, so that no request was sent.
///
/// # Errors
/// Harbor refuses: no right, or an immutable tag.
pub async fn delete_tag(api: &dyn Api, tag: &Reference, digest: &Digest) -> Result<bool> {
    let named = artifact_path(tag, Some(&digest.to_string())).zip(tag.tag.as_ref());
    let Some((artifact, name)) = named else { return Ok(false) };
    delete(api, tag, format!("{artifact}/tags/{name}"), "tags").await.map(|()| true)
}

/// Deletes the artifact `digest` of the repository, with its tags (Harbor API 2.0, `DELETE
/// /projects/{project}/repositories/{repository}/artifacts/{reference}`). `false` if the repository belongs to no
/// project, so that no request was sent.
///
/// # Errors
/// Harbor refuses: no right, or an immutable tag.
pub async fn delete_artifact(api: &dyn Api, repository: &Repository, digest: &Digest) -> Result<bool> {
    let reference = repository.with_digest(*digest);
    let Some(path) = artifact_path(&reference, Some(&digest.to_string())) else { return Ok(false) };
    delete(api, &reference, path, "artifacts").await.map(|()| true)
}

/// `kind` is what the account needs the right to delete.
async fn delete(api: &dyn Api, what: &Reference, path: String, kind: &str) -> Result<()> {
    let headers = vec![("X-Is-Resource-Name", "true".to_owned())];
    let client = Client { api, account: Account::of(&what.repository) };
    let answer = client.call(ApiRequest { method: "DELETE", path, headers, json: None }).await?;
    match answer.status {
        200 | 204 | 404 => Ok(()),
        status => {
            let answer_text = message(&answer.body).unwrap_or_default();
            let error = if status == 401 { Kind::Unauthorized } else { Kind::Refused };
            let right =
                if status == 403 { format!("; this account needs the right to delete {kind}") } else { String::new() };
            Err(Error::new(error, format!("deleting {what}: Harbor answers {status}: {answer_text}{right}")))
        }
    }
}
