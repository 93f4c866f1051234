//! Finds signatures whose tags the file of tags does not list: Harbor's API lists the signatures of an image and of an
//! index, but not those of an index's children. The payload names what cosign signed, and the tag follows from that.
//!
//! # Threats
//! Anybody who may push can write a payload. It can only give a tag of cosign to the manifest that contains it, for a
//! subject in the same repository. Existing tags are not replaced. A payload has at most [`MOST_BYTES`].

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::base::error::Result;
use crate::content::{Files, in_parallel};
use crate::oci::{Digest, Kind, Manifest, Repository, Role, Tag};
use crate::transport::storage::{Storage, Tagged};

/// Size limit of a payload in bytes.
const MOST_BYTES: u64 = 64 * 1024;
const SIGNATURE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// The payload of a signature (containers/image, `docs/atomic-signature.md`).
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Signed,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// Returns the missing tags of signatures in the repositories of `named`.
///
/// # Errors
/// The storage cannot be read.
pub fn unnamed(storage: &Storage, named: &[Tagged]) -> Result<Vec<Tagged>> {
    let survey = storage.survey()?;
    let repositories: HashSet<&Repository> = named.iter().map(|tagged| &tagged.repository).collect();
    let known = || survey.tags.iter().chain(named);
    let tags: HashSet<(&Repository, &Tag)> =
        known().filter_map(|it| Some((&it.repository, it.tag.as_ref()?))).collect();
    let meant: HashSet<(&Repository, Digest)> = known().map(|it| (&it.repository, it.digest)).collect();
    let here = survey.repositories.iter().filter(|holding| repositories.contains(&holding.repository));
    let untagged = here.flat_map(|holding| holding.revisions.iter().map(move |digest| (holding, *digest)));
    let untagged: Vec<_> = untagged.filter(|(here, digest)| !meant.contains(&(&here.repository, *digest))).collect();
    let found = in_parallel(&untagged, |(here, digest)| {
        let (subject, signatures) = signed(storage, &here.repository, digest)?;
        here.has(&subject).then(|| (Tag::cosign(&subject, "sig"), signatures))
    });
    // Signing again writes another list that includes the signatures of the former one, so the longest wins.
    let mut lists: HashMap<(&Repository, Tag), (Reverse<usize>, Digest)> = HashMap::new();
    for ((here, digest), found) in untagged.iter().zip(found) {
        let Some((tag, signatures)) = found.filter(|(tag, _)| !tags.contains(&(&here.repository, tag))) else {
            continue;
        };
        let this = (Reverse(signatures), *digest);
        let list = lists.entry((&here.repository, tag)).or_insert(this);
        *list = this.min(*list);
    }
    let tagged = |((repository, tag), (_, digest)): ((&Repository, Tag), (_, Digest))| Tagged {
        repository: repository.clone(),
        tag: Some(tag),
        digest,
    };
    Ok(lists.into_iter().map(tagged).collect())
}

/// Returns the subject of a list of signatures, and the number of signatures. `None` if the manifest is something else or
/// cannot be read.
fn signed(storage: &Storage, repository: &Repository, list: &Digest) -> Option<(Digest, usize)> {
    let manifest = storage.manifest_of(repository, list).ok().flatten()?;
    if manifest.kind() != Kind::Image || manifest.subject().is_some() {
        return None;
    }
    let subjects = subjects(storage, repository, &manifest)?;
    let first = *subjects.first()?;
    subjects.iter().all(|subject| *subject == first).then_some((first, subjects.len()))
}

/// Returns the subject of each layer, or `None` if a layer is not a signature.
fn subjects(storage: &Storage, repository: &Repository, list: &Manifest) -> Option<Vec<Digest>> {
    let layers = list.children().into_iter().filter(|child| child.role != Role::Config);
    let subject = |digest: &Digest| -> Option<Digest> {
        let slice = storage.file(repository, digest).ok().filter(|slice| slice.size() <= MOST_BYTES)?;
        let bytes = slice.read_all(MOST_BYTES).ok()?;
        let payload: Payload = serde_json::from_slice(&bytes).ok()?;
        let is_right = digest.is_of(&bytes);
        is_right.then_some(payload.critical.image.digest)
    };
    let is_signature = |media_type: &str| media_type == SIGNATURE;
    layers
        .map(|layer| is_signature(layer.descriptor.media_type.as_str()).then(|| subject(&layer.descriptor.digest))?)
        .collect()
}
