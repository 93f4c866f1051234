//! Manifests, tags and referrers: stored like distribution 2.8, guarded by immutability and quota like Harbor.

use axum::http::{Method, header};
use gapferry::oci::{Digest, MAX_MANIFEST_SIZE, Manifest, Role, media_type};
use serde_json::json;

use super::answer::{bytes, empty, header as with_header, json, refuse};
use super::artifacts::{accessories, subject_of};
use super::blobs::{charge, in_collection, project_of};
use super::{Answer, Call, Repo, Row, State, Stored};

pub fn answer(state: &mut State, call: &Call, repository: &str, reference: &str) -> Answer {
    match call.method {
        Method::GET | Method::HEAD => get(state, call, repository, reference),
        Method::PUT => put(state, call, repository, reference),
        Method::DELETE => delete(state, repository, reference),
        _ => refuse(405, "UNSUPPORTED", "The operation is unsupported."),
    }
}

pub fn find<'a>(repository: &'a Repo, reference: &str) -> Option<&'a Stored> {
    let digest = match reference.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => *repository.tags.get(reference)?,
    };
    repository.manifests.get(&digest)
}

fn get(state: &State, call: &Call, repository: &str, reference: &str) -> Answer {
    let Some(stored) = state.repositories.get(repository).and_then(|repository| find(repository, reference)) else {
        return refuse(404, "NOT_FOUND", &format!("artifact {repository}:{reference} not found"));
    };
    if let Some(why) = not_pullable(state, repository, stored) {
        return refuse(412, "PROJECTPOLICYVIOLATION", why);
    }
    // distribution serves an OCI manifest only to clients that accept its type.
    if stored.media_type.contains(".oci.") && !accepts(call, &stored.media_type) {
        return refuse(404, "MANIFEST_UNKNOWN", "OCI manifest found, but accept header does not support OCI manifests");
    }
    let answer = bytes(200, &stored.media_type, stored.manifest.bytes().unwrap());
    with_header(answer, "docker-content-digest", stored.manifest.digest().to_string())
}

/// The policy that forbids pulling the manifest, if any. Accessories can always be pulled.
fn not_pullable(state: &State, repository: &str, stored: &Stored) -> Option<&'static str> {
    let (project, held) = (state.projects.get(project_of(repository))?, state.repositories.get(repository)?);
    if subject_of(held, stored).is_some() {
        return None;
    }
    let is_signed = || accessories(held, &stored.manifest.digest()).next().is_some();
    if project.content_trust && !is_signed() {
        return Some("The image is not signed by cosign.");
    }
    let text = "current image without vulnerability scanning cannot be pulled due to configured policy in 'Prevent images with \
                vulnerability severity of \"High\" or higher from running.' To continue with pull, please contact your project \
                administrator for help.";
    project.wants_scan.then_some(text)
}

fn accepts(call: &Call, media_type: &str) -> bool {
    call.headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.contains(media_type)))
}

fn put(state: &mut State, call: &Call, repository: &str, reference: &str) -> Answer {
    let is_digest = reference.parse::<Digest>().ok();
    let project = state.projects.get(project_of(repository));
    let tagged = state.repositories.get(repository).is_some_and(|repository| repository.tags.contains_key(reference));
    if tagged && project.is_some_and(|project| project.is_immutable(reference)) {
        return immutable(repository, reference);
    }
    let invalid = |text: &str| refuse(400, "MANIFEST_INVALID", text);
    if call.body.len() as u64 > MAX_MANIFEST_SIZE {
        return invalid("manifest too large");
    }
    let content_type = call.header(header::CONTENT_TYPE);
    let manifest = match Manifest::parse(call.body.clone(), Some(content_type), is_digest.as_ref()) {
        Ok(manifest) if manifest.media_type() == content_type => manifest,
        Ok(manifest) => return invalid(&format!("content type {content_type}, not {}", manifest.media_type())),
        Err(error) => return invalid(&error.to_string()),
    };
    // Harbor checks only the manifest's own row. Rows of layers stay as they are, so layers being deleted still go.
    if state.rows.get(&manifest.digest()) == Some(&Row::Deleting) {
        return in_collection();
    }
    if let Some(missing) = missing_child(state, repository, &manifest) {
        let detail = json!({"digest": missing});
        let error = json!({"code": "MANIFEST_BLOB_UNKNOWN", "message": "blob unknown to registry", "detail": detail});
        return json(400, json!({"errors": [error]}));
    }
    let digest = manifest.digest();
    if let Err(refusal) = charge(state, repository, &digest, manifest.size()) {
        return refusal;
    }
    let subject = manifest.subject().map(|subject| subject.digest);
    // Missing rows are created from the manifest.
    for child in manifest.children() {
        if state.rows.get(&child.descriptor.digest) == Some(&Row::Absent) {
            state.rows.remove(&child.descriptor.digest);
        }
    }
    let held = state.repositories.entry(repository.to_owned()).or_default();
    held.manifests.insert(digest, Stored { media_type: content_type.to_owned(), manifest });
    if is_digest.is_none() {
        held.tags.insert(reference.to_owned(), digest);
    }
    let answer = with_header(empty(201), "docker-content-digest", digest.to_string());
    let answer = with_header(answer, "location", format!("/v2/{repository}/manifests/{digest}"));
    match subject.filter(|_| state.setup.version >= (2, 9)) {
        Some(subject) => with_header(answer, "oci-subject", subject.to_string()),
        None => answer,
    }
}

pub fn immutable(repository: &str, tag: &str) -> Answer {
    let name = repository.split_once('/').map_or(repository, |(_, name)| name);
    let text = format!("Failed to process request due to '{name}:{tag}' configured as immutable.");
    refuse(412, "PRECONDITION", &text)
}

/// The first child missing from this repository. Every child of an index must exist: sparse indexes are refused.
fn missing_child(state: &State, repository: &str, manifest: &Manifest) -> Option<Digest> {
    let nothing = Repo::default();
    let held = state.repositories.get(repository).unwrap_or(&nothing);
    let here = |child: &gapferry::oci::Child| match child.role {
        Role::Manifest => held.manifests.contains_key(&child.descriptor.digest),
        Role::ForeignLayer => !child.descriptor.urls().is_empty(),
        Role::Config | Role::Layer => held.blobs.contains(&child.descriptor.digest),
    };
    manifest.children().into_iter().find(|child| !here(child)).map(|child| child.descriptor.digest)
}

fn delete(state: &mut State, repository: &str, reference: &str) -> Answer {
    let project = state.projects.get(project_of(repository)).cloned();
    let unknown = || refuse(404, "NOT_FOUND", &format!("artifact {repository}:{reference} not found"));
    let Some(held) = state.repositories.get_mut(repository) else { return unknown() };
    let Some(digest) = find(held, reference).map(|stored| stored.manifest.digest()) else { return unknown() };
    let kept = |tag: &&String| held.tags[*tag] == digest && project.as_ref().is_some_and(|p| p.is_immutable(tag));
    if let Some(tag) = held.tags.keys().find(kept) {
        return immutable(repository, tag);
    }
    held.manifests.remove(&digest);
    held.tags.retain(|_, tagged| *tagged != digest);
    empty(202)
}

pub fn tags(state: &State, call: &Call, repository: &str) -> Answer {
    let Some(held) = state.repositories.get(repository) else {
        return refuse(404, "NOT_FOUND", &format!("repository {repository} not found"));
    };
    let last = call.parameter("last").unwrap_or("");
    let limit = call.parameter("n").and_then(|n| n.parse::<usize>().ok()).unwrap_or(usize::MAX);
    let mut tags: Vec<&String> = held.tags.keys().filter(|tag| last.is_empty() || tag.as_str() > last).collect();
    let more = tags.len() > limit;
    tags.truncate(limit);
    let next = tags
        .last()
        .filter(|_| more)
        .map(|tag| format!("</v2/{repository}/tags/list?last={tag}&n={limit}>; rel=\"next\""));
    let answer = json(200, json!({"name": repository, "tags": tags}));
    match next {
        Some(next) => with_header(answer, "link", next),
        None => answer,
    }
}

/// Harbor's list of accessories: `{}` for an unknown subject, the config's type as artifact type, and the size of the
/// whole artifact where the specification requires the manifest's.
pub fn referrers(state: &State, call: &Call, repository: &str, subject: &str) -> Answer {
    if state.setup.version < (2, 8) {
        return bytes(404, "text/plain; charset=utf-8", "404 page not found\n".into());
    }
    let Ok(subject) = subject.parse::<Digest>() else {
        return refuse(400, "BAD_REQUEST", &format!("unsupported digest {subject}"));
    };
    let held = state.repositories.get(repository);
    let Some(held) = held.filter(|held| held.manifests.contains_key(&subject)) else {
        return bytes(200, media_type::OCI_INDEX, "{}\n".into());
    };
    let speaks_of_it = |stored: &&Stored| stored.manifest.subject().is_some_and(|named| named.digest == subject);
    let entry = |stored: &Stored| {
        let manifest = &stored.manifest;
        let whole = manifest.size() + manifest.children().iter().map(|child| child.descriptor.size).sum::<u64>();
        let kind = manifest.config().map_or(String::new(), |config| config.media_type.to_string());
        json!({"mediaType": stored.media_type, "digest": manifest.digest(), "size": whole, "artifactType": kind,
               "annotations": manifest.annotations().expect("its bytes")})
    };
    let wanted = call.parameter("artifactType");
    let list: Vec<_> = held.manifests.values().filter(speaks_of_it).map(entry).collect();
    let list: Vec<_> =
        list.into_iter().filter(|entry| wanted.is_none_or(|kind| entry["artifactType"] == kind)).collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": list});
    bytes(200, media_type::OCI_INDEX, index.to_string().into())
}
