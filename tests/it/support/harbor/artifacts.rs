//! Harbor's artifact API. An artifact that refers to another one is its accessory: neither it nor its tag is listed
//! separately.

use gapferry::oci::{Digest, Role};
use serde_json::{Value, json};

use super::answer::{json, refuse};
use super::manifests::find;
use super::{Answer, Call, Project, Repo, State, Stored};

/// The artifact that a manifest is an accessory of: its subject, or the image named by cosign's tag.
pub fn subject_of(held: &Repo, stored: &Stored) -> Option<Digest> {
    let digest = stored.manifest.digest();
    let by_tag = || {
        let mut tags = held.tags.iter().filter(|(_, meant)| **meant == digest);
        tags.find_map(|(tag, _)| tag.strip_suffix(".sig")?.replacen('-', ":", 1).parse().ok())
    };
    stored.manifest.subject().map(|subject| subject.digest).or_else(by_tag)
}

/// The accessories of `subject`.
pub fn accessories<'a>(held: &'a Repo, subject: &Digest) -> impl Iterator<Item = &'a Stored> {
    held.manifests.values().filter(move |stored| subject_of(held, stored) == Some(*subject))
}

/// GET of `/projects/{name}/repositories/{name, slashes escaped twice}/artifacts` and of one of them, by tag or digest.
pub fn answer(state: &State, call: &Call, project: &Project, rest: &str) -> Answer {
    let parts: Vec<&str> = rest.split('/').collect();
    let (name, reference) = match parts[..] {
        [name, "artifacts"] => (name, None),
        [name, "artifacts", reference] => (name, Some(reference)),
        _ => return refuse(404, "NOT_FOUND", "the path is not found"),
    };
    let name = format!("{}/{}", project.name, name.replace("%252F", "/"));
    let Some(held) = state.repositories.get(&name) else {
        return refuse(404, "NOT_FOUND", &format!("repository {name} not found"));
    };
    let with_accessories = call.parameter("with_accessory") == Some("true");
    let shown = |stored: &Stored| artifact(held, &name, stored, with_accessories);
    match reference.map(|reference| (reference, find(held, reference))) {
        None => json(200, held.manifests.values().filter(|stored| is_listed(held, stored)).map(shown).collect()),
        Some((_, Some(stored))) => json(200, shown(stored)),
        Some((reference, None)) => refuse(404, "NOT_FOUND", &format!("artifact {name}:{reference} not found")),
    }
}

/// Whether the artifact is neither an accessory nor a child of an index.
fn is_listed(held: &Repo, stored: &Stored) -> bool {
    let digest = stored.manifest.digest();
    let names_it = |other: &Stored| other.manifest.children().iter().any(|child| child.descriptor.digest == digest);
    subject_of(held, stored).is_none() && !held.manifests.values().any(names_it)
}

fn artifact(held: &Repo, name: &str, stored: &Stored, with_accessories: bool) -> Value {
    let digest = stored.manifest.digest();
    let tags = held.tags.iter().filter(|(_, meant)| **meant == digest);
    let tags: Vec<Value> = tags.map(|(tag, _)| json!({"id": 1, "immutable": false, "name": tag})).collect();
    let accessory = |accessory: &Stored| {
        let is_signature = accessory.manifest.subject().is_none()
            || accessory.manifest.artifact_type().is_some_and(|kind| kind.contains("sigstore"));
        let kind = if is_signature { "signature.cosign" } else { "subject.accessory" };
        json!({"digest": accessory.manifest.digest(), "size": accessory.manifest.size(), "type": kind,
               "subject_artifact_digest": digest, "subject_artifact_repo": name})
    };
    let accessories: Vec<Value> = accessories(held, &digest).filter(|_| with_accessories).map(accessory).collect();
    let children = stored.manifest.children().into_iter().filter(|child| child.role == Role::Manifest);
    let children: Vec<Value> =
        children.map(|child| json!({"parent_id": 1, "child_id": 2, "child_digest": child.descriptor.digest})).collect();
    json!({"references": if children.is_empty() { Value::Null } else { children.into() },
           "digest": digest, "manifest_media_type": stored.media_type, "repository_name": name, "type": "IMAGE",
           "size": stored.manifest.size(), "tags": if tags.is_empty() { Value::Null } else { tags.into() },
           "accessories": if accessories.is_empty() { Value::Null } else { accessories.into() }})
}
