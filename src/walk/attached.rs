//! What travels with an image: referrers, and the tags cosign puts beside it.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use super::Walk;
use super::tree::Tree;
use crate::content::Source;
use crate::error::{Error, Result};
use crate::lock::Attached;
use crate::oci::{COSIGN_SUFFIXES, Descriptor, Digest, Manifest, Repository, Tag};
use crate::progress::Event;

/// More companions of one image than anybody has; a bound on what a registry can make us read.
const MAX_ATTACHED: usize = 10_000;
const AT_ONCE: usize = 6;

/// The tags of a repository, `None` where the registry does not list them to us.
pub type KnownTags = Arc<OnceCell<Option<HashSet<Tag>>>>;

/// Finds everything attached to the manifests of `tree`, recursively, and adds it to the tree.
///
/// # Errors
/// Whatever could not be read: only a clear “not there” counts as absent.
pub async fn find(walk: &Walk<'_>, repository: &Repository, tree: &mut Tree) -> Result<Vec<Attached>> {
    let mut subjects: VecDeque<Digest> = tree.digests().into();
    let mut attached: Vec<Attached> = Vec::new();
    while !subjects.is_empty() {
        let round: Vec<Digest> = subjects.drain(..).collect();
        let found: Vec<Vec<Companion>> = stream::iter(round)
            .map(|subject| companions(walk, repository, subject))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for Companion { subject, tag, manifest } in found.into_iter().flatten() {
            if attached.iter().any(|known| known.digest == manifest.digest() && known.tag == tag) {
                continue;
            }
            if attached.len() >= MAX_ATTACHED {
                return Err(Error::damaged(format!("more than {MAX_ATTACHED} manifests are attached to it")));
            }
            attached.push(entry(subject, tag, &manifest));
            if !tree.holds(manifest.digest()) {
                let before = tree.digests().len();
                tree.add(walk.source, repository, manifest).await?;
                subjects.extend(tree.digests().into_iter().skip(before));
            }
        }
    }
    Ok(attached)
}

/// A manifest that speaks of `subject`.
pub struct Companion {
    pub subject: Digest,
    /// Where a tag leads to it.
    pub tag: Option<Tag>,
    pub manifest: Manifest,
}

fn entry(subject: Digest, tag: Option<Tag>, manifest: &Manifest) -> Attached {
    let Descriptor { digest, media_type, size, artifact_type, .. } = manifest.descriptor();
    Attached { digest, media_type, size, subject, tag, artifact_type }
}

/// What is attached to `subject` itself.
///
/// # Errors
/// As [`find`].
pub async fn companions(walk: &Walk<'_>, repository: &Repository, subject: Digest) -> Result<Vec<Companion>> {
    // First what needs the list of tags: the source then knows which fallback lists of referrers cannot exist.
    let by_tag = cosign(walk, repository, subject).await?;
    let mut by_subject = referrers(walk, repository, subject).await?;
    by_subject.retain(|companion| is_referrer(walk, repository, companion, &by_tag));
    by_subject.extend(by_tag);
    Ok(by_subject)
}

/// Whether what is listed as a referrer is one: the target would find it by the subject that its manifest names, and by
/// nothing else. Harbor lists cosign's signatures, which have tags instead.
fn is_referrer(walk: &Walk<'_>, repository: &Repository, listed: &Companion, by_tag: &[Companion]) -> bool {
    let Companion { subject, manifest, .. } = listed;
    let names_it = manifest.subject().is_some_and(|named| named.digest == *subject);
    let digest = manifest.digest();
    if !names_it && by_tag.iter().all(|companion| companion.manifest.digest() != digest) {
        walk.events.report(Event::Warning(format!(
            "{repository}: the registry lists {digest} as a referrer of {subject}, but its manifest does not name that as its \
             subject; it is left out"
        )));
    }
    names_it
}

async fn referrers(walk: &Walk<'_>, repository: &Repository, subject: Digest) -> Result<Vec<Companion>> {
    let attempt = |error: Error| error.while_doing(format!("reading the referrers of {subject}"));
    let mut found = Vec::new();
    for descriptor in walk.source.referrers(repository, &subject).await.map_err(attempt)? {
        match walk.source.manifest(&repository.with_digest(descriptor.digest)).await.map_err(attempt)? {
            Some(manifest) => found.push(Companion { subject, tag: None, manifest }),
            None => walk.events.report(Event::Warning(format!(
                "{repository}: the registry lists {} as a referrer of {subject} but does not have it",
                descriptor.digest
            ))),
        }
    }
    found.sort_by_key(|companion| companion.manifest.digest());
    Ok(found)
}

async fn cosign(walk: &Walk<'_>, repository: &Repository, subject: Digest) -> Result<Vec<Companion>> {
    let mut found = Vec::new();
    for suffix in COSIGN_SUFFIXES {
        let tag = Tag::cosign(&subject, suffix);
        if !walk.tag_may_exist(repository, &tag).await {
            continue;
        }
        let attempt = |error: Error| error.while_doing(format!("reading the tag {tag}"));
        let reference = repository.with_tag(tag.clone());
        if let Some(manifest) = walk.source.manifest(&reference).await.map_err(attempt)? {
            found.push(Companion { subject, tag: Some(tag), manifest });
        }
    }
    Ok(found)
}

/// Whether a tag is worth asking for. One list of tags answers for all images of a repository; a registry that gives no
/// list is asked tag by tag.
pub async fn may_exist(walk: &Walk<'_>, repository: &Repository, tag: &Tag) -> bool {
    let known = {
        let mut all = walk.tags.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(repository.clone()).or_default().clone()
    };
    let tags = known.get_or_init(|| async {
        match walk.source.tags(repository).await {
            // Of a list that may lack some, nothing can be concluded.
            Ok(list) if !list.doubts.is_empty() => {
                tracing::debug!("{repository}: the list of tags is not whole, asking one by one: {:?}", list.doubts);
                None
            }
            Ok(list) => {
                // Only these are asked about.
                let named_after_digests = list.tags.into_iter().filter(|tag| tag.as_str().starts_with("sha"));
                Some(named_after_digests.collect::<HashSet<Tag>>())
            }
            Err(error) => {
                tracing::debug!("{repository}: no list of tags, asking one by one: {}", error.chain());
                None
            }
        }
    });
    tags.await.as_ref().is_none_or(|tags| tags.contains(tag))
}
